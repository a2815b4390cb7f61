//! Blobs by digest: files, and the manifests of Helios that are the configuration of artifacts made here.

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use helios_registry::protocol::answer_file;
use helios_types::Digest;

use super::error::OciError;
use super::state::{Oci, digest};

/// `GET` or `HEAD` of `/v2/NAME/blobs/DIGEST`.
pub(super) async fn read(oci: &Oci, text: &str, request: Request) -> Result<Response, OciError> {
    let digest = digest(text)?;
    let mut response = match oci.shelf.known(&oci.registry, &digest).await {
        Some(info) => {
            let content = oci.registry.content(info).await?;
            answer_file(&content, request.method(), request.headers()).await?
        }
        None => match oci.registry.manifest(&digest).await {
            Ok(manifest) => Bytes::from(manifest.to_bytes()).into_response(),
            Err(_) => {
                let message = format!("no blob {digest}");
                return Err(OciError::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message));
            }
        },
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().extend(content_digest(&digest));
    Ok(response)
}

/// The header that names what an answer is about.
pub(super) fn content_digest(digest: &Digest) -> HeaderMap {
    let value = HeaderValue::from_str(&digest.to_string()).expect("invariant: a digest is ASCII");
    HeaderMap::from_iter([(HeaderName::from_static("docker-content-digest"), value)])
}
