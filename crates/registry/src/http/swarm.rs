//! Routes of the fleet: where a piece is, pieces, trees, who holds what; and the way of questions to parents.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use helios_types::Digest;

use super::answer::{Body, Segment};
use super::wire::Nothing;
use crate::swarm::wire::{Ask, Holdings, Place};
use crate::{Registry, RegistryError, SharedCache, via};

const BYTES: [(axum::http::HeaderName, &str); 1] = [(CONTENT_TYPE, "application/octet-stream")];

pub(super) async fn ask(
    State(registry): State<Arc<Registry>>,
    Segment(digest): Segment<Digest>,
    Body(ask): Body<Ask>,
) -> Result<Json<Place>, RegistryError> {
    registry.swarm().tracker().ask(digest, &ask).map(Json)
}

pub(super) async fn hold(
    State(registry): State<Arc<Registry>>,
    Body(holdings): Body<Holdings>,
) -> Result<Json<Nothing>, RegistryError> {
    registry.swarm().tracker().hold(holdings)?;
    Ok(Json(Nothing {}))
}

pub(super) async fn piece(
    State(registry): State<Arc<Registry>>,
    Segment((digest, index)): Segment<(Digest, u64)>,
) -> Result<Response, RegistryError> {
    Ok((BYTES, registry.piece(&digest, index).await?).into_response())
}

/// As [`piece`], of a node that is no registry.
pub(super) async fn piece_of_node(
    State(node): State<Arc<SharedCache>>,
    Segment((digest, index)): Segment<(Digest, u64)>,
) -> Result<Response, RegistryError> {
    Ok((BYTES, node.piece(&digest, index).await?).into_response())
}

pub(super) async fn tree(
    State(registry): State<Arc<Registry>>,
    Segment(digest): Segment<Digest>,
) -> Result<Response, RegistryError> {
    Ok((BYTES, registry.tree(&digest).await?.to_bytes()).into_response())
}

/// Refuses a question that has been here before, and remembers the way of the others.
pub(super) async fn note_way(
    State(registry): State<Arc<Registry>>,
    request: Request,
    next: Next,
) -> Response {
    match via::of_request(request.headers(), registry.id()) {
        Ok(way) => via::scope(way, next.run(request)).await,
        Err(error) => error.into_response(),
    }
}
