//! What keeps garbage collection away from blobs that no manifest names yet.
//!
//! A blob gets its name and its pin under the gate, shared; collection holds the gate alone. So collection never sees a
//! blob of a running pull without its pin, and a pull never relies on a blob that is being removed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use helios_storage::{BlobInfo, BlobWriter, StorageError, Tiers};
use helios_types::Digest;

use crate::RegistryError;
use crate::blocking::blocking;

/// The pinned blobs of a store, counted.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    gate: RwLock<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: HashMap<Digest, usize>,
    /// Whatever was pinned at some time since the watch began, while there is one.
    watched: Option<HashSet<Digest>>,
}

/// Remembers every pin until dropped.
#[derive(Debug)]
pub(crate) struct Watch<'a>(&'a Pins);

/// Keeps every pull from adding or adopting blobs until dropped.
#[derive(Debug)]
pub(crate) struct ClosedGate<'a> {
    pins: &'a Pins,
    _gate: RwLockWriteGuard<'a, ()>,
}

impl Pins {
    /// Remembers what is pinned, and what will be. One watch at a time.
    pub(crate) fn watch(&self) -> Watch<'_> {
        let mut state = self.state();
        state.watched = Some(state.counts.keys().copied().collect());
        Watch(self)
    }

    /// What is pinned.
    pub(crate) fn pinned(&self) -> Vec<Digest> {
        self.state().counts.keys().copied().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Watch<'a> {
    /// Shuts the gate.
    pub(crate) fn close(&self) -> ClosedGate<'a> {
        let gate = self.0.gate.write().unwrap_or_else(PoisonError::into_inner);
        ClosedGate { pins: self.0, _gate: gate }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.state().watched = None;
    }
}

impl ClosedGate<'_> {
    /// Whether the blob was pinned at some time since the watch began.
    pub(crate) fn was_pinned(&self, blob: &Digest) -> bool {
        self.pins.state().watched.as_ref().is_none_or(|watched| watched.contains(blob))
    }
}

/// Brings blobs into the store for one pull and pins them until dropped. Its methods block, but for `store`.
#[derive(Debug)]
pub struct Intake {
    blobs: Arc<Tiers>,
    pins: Arc<Pins>,
    pinned: Mutex<Vec<Digest>>,
}

impl Intake {
    pub(crate) fn new(blobs: Arc<Tiers>, pins: Arc<Pins>) -> Self {
        Self { blobs, pins, pinned: Mutex::default() }
    }

    /// The store behind it.
    pub(crate) fn blobs(&self) -> &Arc<Tiers> {
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

    /// As `put`, from async code.
    ///
    /// # Errors
    /// [`RegistryError::Storage`].
    pub async fn store(self: &Arc<Self>, bytes: Vec<u8>) -> Result<BlobInfo, RegistryError> {
        let intake = Arc::clone(self);
        blocking(move || Ok(intake.put(&bytes)?)).await
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
    pub fn adopt(&self, digest: Digest) -> bool {
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
        let mut state = self.pins.state();
        *state.counts.entry(digest).or_default() += 1;
        if let Some(watched) = &mut state.watched {
            watched.insert(digest);
        }
        drop(state);
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).push(digest);
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let counts = &mut self.pins.state().counts;
        for digest in self.pinned.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let count = counts.entry(digest).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&digest);
            }
        }
    }
}
