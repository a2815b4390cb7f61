//! How new blobs get in: to the first directory with room, and on to the next if that one fails or fills.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::ledger::PlaceId;
use super::policy::Placement;
use super::reservation::Reservation;
use super::{Tiers, now_ms};
use crate::blob_writer::WriteWatch;
use crate::{BlobInfo, BlobStore, BlobWriter, StorageError};

/// Derived blobs given up at a time, about: a disk that is full is full for the next write, too.
const GIVE_UP_BYTES_MIN: u64 = 256 << 20;
/// Times that one writer may lose the room it made to others: each time another one goes on.
const ROOM_LOST_MAX: usize = 64;

impl Tiers {
    /// Stores a small blob whole.
    ///
    /// # Errors
    /// [`StorageError::NoRoom`], or what the last directory that was tried said; nothing is left behind.
    pub fn put(self: &Arc<Self>, bytes: &[u8]) -> Result<BlobInfo, StorageError> {
        self.placed(bytes.len() as u64, &mut |store, _| store.put(bytes))
    }

    /// Copies a file into the store and hashes the copy in the same pass. `progress` gets the bytes done so far.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn import_file(
        self: &Arc<Self>,
        path: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<BlobInfo, StorageError> {
        self.placed(self.files.size(path)?, &mut |store, reservation| {
            store.import_file(path, &mut |done| {
                reservation.wrote(done);
                progress(done);
            })
        })
    }

    /// Begins a blob that arrives in pieces and cannot be resumed: a writer that is dropped leaves nothing behind. `bytes`
    /// is its size, where that is known.
    ///
    /// # Errors
    /// As [`writer`](Self::writer).
    pub fn temporary_writer(self: &Arc<Self>, bytes: Option<u64>) -> Result<BlobWriter, StorageError> {
        self.begin(None, bytes)
    }

    /// Begins a blob that arrives in pieces, or resumes the one begun under the same key. `bytes` is its size, where
    /// that is known: room for all of it is then found before the first byte. If the directory fails or fills while it is
    /// written, the writer goes on in the next with what it has.
    ///
    /// # Errors
    /// [`StorageError::InvalidKey`], [`StorageError::NoRoom`], or what the last directory that was tried said.
    pub fn writer(self: &Arc<Self>, key: &str, bytes: Option<u64>) -> Result<BlobWriter, StorageError> {
        self.begin(Some(key), bytes)
    }

    fn begin(self: &Arc<Self>, key: Option<&str>, bytes: Option<u64>) -> Result<BlobWriter, StorageError> {
        let mut failure = None;
        for _ in 0..=self.directories.len() {
            let reservation = match key.and_then(|key| self.resumed(key, bytes)) {
                Some(reservation) => reservation,
                None => {
                    self.reserve_new(bytes.unwrap_or(0)).map_err(|error| failure.take().unwrap_or(error))?
                }
            };
            let place = reservation.place();
            match self.attempt(place, |store| begin_in(store, key)) {
                Ok(writer) => return Ok(writer.watched(self.watch(reservation, key, bytes))),
                Err(error @ StorageError::InvalidKey { .. }) => return Err(error),
                Err(error) => {
                    self.made_room(place, &error, bytes.unwrap_or(0));
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| self.no_room(bytes.unwrap_or(0))))
    }

    fn watch(
        self: &Arc<Self>,
        reservation: Reservation,
        key: Option<&str>,
        bytes: Option<u64>,
    ) -> Box<dyn WriteWatch> {
        Box::new(Watch { reservation: Some(reservation), key: key.map(str::to_owned), bytes })
    }

    /// Room in the directory where an earlier writer of the key stopped.
    fn resumed(self: &Arc<Self>, key: &str, bytes: Option<u64>) -> Option<Reservation> {
        let writable: Vec<usize> = {
            let ledger = self.ledger();
            ledger.places().filter(|(_, place)| place.is_writable).map(|(id, _)| id).collect()
        };
        let mut begun = writable.into_iter().filter_map(|id| {
            let store = self.directories[id].store().ok()?;
            Some((id, store.partial_bytes(key)?))
        });
        let (id, done) = begun.next()?;
        let mut reservation = Reservation::new(self, id, 0)?;
        reservation.grow_to(bytes.unwrap_or(done).max(done)).then(|| {
            reservation.wrote(done);
            reservation
        })
    }

    /// Runs `write` on the directory with room for `bytes`, or on the next if that fails or fills; it says how far it has
    /// come, unless that takes a moment.
    fn placed(
        self: &Arc<Self>,
        bytes: u64,
        write: &mut dyn FnMut(&BlobStore, &mut Reservation) -> Result<BlobInfo, StorageError>,
    ) -> Result<BlobInfo, StorageError> {
        let mut tried = Vec::new();
        let mut failure = None;
        loop {
            let mut reservation = match self.reserve_new(bytes) {
                Ok(reservation) if !tried.contains(&reservation.place()) => reservation,
                Ok(_) => return Err(failure.unwrap_or_else(|| self.no_room(bytes))),
                Err(error) => return Err(failure.unwrap_or(error)),
            };
            match self.attempt(reservation.place(), |store| write(store, &mut reservation)) {
                Ok(info) => {
                    reservation.settle(info.digest, info.size);
                    return Ok(info);
                }
                Err(error) => {
                    if !self.made_room(reservation.place(), &error, bytes) {
                        tried.push(reservation.place());
                    }
                    failure = Some(error);
                }
            }
        }
    }

    /// Whether derived blobs were given up because the main directory's file system is full.
    fn made_room(&self, place: PlaceId, error: &StorageError, bytes: u64) -> bool {
        let is_full = place == self.main && matches!(error, StorageError::StorageFull { .. });
        is_full && self.keeper().give_up_derived(bytes.max(GIVE_UP_BYTES_MIN)) > 0
    }

    /// Room for a new blob, made if need be.
    pub(crate) fn reserve_new(self: &Arc<Self>, bytes: u64) -> Result<Reservation, StorageError> {
        self.revive(now_ms());
        if self.keeps_books() {
            (0..self.directories.len()).for_each(|id| self.refresh(id));
        }
        for _ in 0..ROOM_LOST_MAX {
            let placement = self.place_new(bytes).ok_or_else(|| self.no_room(bytes))?;
            self.make_way(&placement);
            // Another writer may have taken the room that was made: it is then looked for again.
            if let Some(reservation) = Reservation::new(self, placement.place, bytes) {
                return Ok(reservation);
            }
        }
        Err(self.no_room(bytes))
    }

    /// Where a new blob goes, and what leaves for it.
    fn place_new(&self, bytes: u64) -> Option<Placement> {
        if let Some(placement) = self.ledger().place_in_room(bytes) {
            return Some(placement);
        }
        if self.gave_up_derived_for(bytes)
            && let Some(placement) = self.ledger().place_in_room(bytes)
        {
            return Some(placement);
        }
        self.ask_what_is_held();
        let keeper = self.keeper();
        self.ledger().place_new(bytes, now_ms(), &|digest| keeper.can_fetch(digest))
    }

    /// Whether derived blobs went because they, and not other blobs, are what fills the main directory's file system.
    pub(crate) fn gave_up_derived_for(&self, bytes: u64) -> bool {
        let short = self.ledger().short_of_free_bytes(self.main, bytes);
        if short == 0 || self.keeper().give_up_derived(short) == 0 {
            return false;
        }
        self.refresh(self.main);
        true
    }

    /// The error at the bound, with what each directory says.
    pub(crate) fn no_room(&self, bytes: u64) -> StorageError {
        let ledger = self.ledger();
        let durable = ledger.places().filter(|(_, place)| place.kind.is_durable());
        let shown = durable.map(|(id, place)| {
            let dir = self.directories[id].dir().display();
            match (place.is_writable, place.budget) {
                (false, _) => format!("`{dir}` failed or is full"),
                (true, Some(budget)) => format!("`{dir}` holds {} of {budget} bytes", place.used()),
                (true, None) => format!("`{dir}` has {} bytes free", place.free_bytes()),
            }
        });
        StorageError::NoRoom { bytes, tiers: shown.collect::<Vec<_>>().join(", ") }
    }
}

fn begin_in(store: &BlobStore, key: Option<&str>) -> Result<BlobWriter, StorageError> {
    key.map_or_else(|| store.temporary_writer(), |key| store.writer(key))
}

/// Keeps the books for one writer.
#[derive(Debug)]
struct Watch {
    /// Until the blob is committed.
    reservation: Option<Reservation>,
    /// `None` for a writer that cannot be resumed.
    key: Option<String>,
    /// Of the whole blob, where known.
    bytes: Option<u64>,
}

impl WriteWatch for Watch {
    fn reserve(&mut self, bytes: u64) -> Result<(), StorageError> {
        let Some(reservation) = &mut self.reservation else { return Ok(()) };
        if reservation.grow_to(bytes) {
            return Ok(());
        }
        Err(reservation.tiers().no_room(bytes))
    }

    fn wrote(&mut self, bytes: u64, end: u64, elapsed: Duration) {
        if let Some(reservation) = &mut self.reservation {
            reservation.wrote(end);
            reservation.tiers().directories[reservation.place()].record_write(bytes, elapsed);
        }
    }

    fn made_room(&mut self, error: &StorageError, bytes: u64) -> bool {
        let Some(reservation) = &self.reservation else { return false };
        let (tiers, place) = (reservation.tiers(), reservation.place());
        match error {
            // Another writer may have taken the room that was made, and left since.
            StorageError::NoRoom { .. } => {
                let ledger = tiers.ledger();
                ledger.place(place).is_writable && ledger.place(place).room() >= bytes
            }
            error => tiers.made_room(place, error, bytes),
        }
    }

    fn failed(&mut self, error: &StorageError) {
        if let Some(reservation) = &self.reservation {
            reservation.tiers().note_failure(reservation.place(), error);
        }
    }

    fn elsewhere(&mut self, bytes: u64) -> Option<BlobWriter> {
        let here = self.reservation.as_ref()?;
        let (tiers, key) = (here.tiers(), self.key.as_deref());
        // A directory that fails at once is noted as failed, and the next is found.
        for _ in 0..tiers.directories.len() {
            let there = tiers.reserve_new(self.bytes.unwrap_or(0).max(bytes)).ok()?;
            if there.place() == here.place() {
                return None;
            }
            if let Ok(writer) = tiers.attempt(there.place(), |store| begin_in(store, key)) {
                return Some(writer.watched(tiers.watch(there, key, self.bytes)));
            }
        }
        None
    }

    fn committed(&mut self, info: &BlobInfo) {
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(info.digest, info.size);
        }
    }
}
