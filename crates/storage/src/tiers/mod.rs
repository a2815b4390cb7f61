//! Tiers: one store over any number of directories - host memory, NVMe, SSD - and origins elsewhere.
//!
//! Each directory is a [`BlobStore`](crate::BlobStore) with a byte budget and a measured bandwidth. A blob is read from
//! the fastest place that has it, written to the first with room, copied nearer when it is used, and leaves by value
//! (see `policy`). A directory that fails or fills is skipped, said so, and tried again after a back-off; a blob that is
//! nowhere else is asked for even there.
//!
//! - A copy counts once its bytes matched its digest on arrival, and is in the books only then.
//! - In a directory with a budget, blobs and what running writers have reserved stay within it. Abandoned partial
//!   downloads do not count; garbage collection removes them.
//! - At the bound - no directory has room, and nothing may leave - a writer gets [`StorageError::NoRoom`] and nothing
//!   that is needed is touched; a promotion is left out.
//! - One directory without a budget, which is the default, keeps no books and starts no thread.

mod bandwidth;
mod directory;
mod events;
mod health;
mod intake;
mod kind;
mod ledger;
mod mover;
mod moves;
mod origin;
mod policy;
#[cfg(test)]
mod policy_tests;
mod readers;
mod report;
mod reservation;
mod state;
mod uses;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use helios_runtime::Clock;
use helios_types::Digest;

use crate::{Blob, BlobInfo, BlobStore, Disk, DurableFiles, RealDisk, StorageError};
use directory::Directory;
use ledger::{Ledger, Place, PlaceId};
use moves::Queue;
use state::SavedState;
use uses::DecayedUses;

pub use events::describe as describe_tier_metrics;
pub use health::{TierFailure, TierState};
pub use kind::{Residency, TierDirectory, TierKind};
pub use mover::Mover;
pub use origin::{Fetching, Origin};
pub use report::{OriginReport, TierReport};
pub use uses::UsePredictor;

/// How often a read looks again for a blob that moved while it looked.
const LOOKS_MAX: usize = 8;

/// The directories of one store.
#[derive(Debug)]
pub struct Tiers {
    main: PathBuf,
    files: DurableFiles,
    /// In the configuration's order; the ledger's places are the same.
    directories: Vec<Directory>,
    ledger: Mutex<Ledger>,
    origins: RwLock<Vec<Arc<dyn Origin>>>,
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
        let SavedState { directories: mut saved, uses } = SavedState::load(&files, main);
        let mut predictor = DecayedUses::default();
        predictor.restore(uses);
        let places = directories.iter().map(|directory| Place::new(directory.kind, directory.budget_bytes));
        let ledger = Ledger::new(places.collect(), Box::new(predictor));
        let directory = |config: TierDirectory| {
            let is_main = config.dir == main;
            let saved = saved.remove(&config.dir).unwrap_or_default();
            Directory::new(config, files.clone(), is_main, saved)
        };
        let directories = directories.into_iter().map(directory).collect();
        let tiers = Self {
            main: main.to_owned(),
            files,
            directories,
            ledger: Mutex::new(ledger),
            origins: RwLock::default(),
            queue: Queue::default(),
            departures: AtomicU64::new(0),
            departing: Mutex::default(),
        };
        tiers.open_directories()?;
        Ok(Arc::new(tiers))
    }

    fn open_directories(&self) -> Result<(), StorageError> {
        for (id, directory) in self.directories.iter().enumerate() {
            let opened = self.attempt(id, |_| Ok(()));
            if directory.dir() == self.main {
                opened?;
            }
            if self.keeps_books() {
                self.take_stock(id);
            }
        }
        Ok(())
    }

    /// Whether there is anything to decide.
    fn keeps_books(&self) -> bool {
        self.directories.len() > 1 || self.directories.iter().any(|one| one.config().budget_bytes.is_some())
    }

    /// Maps a blob from the fastest directory that has it. The first time in this process, and whenever the file has
    /// changed, it is read in full and compared with `info`: O(size). A copy that turns out wrong, or a directory that
    /// fails, costs nothing but the time to the next.
    ///
    /// # Errors
    /// [`StorageError::BlobMissing`] if no directory has it; else what the last of them said.
    pub fn get(&self, info: &BlobInfo) -> Result<Blob, StorageError> {
        self.revive(now_ms());
        for _ in 0..LOOKS_MAX {
            let before = self.departures.load(Ordering::SeqCst);
            match self.get_once(info) {
                Err(StorageError::BlobMissing { .. }) if before != self.departures.load(Ordering::SeqCst) => {
                }
                result => return result,
            }
        }
        Err(StorageError::BlobMissing { digest: info.digest })
    }

    fn get_once(&self, info: &BlobInfo) -> Result<Blob, StorageError> {
        let mut outcome = Err(StorageError::BlobMissing { digest: info.digest });
        for id in self.reading_order(info.size) {
            match self.get_from(id, info) {
                Ok(blob) => {
                    self.note_use(info.digest, &blob);
                    return Ok(blob);
                }
                Err(StorageError::BlobMissing { .. }) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn get_from(&self, id: PlaceId, info: &BlobInfo) -> Result<Blob, StorageError> {
        let mut is_first_read = false;
        let began = Clock.now();
        let result = self.attempt(id, |store| {
            is_first_read = !store.needs_no_read(info);
            store.get(info)
        });
        match &result {
            Ok(_) if is_first_read => self.directories[id].record_read(info.size, began.elapsed()),
            Err(StorageError::BlobMissing { .. } | StorageError::BlobCorrupt { .. }) => {
                self.note_absence(id, info)
            }
            _ => {}
        }
        result
    }

    /// The directories, fastest first; those that failed come last.
    fn reading_order(&self, bytes: u64) -> Vec<PlaceId> {
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
    fn note_use(&self, digest: Digest, blob: &Blob) {
        if !self.keeps_books() {
            return;
        }
        let mut ledger = self.ledger();
        ledger.readers.opened(digest, blob);
        ledger.predictor.used(digest, now_ms());
        let promotion = ledger.promotion(&digest, now_ms(), &|digest| self.can_fetch(digest));
        drop(ledger);
        if promotion.is_some() {
            self.queue.push(digest);
        }
    }

    /// A directory has not got the blob, or not the right one. If it should have, the directory itself may be gone.
    fn note_absence(&self, id: PlaceId, info: &BlobInfo) {
        if self.ledger().remove(id, &info.digest).is_some()
            && let Err(error) = self.directories[id].check()
        {
            self.note_failure(id, &error);
        }
    }

    /// Whether a whole blob of that name is in some directory; says nothing about its bytes.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.holders(digest).next().is_some()
    }

    /// The file of a blob in the fastest directory that has it.
    pub fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let order = self.reading_order(0);
        let stores = order.into_iter().filter_map(|id| self.directories[id].store().ok());
        stores.filter(|store| store.contains(digest)).map(|store| store.path(digest)).next()
    }

    /// Directories with the blob, by what their file systems say.
    fn holders(&self, digest: &Digest) -> impl Iterator<Item = PlaceId> {
        let holds = |directory: &Directory| directory.store().is_ok_and(|store| store.contains(digest));
        (0..self.directories.len()).filter(move |id| holds(&self.directories[*id]))
    }

    /// Every blob with its size in bytes, ordered by digest. A directory that fails is left out.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the main directory cannot be listed.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, StorageError> {
        let mut blobs = BTreeMap::new();
        for (id, directory) in self.directories.iter().enumerate() {
            match self.attempt(id, BlobStore::list) {
                Ok(list) => blobs.extend(list),
                Err(error) if directory.dir() == self.main => return Err(error),
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
        for (id, directory) in self.directories.iter().enumerate() {
            match self.attempt(id, |store| store.remove(digest)) {
                Ok(bytes) => freed += bytes,
                Err(error) if directory.dir() == self.main => return Err(error),
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
        for (id, directory) in self.directories.iter().enumerate() {
            match self.attempt(id, BlobStore::remove_leftovers) {
                Ok(bytes) => freed += bytes,
                Err(error) if directory.dir() == self.main => return Err(error),
                Err(_skipped) => {}
            }
        }
        Ok(freed)
    }

    /// The directories that work, fastest first: where a reader in another process may look.
    pub fn directories(&self) -> Vec<PathBuf> {
        let readable = self.reading_order(0).into_iter().filter(|id| self.ledger().place(*id).is_readable);
        readable.map(|id| self.directories[id].dir().to_owned()).collect()
    }

    /// Replaces what is pinned. Pinned blobs are brought where their pins want them, and stay.
    pub fn set_pins(&self, pins: HashMap<Digest, Residency>) {
        self.ledger().set_pins(pins);
        self.queue.review();
    }

    /// Replaces what others hold - leased workers that map it, running pulls; such blobs stay where they are.
    pub fn set_held(&self, held: HashSet<Digest>) {
        self.ledger().set_held(held);
    }

    /// Replaces the origins, fastest first.
    pub fn set_origins(&self, origins: Vec<Arc<dyn Origin>>) {
        *self.origins.write().unwrap_or_else(PoisonError::into_inner) = origins;
    }

    /// The origins, fastest first.
    pub fn origins(&self) -> Vec<Arc<dyn Origin>> {
        self.origins.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another judgement of what will be used in the place of the built-in one.
    pub fn set_predictor(&self, predictor: Box<dyn UsePredictor>) {
        self.ledger().predictor = predictor;
    }

    fn can_fetch(&self, digest: &Digest) -> bool {
        self.origins
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|origin| origin.can_fetch(digest))
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
        place.free_bytes = free.unwrap_or(u64::MAX);
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
