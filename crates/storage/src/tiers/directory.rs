//! One directory of a tier: its store, its health and its measured speed.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bandwidth::{self, Bandwidth};
use super::health::{Health, TierState};
use super::kind::TierDirectory;
use super::state::{self, SavedDirectory};
use crate::{BlobStore, DurableFiles, StorageError};

/// A directory and what is known of it.
#[derive(Debug)]
pub(crate) struct Directory {
    config: TierDirectory,
    files: DurableFiles,
    /// Whether it is the store itself, which its owner has opened and locked.
    is_main: bool,
    condition: Mutex<Condition>,
}

#[derive(Debug)]
struct Condition {
    /// Open unless it failed.
    store: Option<Arc<BlobStore>>,
    health: Health,
    read: Bandwidth,
    write: Bandwidth,
    /// What its marker said when it was first seen.
    id: Option<String>,
}

/// What is shown of a directory's condition.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) health: Health,
    pub(crate) read: Bandwidth,
    pub(crate) write: Bandwidth,
}

impl Directory {
    /// A directory not opened yet, with what was saved about it.
    pub(crate) fn new(
        config: TierDirectory,
        files: DurableFiles,
        is_main: bool,
        saved: SavedDirectory,
    ) -> Self {
        let condition = Condition {
            store: None,
            health: Health::default(),
            read: Bandwidth::from_measured(saved.read_bytes_per_second),
            write: Bandwidth::from_measured(saved.write_bytes_per_second),
            id: saved.id,
        };
        Self { config, files, is_main, condition: Mutex::new(condition) }
    }

    pub(crate) fn config(&self) -> &TierDirectory {
        &self.config
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// Its store, opened if need be.
    ///
    /// # Errors
    /// [`StorageError::TierAbsent`] if another file system is mounted there, or none; [`StorageError::Io`].
    pub(crate) fn store(&self) -> Result<Arc<BlobStore>, StorageError> {
        let mut condition = self.condition();
        if let Some(store) = &condition.store {
            return Ok(Arc::clone(store));
        }
        if !self.is_main {
            condition.id = Some(self.identify(condition.id.as_deref())?);
        }
        let store = Arc::new(BlobStore::open_on(Arc::clone(self.files.disk()), self.dir())?);
        condition.store = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Finds out whether this is the directory it was. A durable one that has lost its marker is not written to: its
    /// file system is not mounted, and the blobs would land on another.
    fn identify(&self, known: Option<&str>) -> Result<String, StorageError> {
        let found = state::read_marker(&self.files, self.dir());
        match (known, found) {
            (Some(known), Some(found)) if known == found => Ok(found),
            (None, Some(found)) => Ok(found),
            (Some(_), _) if self.config.kind.is_durable() => {
                Err(StorageError::TierAbsent { dir: self.dir().to_owned() })
            }
            _ => {
                self.files.create_dir(self.dir())?;
                state::write_marker(&self.files, self.dir())
            }
        }
    }

    /// Tries a directory that failed again.
    ///
    /// # Errors
    /// Why it is still not usable.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let id = self.condition().id.clone();
        let is_there = self.is_main || id.is_none() || state::read_marker(&self.files, self.dir()) == id;
        let blobs = self.dir().join("blobs/sha256");
        if !is_there || !self.files.is_dir(&blobs) {
            self.condition().store = None;
        }
        self.store()?;
        // A directory that can be listed can be read; whether it can be written is seen by writing.
        let listed = self.files.disk().list(&blobs).map(drop);
        listed.map_err(|error| StorageError::io("list", &blobs, error))
    }

    /// What its file system has left for this user.
    pub(crate) fn free_bytes(&self) -> std::io::Result<u64> {
        let status = rustix::fs::statvfs(self.dir())?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// Takes note of a failure; returns its new state if that changed.
    pub(crate) fn failed(&self, error: &StorageError, now_ms: u64) -> Option<TierState> {
        self.condition().health.failed(error, now_ms)
    }

    /// Takes note of success; returns whether it had failed before.
    pub(crate) fn recovered(&self) -> bool {
        self.condition().health.recovered()
    }

    pub(crate) fn state(&self) -> TierState {
        self.condition().health.state()
    }

    /// Whether its wait after a failure is over.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.condition().health.is_due(now_ms)
    }

    pub(crate) fn record_read(&self, bytes: u64, elapsed: Duration) {
        self.condition().read.record(bytes, elapsed);
    }

    pub(crate) fn record_write(&self, bytes: u64, elapsed: Duration) {
        self.condition().write.record(bytes, elapsed);
    }

    /// Bytes per second of reading: measured, or assumed of its kind.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.condition().read.or_assumed(self.config.kind.assumed_bytes_per_second())
    }

    /// Measures an unmeasured directory.
    ///
    /// # Errors
    /// Whatever writing or reading says.
    pub(crate) fn probe(&self) -> Result<bool, StorageError> {
        if self.condition().read.measured().is_some() {
            return Ok(false);
        }
        let (read, write) = bandwidth::probe(&**self.files.disk(), self.dir())?;
        let mut condition = self.condition();
        (condition.read, condition.write) = (read, write);
        Ok(true)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let condition = self.condition();
        Snapshot { health: condition.health.clone(), read: condition.read, write: condition.write }
    }

    /// What to remember of it.
    pub(crate) fn saved(&self) -> SavedDirectory {
        let condition = self.condition();
        SavedDirectory {
            id: condition.id.clone(),
            read_bytes_per_second: condition.read.measured(),
            write_bytes_per_second: condition.write.measured(),
        }
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
