//! Routes of demand: reports of uses, and warm-pool records.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::answer::{Body, Query};
use super::wire::{ModelQuery, Nothing, UsesBody, Warm, WarmBody, WarmQuery};
use crate::{Registry, RegistryError};

pub(super) async fn note_uses(
    State(registry): State<Arc<Registry>>,
    Body(body): Body<UsesBody>,
) -> Result<Json<Nothing>, RegistryError> {
    registry.note_uses(&body.uses).await?;
    Ok(Json(Nothing {}))
}

pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    Query(query): Query<WarmQuery>,
) -> Result<Json<Warm>, RegistryError> {
    Ok(Json(Warm { records: registry.warm(query.model.as_ref()).await? }))
}

pub(super) async fn keep(
    State(registry): State<Arc<Registry>>,
    Body(body): Body<WarmBody>,
) -> Result<Json<Warm>, RegistryError> {
    Ok(Json(Warm { records: registry.keep_warm(&body.model, body.level).await? }))
}

pub(super) async fn let_go(
    State(registry): State<Arc<Registry>>,
    Query(query): Query<ModelQuery>,
) -> Result<Json<Nothing>, RegistryError> {
    registry.keep_warm_no_more(&query.model).await?;
    Ok(Json(Nothing {}))
}
