//! The decisions: where a new blob goes, what moves nearer when it is used, what leaves when room is short.
//!
//! The value of a blob at a place is `probability of use x seconds saved / bytes`, where the seconds saved are those
//! that the next best place which has it, or fetching it again, would take longer: the size-aware rule of GreedyDual-Size
//! (Cao & Irani, *Cost-Aware WWW Proxy Caching Algorithms*, USITS 1997) with measured costs. Blobs of least value leave
//! first; equal values leave in order of digest. All of it is arithmetic on the [`Ledger`]: the same books give the same
//! decisions.
//!
//! What never leaves: a blob in use or leased, a pinned blob at the place that its pin asks for, what a recipe is made
//! of, and the last durable copy of a blob that no origin can give again - that one may only move to another disk.

use helios_types::Digest;

use super::kind::{Residency, TierKind};
use super::ledger::{Ledger, Place, PlaceId};

/// One blob that leaves a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Departure {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    /// Of staying, in seconds per byte.
    pub(crate) value: f64,
    /// Where its only copy goes first; `None` if it can be read or fetched elsewhere.
    pub(crate) to: Option<PlaceId>,
}

/// Where a blob goes, and what has to leave there before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placement {
    pub(crate) place: PlaceId,
    pub(crate) departures: Vec<Departure>,
}

/// Whether an origin can give a blob again.
pub(crate) type CanFetch<'a> = &'a dyn Fn(&Digest) -> bool;

impl Ledger {
    /// Where `bytes` of a new blob go: the first durable directory with room, else the first that can make room.
    /// `None` is the bound: nothing may leave that is needed, and the writer is told.
    pub(crate) fn place_new(&self, bytes: u64, now_ms: u64, can_fetch: CanFetch<'_>) -> Option<Placement> {
        let after_departures = || {
            self.places_for_new().find_map(|(place, _)| {
                let departures = self.departures(place, bytes, None, now_ms, can_fetch)?;
                Some(Placement { place, departures })
            })
        };
        self.place_in_room(bytes).or_else(after_departures).or_else(|| self.last_resort(bytes))
    }

    /// The first durable directory with room as it is.
    pub(crate) fn place_in_room(&self, bytes: u64) -> Option<Placement> {
        let (place, _) = self.places_for_new().find(|(_, place)| place.room() >= bytes)?;
        Some(Placement { place, departures: Vec::new() })
    }

    fn places_for_new(&self) -> impl Iterator<Item = (PlaceId, &Place)> {
        self.places().filter(|(_, place)| place.kind.is_durable() && place.is_writable)
    }

    /// A disk that failed a moment ago: better asked again than the blob given up.
    fn last_resort(&self, bytes: u64) -> Option<Placement> {
        let mut failed = self
            .places()
            .filter(|(_, place)| place.kind.is_durable() && !place.is_writable && place.room() >= bytes);
        failed.next().map(|(place, _)| Placement { place, departures: Vec::new() })
    }

    /// The nearer place that a blob should be copied to now that it was used: the fastest where its value is positive
    /// and above that of everything which would have to leave. A pinned blob goes before all that are not.
    pub(crate) fn promotion(
        &self,
        digest: &Digest,
        now_ms: u64,
        can_fetch: CanFetch<'_>,
    ) -> Option<(PlaceId, Placement)> {
        let (from, bytes) = self.fastest_copy(digest)?;
        let mut nearer: Vec<PlaceId> = self.nearer_places(digest, bytes, from).collect();
        let seconds = |id: PlaceId| self.place(id).seconds(bytes);
        nearer.sort_by(|a, b| seconds(*a).total_cmp(&seconds(*b)).then(a.cmp(b)));
        nearer.into_iter().find_map(|to| {
            let gain = self.value(digest, bytes, to, now_ms, can_fetch);
            let limit = if self.wants(digest, self.place(to).kind) { f64::INFINITY } else { gain };
            let departures =
                (limit > 0.0).then(|| self.departures(to, bytes, Some(limit), now_ms, can_fetch));
            Some((from, Placement { place: to, departures: departures.flatten()? }))
        })
    }

    /// Places without the blob that a pin asks for, or that are of a faster kind and were measured to be faster: a kind
    /// alone is a belief, and between two measurements of one kind there is only noise.
    fn nearer_places(&self, digest: &Digest, bytes: u64, from: PlaceId) -> impl Iterator<Item = PlaceId> {
        let source = self.place(from);
        let without = self.places().filter(move |(id, place)| {
            *id != from && place.is_writable && !place.blobs().contains_key(digest)
        });
        let nearer = without.filter(move |(_, place)| {
            let is_faster = place.kind < source.kind && place.seconds(bytes) < source.seconds(bytes);
            is_faster || self.wants(digest, place.kind)
        });
        nearer.map(|(id, _)| id)
    }

    /// What leaves `place` so that `bytes` fit; `None` if what may leave is not enough.
    pub(crate) fn departures(
        &self,
        place: PlaceId,
        bytes: u64,
        limit: Option<f64>,
        now_ms: u64,
        can_fetch: CanFetch<'_>,
    ) -> Option<Vec<Departure>> {
        let books = self.place(place);
        if books.budget.is_some_and(|budget| bytes > budget) {
            return None;
        }
        let missing = books.overrun() + bytes.saturating_sub(books.room());
        let (departures, missing) = self.departing(place, missing, limit, now_ms, can_fetch);
        (missing == 0).then_some(departures)
    }

    /// What leaves `place` to free `missing` bytes, least value first and only what is worth less than `limit` if there
    /// is one; and the bytes that are still missing then. O(blobs of the place x log).
    pub(crate) fn departing(
        &self,
        place: PlaceId,
        mut missing: u64,
        limit: Option<f64>,
        now_ms: u64,
        can_fetch: CanFetch<'_>,
    ) -> (Vec<Departure>, u64) {
        let mut departures = Vec::new();
        if missing == 0 {
            return (departures, 0);
        }
        let mut rooms: Vec<u64> = self.places().map(|(_, place)| place.room()).collect();
        for mut departure in self.ranked(place, now_ms, can_fetch) {
            if missing == 0 || limit.is_some_and(|limit| departure.value >= limit) {
                break;
            }
            if !self.may_vanish(&departure.digest, place, can_fetch) {
                let Some(to) = self.refuge(&departure, place, &rooms) else { continue };
                rooms[to] -= departure.bytes;
                departure.to = Some(to);
            }
            missing = missing.saturating_sub(departure.bytes);
            departures.push(departure);
        }
        (departures, missing)
    }

    /// What may leave `place`, least value first.
    fn ranked(&self, place: PlaceId, now_ms: u64, can_fetch: CanFetch<'_>) -> Vec<Departure> {
        let blobs = self.place(place).blobs().iter();
        let free = blobs.filter(|(digest, _)| !self.stays(digest, place));
        let mut ranked: Vec<Departure> = free
            .map(|(digest, bytes)| {
                let value = self.value(digest, *bytes, place, now_ms, can_fetch);
                Departure { digest: *digest, bytes: *bytes, value, to: None }
            })
            .collect();
        ranked.sort_unstable_by(|a, b| a.value.total_cmp(&b.value).then(a.digest.cmp(&b.digest)));
        ranked
    }

    /// Seconds per byte that having a blob at `place` is expected to save.
    pub(crate) fn value(
        &self,
        digest: &Digest,
        bytes: u64,
        place: PlaceId,
        now_ms: u64,
        can_fetch: CanFetch<'_>,
    ) -> f64 {
        let elsewhere = self.places_of(digest).filter(|(id, other)| *id != place && other.is_readable);
        let next = elsewhere.map(|(_, other)| other.seconds(bytes)).min_by(f64::total_cmp);
        let here = self.place(place).seconds(bytes);
        // However slow the directory: a copy saves the time to the first byte, or no use of it would count.
        let again = can_fetch(digest).then(|| {
            let fetched = bytes as f64 / self.refetch.bytes_per_second;
            self.refetch.first_byte_seconds + fetched.max(here)
        });
        // The last copy of what nobody can give again moves to a slower disk: that is then the next best place.
        let slowest = || self.places().map(|(_, other)| other.seconds(bytes)).max_by(f64::total_cmp);
        let next = next.or(again).or_else(slowest).unwrap_or_default();
        let saved = next - here;
        self.predictor.probability(digest, now_ms) * saved / bytes.max(1) as f64
    }

    /// Whether a blob can be had without its copy at `place`: another durable copy can be read, or an origin has it.
    fn may_vanish(&self, digest: &Digest, place: PlaceId, can_fetch: CanFetch<'_>) -> bool {
        let is_safe =
            |(id, other): (PlaceId, &Place)| id != place && other.is_readable && other.kind.is_durable();
        self.places_of(digest).any(is_safe) || can_fetch(digest)
    }

    /// Whether a blob may leave `place` right now.
    pub(crate) fn may_leave(&self, digest: &Digest, place: PlaceId, can_fetch: CanFetch<'_>) -> bool {
        !self.stays(digest, place) && self.may_vanish(digest, place, can_fetch)
    }

    /// Whether a blob is wanted right where it is: in use, pinned, or part of a recipe.
    fn stays(&self, digest: &Digest, place: PlaceId) -> bool {
        self.is_held(digest) || self.is_pinned_at(digest, place) || self.is_bound(digest, place)
    }

    /// The fastest other disk that has room for an only copy.
    fn refuge(&self, departure: &Departure, from: PlaceId, rooms: &[u64]) -> Option<PlaceId> {
        let fitting = self.places().filter(|(id, place)| {
            *id != from && place.is_writable && place.kind.is_durable() && rooms[*id] >= departure.bytes
        });
        let fastest = fitting
            .min_by(|(_, a), (_, b)| a.seconds(departure.bytes).total_cmp(&b.seconds(departure.bytes)));
        fastest.map(|(id, _)| id)
    }

    /// The place that serves a blob fastest, and its bytes.
    pub(crate) fn fastest_copy(&self, digest: &Digest) -> Option<(PlaceId, u64)> {
        let copies = self.places_of(digest).filter(|(_, place)| place.is_readable);
        let copies = copies.filter_map(|(id, place)| Some((id, *place.blobs().get(digest)?, place)));
        let fastest =
            copies.min_by(|(_, bytes, a), (_, _, b)| a.seconds(*bytes).total_cmp(&b.seconds(*bytes)));
        fastest.map(|(id, bytes, _)| (id, bytes))
    }

    /// Whether a pin asks for a copy of the blob in a place of that kind, and none has one yet.
    fn wants(&self, digest: &Digest, kind: TierKind) -> bool {
        let is_asked = match self.pin(digest) {
            Some(Residency::Memory) => kind != TierKind::Ssd,
            Some(Residency::Disk) => kind == TierKind::Nvme,
            None => false,
        };
        is_asked && self.places_of(digest).all(|(_, place)| place.kind != kind)
    }

    /// Whether a pin keeps a blob at `place`: the fastest durable copy of a pinned blob stays, and the one in memory if
    /// the pin says so.
    pub(crate) fn is_pinned_at(&self, digest: &Digest, place: PlaceId) -> bool {
        let Some(residency) = self.pin(digest) else { return false };
        if !self.place(place).kind.is_durable() {
            return residency == Residency::Memory;
        }
        let durable =
            self.places_of(digest).filter(|(_, other)| other.kind.is_durable() && other.is_readable);
        let best = durable.min_by_key(|(id, other)| (other.kind, *id));
        best.is_none_or(|(id, _)| id == place)
    }
}
