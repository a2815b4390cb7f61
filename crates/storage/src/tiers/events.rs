//! What the tiers tell logs and metrics.

use std::path::Path;

use super::health::TierState;
use crate::StorageError;

/// A directory failed or filled; `state` is its new state, if that changed.
pub(crate) fn failed(dir: &Path, error: &StorageError, state: Option<TierState>) {
    let reason = if matches!(error, StorageError::StorageFull { .. }) { "full" } else { "error" };
    metrics::counter!("helios_tier_failures_total", "dir" => dir.display().to_string(), "reason" => reason)
        .increment(1);
    match state {
        Some(TierState::Full) => {
            tracing::warn!(dir = %dir.display(), %error, "a tier is full and gets no more blobs for a while");
        }
        Some(TierState::Down) => {
            tracing::warn!(dir = %dir.display(), %error, "a tier failed and is skipped for a while");
        }
        _ => tracing::debug!(dir = %dir.display(), %error, "a tier failed again"),
    }
}

/// A directory that had failed works again.
pub(crate) fn recovered(dir: &Path) {
    tracing::info!(dir = %dir.display(), "a tier is used again");
}

/// Why blobs move.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moved {
    Promoted,
    Demoted,
    Evicted,
    Repaired,
}

/// A blob went to another tier, or left one.
pub(crate) fn moved(how: Moved, dir: &Path, digest: &helios_types::Digest, bytes: u64) {
    let how = match how {
        Moved::Promoted => "promoted",
        Moved::Demoted => "demoted",
        Moved::Evicted => "evicted",
        Moved::Repaired => "repaired",
    };
    metrics::counter!("helios_tier_moves_total", "dir" => dir.display().to_string(), "how" => how)
        .increment(1);
    metrics::counter!("helios_tier_moved_bytes_total", "dir" => dir.display().to_string(), "how" => how)
        .increment(bytes);
    tracing::info!(dir = %dir.display(), %digest, bytes, how, "a blob moved");
}

/// What a directory holds.
pub(crate) fn holds(dir: &Path, bytes: u64) {
    metrics::gauge!("helios_tier_used_bytes", "dir" => dir.display().to_string()).set(bytes as f64);
}

/// Says what the metrics mean.
pub fn describe() {
    metrics::describe_counter!(
        "helios_tier_failures_total",
        "Failed operations of a directory of the store, by reason: `error` or `full`."
    );
    metrics::describe_counter!(
        "helios_tier_moves_total",
        "Blobs that were promoted to, demoted to, evicted from or repaired in a directory of the store."
    );
    metrics::describe_counter!(
        "helios_tier_moved_bytes_total",
        metrics::Unit::Bytes,
        "Bytes of those blobs."
    );
    metrics::describe_gauge!(
        "helios_tier_used_bytes",
        metrics::Unit::Bytes,
        "Bytes of blobs in a directory of the store."
    );
}
