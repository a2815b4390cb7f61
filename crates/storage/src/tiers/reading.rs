//! How blobs are read: from the fastest directory that has a right copy, whatever the others do.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use helios_runtime::Clock;
use helios_types::Digest;

use super::ledger::PlaceId;
use super::{Tiers, now_ms};
use crate::{Blob, BlobInfo, BlobStore, FileBytes, StorageError, Tree};

/// How often a read looks again for a blob that moved while it looked.
const LOOKS_MAX: usize = 8;

impl Tiers {
    /// Maps a blob from the fastest directory that has it. The first time since the system started, and whenever the file
    /// has changed, it is read in full and compared with `info`: O(size). A copy that turns out wrong, or a directory
    /// that fails, costs nothing but the time to the next. What is kept as a recipe is put together in memory: files of
    /// any size are better opened by [`open_file`](Self::open_file).
    ///
    /// # Errors
    /// [`StorageError::BlobMissing`] if no directory has it; else what the last of them said.
    pub fn get(&self, info: &BlobInfo) -> Result<Blob, StorageError> {
        self.open_file(info).map(|file| file.to_blob())
    }

    /// Opens a file of a model without copying it, as [`get`](Self::get): the map of the whole blob, or, if it is kept as
    /// a recipe, of the blobs that it lies in.
    ///
    /// # Errors
    /// As there; [`StorageError::RecipeBroken`].
    pub fn open_file(&self, info: &BlobInfo) -> Result<FileBytes, StorageError> {
        let file = self.read_fastest(info, |id| {
            let mut is_first_read = false;
            let began = Clock.now();
            let result = self.attempt(id, |store| {
                // A recipe's bytes come from several files, if they are read at all: they say nothing of the rate.
                is_first_read = store.has_whole(&info.digest) && !store.needs_no_read(info);
                store.open_file(info)
            });
            if result.is_ok() && is_first_read {
                self.directories[id].record_read(info.size, began.elapsed());
            }
            result
        })?;
        self.note_use(info.digest, &file);
        Ok(file)
    }

    /// Reads a range of a blob, verified by the leaves that it touches unless the file was verified as a whole.
    ///
    /// # Errors
    /// [`StorageError::InvalidRange`]; else as [`get`](Self::get).
    pub fn read_range(&self, info: &BlobInfo, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.read_fastest(info, |id| self.attempt(id, |store| store.read_range(info, range.clone())))
    }

    /// The tree of a blob: O(size) where it has to be built again.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn tree(&self, info: &BlobInfo) -> Result<Arc<Tree>, StorageError> {
        self.read_fastest(info, |id| self.attempt(id, |store| store.tree(info)))
    }

    /// The first good answer, fastest directory first; once more from the start for a blob that moved meanwhile.
    fn read_fastest<T>(
        &self,
        info: &BlobInfo,
        read: impl Fn(PlaceId) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.revive(now_ms());
        for _ in 0..LOOKS_MAX {
            let before = self.departures.load(Ordering::SeqCst);
            match self.read_fastest_once(info, &read) {
                Err(StorageError::BlobMissing { .. }) if before != self.departures.load(Ordering::SeqCst) => {
                }
                result => return result,
            }
        }
        Err(StorageError::BlobMissing { digest: info.digest })
    }

    fn read_fastest_once<T>(
        &self,
        info: &BlobInfo,
        read: impl Fn(PlaceId) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut outcome = Err(StorageError::BlobMissing { digest: info.digest });
        for id in self.reading_order(info.size) {
            match read(id) {
                Err(error @ (StorageError::BlobMissing { .. } | StorageError::BlobCorrupt { .. })) => {
                    self.note_absence(id, info);
                    if matches!(error, StorageError::BlobCorrupt { .. }) {
                        outcome = Err(error);
                    }
                }
                Err(error @ StorageError::InvalidRange { .. }) => return Err(error),
                Err(error) => outcome = Err(error),
                ok => return ok,
            }
        }
        outcome
    }

    /// The directories, fastest first; those that failed come last.
    pub(crate) fn reading_order(&self, bytes: u64) -> Vec<PlaceId> {
        let ledger = self.ledger();
        let mut order: Vec<PlaceId> = (0..self.directories.len()).collect();
        let rank = |id: &PlaceId| (!ledger.place(*id).is_readable, ledger.place(*id).seconds(bytes));
        order.sort_by(|a, b| {
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        order
    }

    /// Counts a use, and asks for the blob to come nearer if that is worth it.
    fn note_use(&self, digest: Digest, file: &FileBytes) {
        if !self.keeps_books() {
            return;
        }
        let mut ledger = self.ledger();
        for blob in file.blobs() {
            ledger.readers.opened(digest, blob);
        }
        ledger.predictor.used(digest, now_ms());
        let keeper = self.keeper();
        let promotion = ledger.promotion(&digest, now_ms(), &|digest| keeper.can_fetch(digest));
        drop(ledger);
        if promotion.is_some() {
            self.queue.push(digest);
        }
    }

    /// A directory has not got the blob, or not the right one. If it should have, the directory itself may be gone.
    pub(crate) fn note_absence(&self, id: PlaceId, info: &BlobInfo) {
        if self.ledger().remove(id, &info.digest).is_some()
            && let Err(error) = self.directories[id].check()
        {
            self.note_failure(id, &error);
        }
    }

    /// Runs `work` on the main directory's store.
    pub(crate) fn in_main<T>(
        &self,
        work: impl FnOnce(&BlobStore) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.attempt(self.main, work)
    }
}
