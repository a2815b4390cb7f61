//! Route of memory profiles.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use helios_types::Digest;

use super::answer::Segment;
use crate::{MemoryProfile, Registry, RegistryError};

pub(super) async fn profile(
    State(registry): State<Arc<Registry>>,
    Segment(digest): Segment<Digest>,
) -> Result<Json<MemoryProfile>, RegistryError> {
    let manifest = registry.manifest(&digest).await?;
    registry.profile(&manifest).await.map(Json)
}
