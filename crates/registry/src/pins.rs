//! What keeps garbage collection away from blobs that no manifest names yet.
//!
//! A blob is pinned under the gate, shared, before it gets its name or while it has it; collection holds the gate alone. So
//! collection never removes a blob of a running pull, and a pull never relies on a blob that is being removed. Nobody
//! copies, hashes or syncs a large file under the gate: collection would wait for that, and everybody for collection.

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
        self.pin_under_gate(writer.digest());
        writer.commit(expected)
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
        let info = self.blobs.import_file(path, progress)?;
        if self.adopt(info.digest) {
            return Ok(info);
        }
        // A collection has taken it in between.
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

    fn pin_under_gate(&self, digest: Digest) {
        let _open = self.pins.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.pin(digest);
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use helios_storage::{DurableFiles, SimulatedDisk, Tiers};

    use super::{Intake, Pins};

    #[test]
    fn a_collection_need_not_wait_while_a_file_is_copied() {
        let disk = Arc::new(SimulatedDisk::new(1));
        let source = Path::new("/source");
        DurableFiles::new(disk.clone()).write_atomic(source, &[7; 1 << 20]).expect("a file");
        let pins = Arc::<Pins>::default();
        let intake = Intake::new(
            Tiers::open_on(disk, Path::new("/store"), Vec::new()).expect("a store"),
            Arc::clone(&pins),
        );
        let mut looks = 0;
        let mut progress = |_| {
            looks += 1;
            assert!(pins.gate.try_write().is_ok(), "the gate is shut");
        };
        let info = intake.import_file(source, &mut progress).expect("imported");
        assert!(looks > 0);
        assert_eq!(pins.pinned(), [info.digest]);
    }

    #[test]
    fn a_download_is_pinned_before_it_has_its_name() {
        let disk = Arc::new(SimulatedDisk::new(1));
        let pins = Arc::<Pins>::default();
        let tiers = Tiers::open_on(disk.clone(), Path::new("/store"), Vec::new()).expect("a store");
        let intake = Intake::new(Arc::clone(&tiers), Arc::clone(&pins));
        let mut writer = tiers.writer("key", None).expect("a writer");
        writer.write(b"contents").expect("written");
        let digest = writer.digest();
        disk.inject(disk.operations(), helios_storage::disk::Fault::Broken);
        intake.commit(writer, None).expect_err("the disk is broken");
        assert!(!tiers.contains(&digest) && pins.pinned() == [digest]);
        drop(intake);
        assert!(pins.pinned().is_empty());
    }
}
