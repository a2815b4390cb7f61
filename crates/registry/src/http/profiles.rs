//! Route of memory profiles.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use helios_model::MemoryProfile;
use helios_model::profile::ProfileTotals;
use helios_types::Digest;

use serde::Serialize;

use super::answer::Segment;
use crate::{Registry, RegistryError};

/// A profile with its totals by name.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    totals: ProfileTotals,
    #[serde(flatten)]
    profile: MemoryProfile,
}

pub(super) async fn profile(
    State(registry): State<Arc<Registry>>,
    Segment(digest): Segment<Digest>,
) -> Result<Json<Shown>, RegistryError> {
    let manifest = registry.manifest(&digest).await?;
    let profile = registry.profile(&manifest).await?;
    Ok(Json(Shown { totals: profile.totals(), profile }))
}
