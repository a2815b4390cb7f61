//! Reading copies again, directory by directory, and bringing back one that was wrong from another that is right.

use std::sync::Arc;

use super::ledger::PlaceId;
use super::moves::Moved;
use super::{Tiers, now_ms};
use crate::scrub::{BlobScrub, ScrubStep};
use crate::{BlobInfo, StorageError};

/// One copy of a blob that is being read again.
#[derive(Debug)]
pub struct CopyScrub {
    place: PlaceId,
    scrub: BlobScrub,
}

impl Tiers {
    /// Begins to read every copy of a blob again.
    ///
    /// # Errors
    /// [`StorageError::BlobMissing`] if there is none; [`StorageError::Io`], [`StorageError::RecipeBroken`].
    pub fn scrub(&self, info: &BlobInfo) -> Result<Vec<CopyScrub>, StorageError> {
        let mut copies = Vec::new();
        let mut outcome = Err(StorageError::BlobMissing { digest: info.digest });
        for place in self.holders(&info.digest).collect::<Vec<_>>() {
            match self.attempt(place, |store| store.scrub(info)) {
                Ok(scrub) => copies.push(CopyScrub { place, scrub }),
                Err(error) => outcome = Err(error),
            }
        }
        if copies.is_empty() { outcome } else { Ok(copies) }
    }

    /// Reads on in one copy, about `budget_bytes`.
    ///
    /// # Errors
    /// As [`get`](Self::get): a wrong copy is in the quarantine afterwards.
    pub fn scrub_step(&self, copy: &mut CopyScrub, budget_bytes: u64) -> Result<ScrubStep, StorageError> {
        let step = self.attempt(copy.place, |store| copy.scrub.step(store, budget_bytes));
        if matches!(step, Err(StorageError::BlobCorrupt { .. } | StorageError::BlobMissing { .. })) {
            self.note_absence(copy.place, copy.scrub.info());
        }
        step
    }

    /// Whether a right copy is left on a durable directory; one that is only in memory is copied back to a disk. O(size)
    /// for copies that were not verified lately. Blocks.
    pub fn heal(self: &Arc<Self>, info: &BlobInfo) -> bool {
        self.revive(now_ms());
        for from in self.holders(&info.digest).collect::<Vec<_>>() {
            if self.attempt(from, |store| store.open_file(info)).is_err() {
                self.note_absence(from, info);
                continue;
            }
            let is_durable = self.directories[from].config().kind.is_durable();
            if is_durable || self.copy_back(info, from) {
                return true;
            }
        }
        false
    }

    fn copy_back(self: &Arc<Self>, info: &BlobInfo, from: PlaceId) -> bool {
        match self.reserve_new(info.size) {
            Ok(reservation) => self.copied(&info.digest, from, reservation, Moved::Repaired),
            Err(error) => {
                tracing::warn!(digest = %info.digest, %error, "a blob is left in memory alone");
                false
            }
        }
    }
}
