//! Errors as JSON, and bodies that must be JSON.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use helios_types::{Classify, ErrorCode};
use serde::de::DeserializeOwned;

use super::ROUTE_PREFIX;
use super::wire::{ErrorBody, ErrorDetail};
use crate::RegistryError;

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(helios_api::http_status(self.code()));
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(error = %self, "a request to the registry failed");
        }
        let mut response = (status, Json(ErrorBody { error: ErrorDetail::from(&self) })).into_response();
        if let Some(wait) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

pub(super) async fn no_such_route(uri: Uri) -> RegistryError {
    let problem = format!("there is no route `{ROUTE_PREFIX}{}`", uri.path());
    RegistryError::InvalidRequest { problem, code: ErrorCode::NotFound }
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> RegistryError {
    let problem = format!("`{ROUTE_PREFIX}{}` does not take {method}", uri.path());
    RegistryError::InvalidRequest { problem, code: ErrorCode::MethodNotAllowed }
}

/// The error of a request that an extractor refused.
fn refused(status: StatusCode, problem: String) -> RegistryError {
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::PayloadTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
        _ => ErrorCode::InvalidRequest,
    };
    RegistryError::InvalidRequest { problem, code }
}

/// A JSON body, sent as such.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = RegistryError;

    async fn from_request(request: Request, state: &S) -> Result<Self, RegistryError> {
        let body = Json::<T>::from_request(request, state).await;
        body.map(|Json(body)| Self(body))
            .map_err(|error: JsonRejection| refused(error.status(), error.body_text()))
    }
}

/// The query.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = RegistryError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RegistryError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|query| Self(query.0))
            .map_err(|error: QueryRejection| refused(error.status(), error.body_text()))
    }
}

/// The variable part of the path.
pub(super) struct Segment<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segment<T> {
    type Rejection = RegistryError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RegistryError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0))
            .map_err(|error: PathRejection| refused(error.status(), error.body_text()))
    }
}
