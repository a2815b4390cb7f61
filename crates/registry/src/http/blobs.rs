//! Routes of bytes: manifests and blobs by digest.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use helios_types::Digest;

use super::answer::Segment;
use super::ranged;
use crate::{Registry, RegistryError};

pub(super) async fn manifest(
    State(registry): State<Arc<Registry>>,
    Segment(digest): Segment<Digest>,
) -> Result<Response, RegistryError> {
    let manifest = registry.manifest(&digest).await?;
    // Who asks is about to read its files, or still does.
    registry.hand_out_version(digest, &manifest);
    Ok(([(CONTENT_TYPE, "application/json")], manifest.to_bytes()).into_response())
}

pub(super) async fn blob(
    State(registry): State<Arc<Registry>>,
    Segment(digest): Segment<Digest>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, RegistryError> {
    let info = registry.blob_info(&digest).await?;
    ranged::answer(&registry.content(info), &method, &headers).await
}
