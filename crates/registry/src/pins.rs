//! What keeps garbage collection away from blobs that no manifest names yet.
//!
//! A blob gets its name and its pin under the gate, shared; collection holds the gate alone. So collection never sees a
//! blob of a running pull without its pin, and a pull never relies on a blob that is being removed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use helios_storage::{BlobInfo, BlobStore, BlobWriter, StorageError};
use helios_types::Digest;

/// The pinned blobs of a store, counted.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    gate: RwLock<()>,
    counts: Mutex<HashMap<Digest, usize>>,
}

impl Pins {
    /// Keeps every pull from adding or adopting blobs until dropped, and tells what those running have pinned.
    pub(crate) fn close(&self) -> (RwLockWriteGuard<'_, ()>, HashSet<Digest>) {
        let gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let pinned = self.counts().keys().copied().collect();
        (gate, pinned)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings blobs into the store for one pull and pins them until dropped. Its methods block.
#[derive(Debug)]
pub(crate) struct Intake {
    blobs: Arc<BlobStore>,
    pins: Arc<Pins>,
    pinned: Mutex<Vec<Digest>>,
}

impl Intake {
    pub(crate) fn new(blobs: Arc<BlobStore>, pins: Arc<Pins>) -> Self {
        Self { blobs, pins, pinned: Mutex::default() }
    }

    /// The store behind it.
    pub(crate) fn blobs(&self) -> &Arc<BlobStore> {
        &self.blobs
    }

    /// Commits a download.
    pub(crate) fn commit(
        &self,
        writer: BlobWriter,
        expected: Option<Digest>,
    ) -> Result<BlobInfo, StorageError> {
        self.add(|| writer.commit(expected))
    }

    /// Stores a small blob.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<BlobInfo, StorageError> {
        self.add(|| self.blobs.put(bytes))
    }

    /// Copies a file into the store.
    pub(crate) fn import_file(
        &self,
        path: &std::path::Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<BlobInfo, StorageError> {
        self.add(|| self.blobs.import_file(path, progress))
    }

    /// Pins a blob that is there already; false if it is not.
    pub(crate) fn adopt(&self, digest: Digest) -> bool {
        let _open = self.pins.gate.read().unwrap_or_else(PoisonError::into_inner);
        let there = self.blobs.contains(&digest);
        if there {
            self.pin(digest);
        }
        there
    }

    fn add(&self, store: impl FnOnce() -> Result<BlobInfo, StorageError>) -> Result<BlobInfo, StorageError> {
        let _open = self.pins.gate.read().unwrap_or_else(PoisonError::into_inner);
        let info = store()?;
        self.pin(info.digest);
        Ok(info)
    }

    fn pin(&self, digest: Digest) {
        *self.pins.counts().entry(digest).or_default() += 1;
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).push(digest);
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let mut counts = self.pins.counts();
        for digest in self.pinned.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let count = counts.entry(digest).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&digest);
            }
        }
    }
}
