//! What is where: the books of all directories, without a file behind them.
//!
//! Invariant: in a directory with a budget, blobs and reservations together never grow beyond it. A directory that holds
//! more when it is opened (its budget was made smaller) is given nothing until it is below again.

use std::collections::{BTreeMap, HashMap, HashSet};

use helios_types::Digest;

use super::kind::{Residency, TierKind};
use super::readers::Readers;
use super::uses::UsePredictor;

/// A directory, by its position in the configuration.
pub(crate) type PlaceId = usize;

/// The books of one directory.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) kind: TierKind,
    pub(crate) budget: Option<u64>,
    /// Measured or assumed.
    pub(crate) bytes_per_second: f64,
    /// Whether it may be read.
    pub(crate) is_readable: bool,
    /// Whether it may be written.
    pub(crate) is_writable: bool,
    /// What its file system has left beside what is written of the reservations, as last seen.
    free_bytes: u64,
    used: u64,
    reserved: u64,
    /// Bytes of the reservations that are written already.
    written: u64,
    blobs: BTreeMap<Digest, u64>,
}

impl Place {
    pub(crate) fn new(kind: TierKind, budget: Option<u64>) -> Self {
        Self {
            kind,
            budget,
            bytes_per_second: kind.assumed_bytes_per_second(),
            is_readable: true,
            is_writable: true,
            free_bytes: u64::MAX,
            used: 0,
            reserved: 0,
            written: 0,
            blobs: BTreeMap::new(),
        }
    }

    /// Bytes of its blobs.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Bytes promised to writers.
    #[cfg(test)]
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Its blobs with their sizes, ordered by digest.
    pub(crate) fn blobs(&self) -> &BTreeMap<Digest, u64> {
        &self.blobs
    }

    /// What its file system has left, as last seen.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Notes what the file system has left now.
    pub(crate) fn see_free_bytes(&mut self, bytes: u64) {
        self.free_bytes = bytes.saturating_add(self.written);
    }

    /// Bytes that may still be reserved.
    pub(crate) fn room(&self) -> u64 {
        let free = self.free_bytes.saturating_sub(self.reserved);
        self.budget.map_or(free, |budget| free.min(budget.saturating_sub(self.used + self.reserved)))
    }

    /// Bytes over the budget.
    pub(crate) fn overrun(&self) -> u64 {
        self.budget.map_or(0, |budget| (self.used + self.reserved).saturating_sub(budget))
    }

    /// Seconds to read `bytes` from here.
    pub(crate) fn seconds(&self, bytes: u64) -> f64 {
        self.kind.first_byte_seconds() + bytes as f64 / self.bytes_per_second
    }
}

/// The books of all directories, and what is known about the blobs' use.
#[derive(Debug)]
pub(crate) struct Ledger {
    places: Vec<Place>,
    pub(crate) predictor: Box<dyn UsePredictor>,
    pins: HashMap<Digest, Residency>,
    held: HashSet<Digest>,
    /// The place with the recipes, and the blobs that they need there.
    main: PlaceId,
    bound: HashSet<Digest>,
    pub(crate) readers: Readers,
    /// Seconds until the first byte and bytes per second of the best origin.
    pub(crate) refetch: Refetch,
}

/// What fetching a blob again is taken to cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refetch {
    pub(crate) first_byte_seconds: f64,
    pub(crate) bytes_per_second: f64,
}

impl Default for Refetch {
    /// A tenth of a second and a gigabit, until an origin was measured.
    fn default() -> Self {
        Self { first_byte_seconds: 0.1, bytes_per_second: 1.25e8 }
    }
}

impl Ledger {
    pub(crate) fn new(places: Vec<Place>, main: PlaceId, predictor: Box<dyn UsePredictor>) -> Self {
        Self {
            places,
            predictor,
            pins: HashMap::new(),
            held: HashSet::new(),
            main,
            bound: HashSet::new(),
            readers: Readers::default(),
            refetch: Refetch::default(),
        }
    }

    pub(crate) fn place(&self, id: PlaceId) -> &Place {
        &self.places[id]
    }

    pub(crate) fn place_mut(&mut self, id: PlaceId) -> &mut Place {
        &mut self.places[id]
    }

    /// Every directory in the configuration's order.
    pub(crate) fn places(&self) -> impl Iterator<Item = (PlaceId, &Place)> {
        self.places.iter().enumerate()
    }

    /// Sets what a directory holds, as found there.
    pub(crate) fn take_stock(&mut self, id: PlaceId, blobs: impl IntoIterator<Item = (Digest, u64)>) {
        let place = &mut self.places[id];
        place.blobs = blobs.into_iter().collect();
        place.used = place.blobs.values().sum();
    }

    /// Notes a blob that is there now; false if it was known already.
    pub(crate) fn add(&mut self, id: PlaceId, digest: Digest, bytes: u64) -> bool {
        let place = &mut self.places[id];
        let is_new = place.blobs.insert(digest, bytes).is_none();
        place.used += if is_new { bytes } else { 0 };
        is_new
    }

    /// Strikes a blob off one directory; returns its bytes if it was there.
    pub(crate) fn remove(&mut self, id: PlaceId, digest: &Digest) -> Option<u64> {
        let place = &mut self.places[id];
        let bytes = place.blobs.remove(digest)?;
        place.used -= bytes;
        Some(bytes)
    }

    /// Where a blob is, by the books.
    pub(crate) fn places_of(&self, digest: &Digest) -> impl Iterator<Item = (PlaceId, &Place)> {
        self.places().filter(|(_, place)| place.blobs.contains_key(digest))
    }

    /// Promises `bytes` to a writer; false, and nothing changes, if there is no room.
    pub(crate) fn reserve(&mut self, id: PlaceId, bytes: u64) -> bool {
        let place = &mut self.places[id];
        let fits = bytes <= place.room();
        place.reserved += if fits { bytes } else { 0 };
        fits
    }

    /// Bytes that the file system of `id` lacks for a blob of `bytes` that its budget has room for; 0 if it has them, or
    /// may not be written.
    pub(crate) fn short_of_free_bytes(&self, id: PlaceId, bytes: u64) -> u64 {
        let place = &self.places[id];
        let within = place.budget.is_none_or(|budget| place.used + place.reserved + bytes <= budget);
        let short = (place.reserved + bytes).saturating_sub(place.free_bytes);
        if within && place.is_writable { short } else { 0 }
    }

    /// `now` bytes of a promise are written, where it were `before`: fewer if its writer began again.
    pub(crate) fn wrote(&mut self, id: PlaceId, before: u64, now: u64) {
        let place = &mut self.places[id];
        place.written = place.written.saturating_sub(before) + now;
    }

    /// Takes a promise back of which so many bytes were written, which stay on the disk.
    pub(crate) fn release(&mut self, id: PlaceId, bytes: u64, written: u64) {
        let place = &mut self.places[id];
        place.reserved = place.reserved.saturating_sub(bytes);
        place.written = place.written.saturating_sub(written);
        place.free_bytes = place.free_bytes.saturating_sub(written);
    }

    pub(crate) fn set_pins(&mut self, pins: HashMap<Digest, Residency>) {
        self.pins = pins;
    }

    pub(crate) fn pin(&self, digest: &Digest) -> Option<Residency> {
        self.pins.get(digest).copied()
    }

    pub(crate) fn pins(&self) -> impl Iterator<Item = (&Digest, Residency)> {
        self.pins.iter().map(|(digest, residency)| (digest, *residency))
    }

    pub(crate) fn set_held(&mut self, held: HashSet<Digest>) {
        self.held = held;
    }

    /// Keeps blobs in the main place.
    pub(crate) fn bind(&mut self, blobs: impl IntoIterator<Item = Digest>) {
        self.bound.extend(blobs);
    }

    /// Lets all go that were bound.
    pub(crate) fn unbind(&mut self) {
        self.bound.clear();
    }

    /// Whether a recipe needs the blob at `id`.
    pub(crate) fn is_bound(&self, digest: &Digest, id: PlaceId) -> bool {
        id == self.main && self.bound.contains(digest)
    }

    /// Whether somebody has it open, here or elsewhere.
    pub(crate) fn is_held(&self, digest: &Digest) -> bool {
        self.held.contains(digest) || self.readers.has_open(digest)
    }
}
