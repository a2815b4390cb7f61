//! Errors in the form of the OCI distribution specification: a list with one code of its table.

use axum::Json;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use helios_api::{ApiError, http_status};
use helios_registry::RegistryError;
use helios_types::{Classify, ErrorCode};
use serde_json::json;

/// A call that failed.
#[derive(Debug)]
pub(super) struct OciError {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Box<HeaderMap>,
}

impl OciError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Box::default() }
    }

    pub(super) fn no_name(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("no model `{name}`"))
    }

    pub(super) fn no_manifest(name: &str, reference: &str) -> Self {
        let message = format!("`{name}` has no manifest `{reference}`");
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message)
    }

    pub(super) fn bad_manifest(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    pub(super) fn bad_digest(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(super) fn no_upload(id: &str) -> Self {
        let message = format!("no upload `{id}`: it has ended, or waited too long\nhint: begin again");
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", message)
    }

    /// Says more about the answer.
    pub(super) fn with(mut self, headers: HeaderMap) -> Self {
        self.headers = Box::new(headers);
        self
    }
}

/// The code of the specification's table that fits best.
fn code_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthenticated => "UNAUTHORIZED",
        ErrorCode::PermissionDenied => "DENIED",
        ErrorCode::NotFound => "BLOB_UNKNOWN",
        ErrorCode::ModelNotFound => "NAME_UNKNOWN",
        ErrorCode::MethodNotAllowed | ErrorCode::UnsupportedMediaType => "UNSUPPORTED",
        ErrorCode::PayloadTooLarge => "SIZE_INVALID",
        ErrorCode::Overloaded => "TOOMANYREQUESTS",
        ErrorCode::InvalidRequest => "BLOB_UPLOAD_INVALID",
        _ => "UNKNOWN",
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        code => StatusCode::from_u16(http_status(code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

impl From<RegistryError> for OciError {
    fn from(error: RegistryError) -> Self {
        let code = match &error {
            RegistryError::ReservedName { .. } => "NAME_INVALID",
            error => code_of(error.code()),
        };
        let status = status_of(error.code());
        if status.is_server_error() {
            tracing::warn!(%error, "a call of OCI distribution failed");
        }
        Self::new(status, code, error.to_string())
    }
}

impl IntoResponse for OciError {
    fn into_response(self) -> Response {
        let Self { status, code, message, headers } = self;
        let errors = json!({ "errors": [{ "code": code, "message": message, "detail": null }] });
        (status, *headers, Json(errors)).into_response()
    }
}

/// How the guard's refusal is said to clients of OCI distribution: one without a key is told to send it as a password.
pub fn refusal(error: &ApiError) -> Response {
    let mut headers = HeaderMap::new();
    if error.code == ErrorCode::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"helios\""));
    }
    OciError::new(status_of(error.code), code_of(error.code), error.message.clone())
        .with(headers)
        .into_response()
}
