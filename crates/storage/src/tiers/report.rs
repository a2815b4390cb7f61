//! What people are shown of the tiers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Tiers;
use super::health::{TierFailure, TierState};
use super::kind::TierKind;

/// What the disks of a store may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierRoom {
    /// In all: budgets; of a directory without one, what it has in the books and half of what its file system has left.
    pub budget_bytes: u64,
    /// Of that, what nobody has.
    pub free_bytes: u64,
}

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
    /// What the disks that can be written may hold. Blocks; O(directories).
    pub fn room(&self) -> TierRoom {
        let ledger = self.ledger();
        let mut room = TierRoom::default();
        for (id, place) in ledger.places().filter(|(_, place)| place.kind.is_durable() && place.is_writable) {
            let (budget, free) = match place.budget {
                Some(budget) => (budget, place.room()),
                None => {
                    let free = self.directories[id].free_bytes().unwrap_or(0) / 2;
                    (place.used().saturating_add(free), free)
                }
            };
            room.budget_bytes = room.budget_bytes.saturating_add(budget);
            room.free_bytes = room.free_bytes.saturating_add(free);
        }
        room
    }

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
