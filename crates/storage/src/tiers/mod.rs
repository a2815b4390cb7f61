//! Tiers: one store over any number of directories - host memory, NVMe, SSD; the fourth tier, remote, is known to its [`Keeper`].
//!
//! Each directory is a [`BlobStore`](crate::BlobStore) with a byte budget and a measured bandwidth. A blob is read from
//! the fastest place that has it, written to the first with room, copied nearer when it is used, and leaves by value
//! (see `policy`). A directory that fails or fills is skipped, said so, and tried again after a back-off; a blob that is
//! nowhere else is asked for even there.
//!
//! - The store's own directory, the main one, also has the recipes; what they are made of is bound to it.
//! - A copy counts once its bytes matched its digest on arrival, and is in the books only then.
//! - In a directory with a budget, blobs and what running writers have reserved stay within it. Abandoned partial
//!   downloads do not count; garbage collection removes them.
//! - At the bound - no directory has room, and nothing may leave - a writer gets [`StorageError::NoRoom`] and nothing
//!   that is needed is touched; a promotion is left out.
//! - One directory without a budget, which is the default, keeps no books and starts no thread.

mod bandwidth;
mod contents;
mod directory;
mod events;
mod health;
mod intake;
mod keeper;
mod kind;
mod ledger;
mod mover;
mod moves;
mod policy;
#[cfg(test)]
mod policy_tests;
mod readers;
mod reading;
mod recipes;
mod report;
mod reservation;
mod scrubbing;
mod state;
mod uses;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use helios_runtime::Clock;
use helios_types::Digest;

use crate::{BlobStore, Disk, DurableFiles, RealDisk, StorageError};
use directory::Directory;
use keeper::NoKeeper;
use ledger::{Ledger, Place, PlaceId};
use moves::Queue;
use state::SavedState;

pub use events::describe as describe_tier_metrics;
pub use health::{TierFailure, TierState};
pub use keeper::Keeper;
pub use kind::{Residency, TierDirectory, TierKind};
pub use mover::Mover;
pub use report::{TierReport, TierRoom};
pub use scrubbing::CopyScrub;
pub use uses::{DecayedUses, UsePredictor};

/// The directories of one store.
#[derive(Debug)]
pub struct Tiers {
    /// The store's own directory, which holds recipes too.
    main: PlaceId,
    files: DurableFiles,
    /// In the configuration's order; the ledger's places are the same.
    directories: Vec<Directory>,
    ledger: Mutex<Ledger>,
    keeper: RwLock<Arc<dyn Keeper>>,
    queue: Queue,
    /// Counts blobs that left a place.
    departures: AtomicU64,
    /// Held while a copy is deleted, so that two do not each rely on the other.
    departing: Mutex<()>,
}

/// Milliseconds since 1970: what decisions and back-offs count in, kept across restarts.
fn now_ms() -> u64 {
    Clock.unix_ms()
}

impl Tiers {
    /// Opens the store in `main` with more directories. `main` is the first of them, NVMe without a budget, unless it is
    /// listed itself. Only `main` has to work; the others are tried again later. Blocks: O(blobs) unless `main` is the
    /// only directory and has no budget.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`] if `main` cannot be opened.
    pub fn open(main: &Path, directories: Vec<TierDirectory>) -> Result<Arc<Self>, StorageError> {
        Self::open_on(Arc::new(RealDisk), main, directories)
    }

    /// As [`open`](Self::open), on any disk, which holds all directories.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        main: &Path,
        mut directories: Vec<TierDirectory>,
    ) -> Result<Arc<Self>, StorageError> {
        let files = DurableFiles::new(disk);
        if directories.iter().all(|directory| directory.dir != main) {
            let first = TierDirectory { kind: TierKind::Nvme, dir: main.to_owned(), budget_bytes: None };
            directories.insert(0, first);
        }
        let main_id = directories.iter().position(|directory| directory.dir == main).unwrap_or_default();
        let SavedState { directories: mut saved, uses } = SavedState::load(&files, main);
        let mut predictor = DecayedUses::default();
        predictor.restore(uses);
        let places = directories.iter().map(|directory| Place::new(directory.kind, directory.budget_bytes));
        let ledger = Ledger::new(places.collect(), main_id, Box::new(predictor));
        let directory = |config: TierDirectory| {
            let is_main = config.dir == main;
            let saved = saved.remove(&config.dir).unwrap_or_default();
            Directory::new(config, files.clone(), is_main, saved)
        };
        let directories = directories.into_iter().map(directory).collect();
        let tiers = Self {
            main: main_id,
            files,
            directories,
            ledger: Mutex::new(ledger),
            keeper: RwLock::new(Arc::new(NoKeeper)),
            queue: Queue::default(),
            departures: AtomicU64::new(0),
            departing: Mutex::default(),
        };
        tiers.open_directories()?;
        Ok(Arc::new(tiers))
    }

    fn open_directories(&self) -> Result<(), StorageError> {
        for id in 0..self.directories.len() {
            let opened = self.attempt(id, |_| Ok(()));
            if id == self.main {
                opened?;
            }
            if self.keeps_books() {
                self.take_stock(id);
            }
        }
        self.bind_recipes()
    }

    /// Names the time since the system started, where it says so: what was written since and not synced can be read.
    pub fn boot_id(&self) -> Option<String> {
        self.files.disk().boot_id()
    }

    /// Whether there is anything to decide.
    pub fn keeps_books(&self) -> bool {
        self.directories.len() > 1 || self.directories.iter().any(|one| one.config().budget_bytes.is_some())
    }

    /// Replaces what is pinned. Pinned blobs are brought where their pins want them, and stay.
    pub fn set_pins(&self, pins: HashMap<Digest, Residency>) {
        self.ledger().set_pins(pins);
        self.queue.review();
    }

    /// Replaces who knows what is held and what could be fetched again; at first nothing is either.
    pub fn set_keeper(&self, keeper: Arc<dyn Keeper>) {
        *self.keeper.write().unwrap_or_else(PoisonError::into_inner) = keeper;
    }

    pub(crate) fn keeper(&self) -> Arc<dyn Keeper> {
        Arc::clone(&self.keeper.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Brings the books up to what the keeper says is held. Not to be called with the ledger locked: a keeper may block.
    pub(crate) fn ask_what_is_held(&self) {
        let held = self.keeper().held();
        self.ledger().set_held(held);
    }

    /// Puts another judgement of what will be used in the place of the one before, whose history it takes over.
    pub fn set_predictor(&self, mut predictor: Box<dyn UsePredictor>) {
        let mut ledger = self.ledger();
        predictor.restore(ledger.predictor.history());
        ledger.predictor = predictor;
    }

    /// Runs `work` on a directory's store and notes what the outcome says about the directory.
    fn attempt<T>(
        &self,
        id: PlaceId,
        work: impl FnOnce(&BlobStore) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let result = self.directories[id].store().and_then(|store| work(&store));
        match &result {
            Ok(_) if self.directories[id].state() == TierState::Down => self.note_recovery(id),
            Ok(_) => {}
            Err(error) => self.note_failure(id, error),
        }
        result
    }

    fn note_failure(&self, id: PlaceId, error: &StorageError) {
        let directory = &self.directories[id];
        let is_elsewhere = error.path().is_some_and(|path| !path.starts_with(directory.dir()));
        if is_elsewhere || !health::is_of_directory(error) {
            return;
        }
        let changed = directory.failed(error, now_ms());
        events::failed(directory.dir(), error, changed);
        self.refresh(id);
    }

    fn note_recovery(&self, id: PlaceId) {
        if self.directories[id].recovered() {
            events::recovered(self.directories[id].dir());
            if self.keeps_books() {
                self.take_stock(id);
            }
        }
        self.refresh(id);
    }

    /// Tries the directories again whose back-off is over.
    fn revive(&self, now_ms: u64) {
        for (id, directory) in self.directories.iter().enumerate() {
            if !directory.is_due(now_ms) {
                continue;
            }
            match directory.check() {
                Ok(()) => self.note_recovery(id),
                Err(error) => self.note_failure(id, &error),
            }
        }
    }

    /// Brings the books up to what is known of a directory's state and speed.
    fn refresh(&self, id: PlaceId) {
        let (directory, free) = (&self.directories[id], self.directories[id].free_bytes());
        let (state, bytes_per_second) = (directory.state(), directory.bytes_per_second());
        let mut ledger = self.ledger();
        let place = ledger.place_mut(id);
        place.is_readable = state != TierState::Down;
        place.is_writable = state == TierState::Up;
        place.bytes_per_second = bytes_per_second;
        place.see_free_bytes(free.unwrap_or(u64::MAX));
        events::holds(directory.dir(), place.used());
    }

    /// Counts what a directory holds.
    fn take_stock(&self, id: PlaceId) {
        match self.directories[id].store().and_then(|store| store.list()) {
            Ok(blobs) => self.ledger().take_stock(id, blobs),
            Err(error) => self.note_failure(id, &error),
        }
        self.refresh(id);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
