//! Routes of membership: renew, leave, list.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use helios_runtime::Clock;

use super::answer::{Body, Query, Segment};
use super::wire::{Nothing, RenewBody, WorkersQuery};
use crate::registry::invalid_request;
use crate::{MembersSnapshot, Registry, RegistryError};

/// Longest wait for a change.
const WAIT_MAX: Duration = Duration::from_secs(30);

pub(super) async fn renew(
    State(registry): State<Arc<Registry>>,
    Segment(id): Segment<String>,
    Body(body): Body<RenewBody>,
) -> Result<Json<Nothing>, RegistryError> {
    if body.worker.id != id {
        return Err(invalid_request(format!("the lease is of `{}`, the route of `{id}`", body.worker.id)));
    }
    registry.members().renew(body.worker, Duration::from_millis(body.ttl_ms))?;
    Ok(Json(Nothing {}))
}

pub(super) async fn leave(
    State(registry): State<Arc<Registry>>,
    Segment(id): Segment<String>,
) -> Json<Nothing> {
    registry.members().leave(&id);
    Json(Nothing {})
}

pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    Query(query): Query<WorkersQuery>,
) -> Json<MembersSnapshot> {
    let members = registry.members();
    let Some(seen) = query.after else { return Json(members.snapshot()) };
    let wait = Duration::from_millis(query.wait_ms).min(WAIT_MAX);
    Json(Clock.timeout(wait, members.changed(seen)).await.unwrap_or_else(|_elapsed| members.snapshot()))
}
