//! Encodings of request bodies: none is taken.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use helios_types::ErrorCode;

use crate::RegistryError;

/// Refuses bodies that are compressed: nobody could tell how much comes out of them.
///
/// # Errors
/// [`RegistryError::InvalidRequest`].
pub fn check_encoding(headers: &HeaderMap) -> Result<(), RegistryError> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let problem =
        "a compressed request body is not accepted\nhint: send it without content-encoding".to_owned();
    Err(RegistryError::InvalidRequest { problem, code: ErrorCode::UnsupportedMediaType })
}
