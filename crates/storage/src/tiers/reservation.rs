//! Room promised to one writer.

use std::sync::Arc;

use helios_types::Digest;

use super::Tiers;
use super::ledger::PlaceId;

/// Bytes reserved in a directory; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    tiers: Arc<Tiers>,
    place: PlaceId,
    bytes: u64,
    /// Bytes that are on the disk already.
    written: u64,
}

impl Reservation {
    /// Reserves `bytes`, if there is room.
    pub(crate) fn new(tiers: &Arc<Tiers>, place: PlaceId, bytes: u64) -> Option<Self> {
        let fits = tiers.ledger().reserve(place, bytes);
        fits.then(|| Self { tiers: Arc::clone(tiers), place, bytes, written: 0 })
    }

    pub(crate) fn tiers(&self) -> &Arc<Tiers> {
        &self.tiers
    }

    pub(crate) fn place(&self) -> PlaceId {
        self.place
    }

    /// Makes it at least `bytes`, and room for that if need be; false, and nothing changes, if there is none.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let reserve = || self.tiers.ledger().reserve(self.place, more);
        let fits = more == 0 || reserve() || (self.tiers.make_room(self.place, more) && reserve());
        self.bytes += if fits { more } else { 0 };
        fits
    }

    /// `bytes` of it, in all, are on the disk now.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.written, bytes);
        self.tiers.ledger().wrote(self.place, before, bytes);
    }

    /// The blob is there: what was promised becomes what is used.
    pub(crate) fn settle(mut self, digest: Digest, bytes: u64) {
        let mut ledger = self.tiers.ledger();
        ledger.release(self.place, std::mem::take(&mut self.bytes), std::mem::take(&mut self.written));
        ledger.add(self.place, digest, bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.tiers.ledger().release(self.place, self.bytes, self.written);
        }
    }
}
