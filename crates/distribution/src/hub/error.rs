//! Errors as the hub's clients read them: a status, a code in `X-Error-Code`, and the words in `X-Error-Message`.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use helios_api::{ApiError, http_status};
use helios_registry::RegistryError;
use helios_types::{Classify, ErrorCode};
use serde_json::json;

const CODE: HeaderName = HeaderName::from_static("x-error-code");
const MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

/// A call that failed.
#[derive(Debug)]
pub(super) struct HubError {
    status: StatusCode,
    /// What the client maps to an exception of its own.
    code: Option<&'static str>,
    message: String,
    headers: Box<HeaderMap>,
}

impl HubError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, code: None, message: message.into(), headers: Box::default() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn no_repository(repository: &str) -> Self {
        let message = format!("no repository `{repository}`\nhint: `helios list` shows what is here");
        Self { code: Some("RepoNotFound"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub(super) fn no_revision(repository: &str, revision: &str) -> Self {
        let message = format!(
            "`{repository}` has no revision `{revision}`\nhint: revisions are tags, `main` and commits; \
             `helios list` shows the tags"
        );
        Self { code: Some("RevisionNotFound"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub(super) fn no_entry(path: &str) -> Self {
        let message = format!("A file with this name doesn't exist: `{path}`");
        Self { code: Some("EntryNotFound"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    /// Says more about the answer.
    pub(super) fn with(mut self, headers: HeaderMap) -> Self {
        self.headers = Box::new(headers);
        self
    }
}

impl From<RegistryError> for HubError {
    fn from(error: RegistryError) -> Self {
        let status = status_of(error.code());
        if status.is_server_error() {
            tracing::warn!(%error, "a call of the hub's protocol failed");
        }
        let code = (error.code() == ErrorCode::ModelNotFound).then_some("RepoNotFound");
        Self { code, ..Self::new(status, error.to_string()) }
    }
}

impl IntoResponse for HubError {
    fn into_response(self) -> Response {
        let Self { status, code, message, mut headers } = self;
        if let Some(code) = code {
            headers.insert(CODE, HeaderValue::from_static(code));
        }
        let one_line = message.replace('\n', "; ");
        if let Ok(value) = HeaderValue::from_str(&one_line) {
            headers.insert(MESSAGE, value);
        }
        (status, *headers, Json(json!({ "error": message }))).into_response()
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(http_status(code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// How the guard's refusal is said to clients of the hub.
pub fn refusal(error: &ApiError) -> Response {
    HubError::new(status_of(error.code), error.message.clone()).into_response()
}
