//! What the directories hold, and how it is deleted.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::PoisonError;

use helios_types::Digest;

use super::Tiers;
use super::kind::TierKind;
use super::ledger::PlaceId;
use crate::{BlobStore, StorageError};

impl Tiers {
    /// Whether a blob of that name is in some directory, whole or as a recipe; says nothing about its bytes.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.holders(digest).next().is_some()
    }

    /// Those of `blobs` that no directory has, once what is leaving to make room has left.
    pub fn absent(&self, blobs: impl IntoIterator<Item = Digest>) -> HashSet<Digest> {
        let _none_departs = self.departing.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.into_iter().filter(|digest| !self.contains(digest)).collect()
    }

    /// Whether a directory of that kind has the blob; says nothing about its bytes.
    pub fn is_in(&self, digest: &Digest, kind: TierKind) -> bool {
        self.holders(digest).any(|id| self.directories[id].config().kind == kind)
    }

    /// The file of a blob in the fastest directory that has it whole.
    pub fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let order = self.reading_order(0);
        let stores = order.into_iter().filter_map(|id| self.directories[id].store().ok());
        stores.filter(|store| store.has_whole(digest)).map(|store| store.path(digest)).next()
    }

    /// Directories with the blob, by what their file systems say.
    pub(crate) fn holders(&self, digest: &Digest) -> impl Iterator<Item = PlaceId> {
        let holds = |id: &PlaceId| self.directories[*id].store().is_ok_and(|store| store.contains(digest));
        (0..self.directories.len()).filter(holds)
    }

    /// Every whole blob with its size in bytes, ordered by digest. A directory that fails is left out.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the main directory cannot be listed.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, StorageError> {
        let mut blobs = BTreeMap::new();
        for id in 0..self.directories.len() {
            match self.attempt(id, BlobStore::list) {
                Ok(list) => blobs.extend(list),
                Err(error) if id == self.main => return Err(error),
                Err(_skipped) => {}
            }
        }
        Ok(blobs.into_iter().collect())
    }

    /// Deletes a blob everywhere and returns the bytes that frees. Whoever has it mapped keeps reading it. From a
    /// directory that fails it is deleted by a later collection.
    ///
    /// # Errors
    /// [`StorageError::Io`] of the main directory.
    pub fn remove(&self, digest: &Digest) -> Result<u64, StorageError> {
        let mut freed = 0;
        for id in 0..self.directories.len() {
            match self.attempt(id, |store| store.remove(digest)) {
                Ok(bytes) => freed += bytes,
                Err(error) if id == self.main => return Err(error),
                Err(_skipped) => continue,
            }
            self.ledger().remove(id, digest);
        }
        Ok(freed)
    }

    /// Deletes partial blobs that no writer holds and quarantined files; returns the bytes freed.
    ///
    /// # Errors
    /// [`StorageError::Io`] of the main directory.
    pub fn remove_leftovers(&self) -> Result<u64, StorageError> {
        let mut freed = 0;
        for id in 0..self.directories.len() {
            match self.attempt(id, BlobStore::remove_leftovers) {
                Ok(bytes) => freed += bytes,
                Err(error) if id == self.main => return Err(error),
                Err(_skipped) => {}
            }
        }
        self.bind_recipes()?;
        Ok(freed)
    }

    /// The directories that work, fastest first: where a reader in another process may look.
    pub fn directories(&self) -> Vec<PathBuf> {
        let readable = self.reading_order(0).into_iter().filter(|id| self.ledger().place(*id).is_readable);
        readable.map(|id| self.directories[id].dir().to_owned()).collect()
    }
}
