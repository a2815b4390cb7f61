//! What people are shown of the tiers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Tiers;
use super::health::{TierFailure, TierState};
use super::kind::TierKind;

/// One directory, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierReport {
    /// What it is made of.
    pub kind: TierKind,
    /// Where it is.
    pub dir: PathBuf,
    /// Most bytes of blobs in it; `None` leaves that to its file system.
    pub budget_bytes: Option<u64>,
    /// Bytes of blobs in it.
    pub used_bytes: u64,
    /// Blobs in it.
    pub blobs: u64,
    /// What its file system has left, where it says.
    pub free_bytes: Option<u64>,
    /// Measured bytes per second of verified reading.
    pub read_bytes_per_second: Option<u64>,
    /// Measured bytes per second of writing.
    pub write_bytes_per_second: Option<u64>,
    /// Whether it is used.
    pub state: TierState,
    /// Milliseconds until it is tried again, unless it is up.
    pub retry_in_ms: Option<u64>,
    /// The last failure since the start, also of a directory that is up again.
    pub last_failure: Option<TierFailure>,
    /// Pinned blobs in it.
    pub pinned_blobs: u64,
    /// Their bytes.
    pub pinned_bytes: u64,
}

impl Tiers {
    /// The directories in the configuration's order. Blocks; O(blobs).
    pub fn report(&self) -> Vec<TierReport> {
        if !self.keeps_books() {
            self.take_stock(0);
        }
        let ledger = self.ledger();
        let reports = ledger.places().map(|(id, place)| {
            let directory = &self.directories[id];
            let snapshot = directory.snapshot();
            let pinned = ledger.pins().filter(|(digest, _)| ledger.is_pinned_at(digest, id));
            let pinned: Vec<u64> =
                pinned.filter_map(|(digest, _)| place.blobs().get(digest).copied()).collect();
            TierReport {
                kind: place.kind,
                dir: directory.dir().to_owned(),
                budget_bytes: place.budget,
                used_bytes: place.used(),
                blobs: place.blobs().len() as u64,
                free_bytes: directory.free_bytes().ok(),
                read_bytes_per_second: snapshot.read.measured(),
                write_bytes_per_second: snapshot.write.measured(),
                state: snapshot.health.state(),
                retry_in_ms: snapshot.health.retry_in_ms(super::now_ms()),
                last_failure: snapshot.health.last_failure().cloned(),
                pinned_blobs: pinned.len() as u64,
                pinned_bytes: pinned.iter().sum(),
            }
        });
        reports.collect()
    }
}
