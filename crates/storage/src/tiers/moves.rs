//! Blobs on the way between directories: promotions, and departures that make room.
//!
//! One blob moves at a time, through one buffer of [`COPY_BYTES`]: that bounds what is in flight. The copy is committed
//! under its SHA-256, so that what arrives is what left.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helios_runtime::Clock;
use helios_types::Digest;

use super::events;
pub(crate) use super::events::Moved;
use super::ledger::PlaceId;
use super::policy::{Departure, Placement};
use super::reservation::Reservation;
use super::{Tiers, now_ms};
use crate::StorageError;
use crate::disk::OpenMode;

/// Bytes in flight between two directories.
const COPY_BYTES: usize = 1 << 20;

/// Blobs that wait to come nearer; beyond, a use is not enough to join them, the next one will do.
const WAITING_MAX: usize = 1024;

/// The blobs that wait to come nearer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<Digest>,
    known: HashSet<Digest>,
    /// Whether pins changed since they were last looked at.
    review: bool,
}

impl Queue {
    /// Adds a blob, unless it waits already or too many do.
    pub(crate) fn push(&self, digest: Digest) {
        let mut waiting = self.waiting();
        if waiting.order.len() < WAITING_MAX && waiting.known.insert(digest) {
            waiting.order.push_back(digest);
            self.changed.notify_one();
        }
    }

    /// Asks for a look at all pins.
    pub(crate) fn review(&self) {
        self.waiting().review = true;
        self.changed.notify_one();
    }

    fn pop(&self) -> Option<Digest> {
        let mut waiting = self.waiting();
        let digest = waiting.order.pop_front()?;
        waiting.known.remove(&digest);
        Some(digest)
    }

    fn take_review(&self) -> bool {
        std::mem::take(&mut self.waiting().review)
    }

    /// Waits until there is something to do, at most `longest`.
    pub(crate) fn wait(&self, longest: Duration) {
        let waiting = self.waiting();
        let is_idle =
            |waiting: &mut Waiting| waiting.order.is_empty() && !waiting.review && !self.is_stopping();
        drop(self.changed.wait_timeout_while(waiting, longest, is_idle));
    }

    /// Ends the wait and the copy under way.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _waiting = self.waiting();
        self.changed.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tiers {
    /// Brings blobs nearer until none waits. Blocks: O(bytes moved). [`Mover`](super::Mover) does so in the background.
    pub fn settle(self: &Arc<Self>) {
        while !self.queue.is_stopping() {
            if self.queue.take_review() {
                self.queue_pinned();
            }
            let Some(digest) = self.queue.pop() else { return };
            // A pinned blob may have to go to two places: memory, and a faster disk.
            while !self.queue.is_stopping() && self.promote(&digest) {}
        }
    }

    /// Queues pinned blobs that are not where their pins want them.
    fn queue_pinned(&self) {
        let keeper = self.keeper();
        let wanted: Vec<Digest> = {
            let ledger = self.ledger();
            let mut pinned: Vec<Digest> = ledger.pins().map(|(digest, _)| *digest).collect();
            pinned.sort_unstable();
            pinned.retain(|digest| {
                ledger.promotion(digest, now_ms(), &|digest| keeper.can_fetch(digest)).is_some()
            });
            pinned
        };
        wanted.into_iter().for_each(|digest| self.queue.push(digest));
    }

    /// Copies a blob nearer if that is still worth it. Returns whether it did.
    fn promote(self: &Arc<Self>, digest: &Digest) -> bool {
        self.ask_what_is_held();
        let keeper = self.keeper();
        let decision = {
            let ledger = self.ledger();
            let promotion = ledger.promotion(digest, now_ms(), &|digest| keeper.can_fetch(digest));
            promotion.zip(ledger.fastest_copy(digest).map(|(_, bytes)| bytes))
        };
        let Some(((from, placement), bytes)) = decision else { return false };
        self.make_way(&placement);
        let Some(reservation) = Reservation::new(self, placement.place, bytes) else { return false };
        self.copied(digest, from, reservation, Moved::Promoted)
    }

    /// Lets leave `place` what is in the way of `bytes`, derived blobs first; false, and nothing leaves, if what may is not enough.
    pub(crate) fn make_room(self: &Arc<Self>, place: PlaceId, bytes: u64) -> bool {
        if place == self.main && self.gave_up_derived_for(bytes) && self.ledger().place(place).room() >= bytes
        {
            return true;
        }
        self.ask_what_is_held();
        let keeper = self.keeper();
        let departures =
            self.ledger().departures(place, bytes, None, now_ms(), &|digest| keeper.can_fetch(digest));
        let Some(departures) = departures else { return false };
        self.make_way(&Placement { place, departures });
        true
    }

    /// Lets leave what has to; what cannot leave after all is seen by whoever then reserves the room.
    pub(crate) fn make_way(self: &Arc<Self>, placement: &Placement) {
        for departure in &placement.departures {
            self.depart(placement.place, departure);
        }
    }

    /// Takes a directory that is over its budget back to it, as far as blobs may leave.
    pub(crate) fn trim(self: &Arc<Self>, id: PlaceId) {
        if self.ledger().place(id).overrun() == 0 {
            return;
        }
        self.ask_what_is_held();
        let keeper = self.keeper();
        let departures = {
            let ledger = self.ledger();
            let over = ledger.place(id).overrun();
            ledger.departing(id, over, None, now_ms(), &|digest| keeper.can_fetch(digest)).0
        };
        self.make_way(&Placement { place: id, departures });
    }

    /// Lets one blob leave `place`, unless it is needed there by now.
    fn depart(self: &Arc<Self>, place: PlaceId, departure: &Departure) {
        let digest = &departure.digest;
        if let Some(to) = departure.to {
            let Some(reservation) = Reservation::new(self, to, departure.bytes) else { return };
            if !self.copied(digest, place, reservation, Moved::Demoted) {
                return;
            }
        }
        let _alone = self.departing.lock().unwrap_or_else(PoisonError::into_inner);
        self.ask_what_is_held();
        let keeper = self.keeper();
        let may_leave = self.ledger().may_leave(digest, place, &|digest| keeper.can_fetch(digest));
        if !may_leave {
            return;
        }
        // Before the file goes: who looked for it elsewhere before it was copied there, and here after, looks again.
        self.departures.fetch_add(1, Ordering::SeqCst);
        if self.attempt(place, |store| store.remove(digest)).is_err() {
            return;
        }
        self.ledger().remove(place, digest);
        events::moved(Moved::Evicted, self.directories[place].dir(), digest, departure.bytes);
    }

    /// Copies a blob into reserved room. Returns whether it is there now.
    pub(crate) fn copied(
        self: &Arc<Self>,
        digest: &Digest,
        from: PlaceId,
        reservation: Reservation,
        how: Moved,
    ) -> bool {
        let to = reservation.place();
        match self.copy(digest, from, to) {
            Ok(Some(bytes)) => {
                // Garbage collection may have deleted it everywhere else meanwhile.
                let is_wanted = self.ledger().places_of(digest).next().is_some();
                if is_wanted {
                    reservation.settle(*digest, bytes);
                    events::moved(how, self.directories[to].dir(), digest, bytes);
                } else {
                    let _gone = self.attempt(to, |store| store.remove(digest));
                }
                is_wanted
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%digest, to = %self.directories[to].dir().display(), %error, "a blob could not be copied");
                false
            }
        }
    }

    /// Copies and verifies; `None` if it was told to stop. What was copied stays for the next attempt.
    fn copy(&self, digest: &Digest, from: PlaceId, to: PlaceId) -> Result<Option<u64>, StorageError> {
        let source = self.attempt(from, |store| Ok(store.path(digest)))?;
        let reading = |error| {
            let error = StorageError::io("read", &source, error);
            self.note_failure(from, &error);
            error
        };
        let file = self.files.disk().open(&source, OpenMode::Read).map_err(reading)?;
        let mut writer = self.attempt(to, |store| store.writer(&format!("move-{}", digest.hex())))?;
        let mut buffer = vec![0; COPY_BYTES];
        let (mut reads, mut writes, begun) = (Duration::ZERO, Duration::ZERO, writer.len());
        while !self.queue.is_stopping() {
            let began = Clock.now();
            let length = file.read_at(&mut buffer, writer.len()).map_err(reading)?;
            reads += began.elapsed();
            let began = Clock.now();
            if length == 0 {
                let info = self.attempt(to, |_| writer.commit(Some(*digest)))?;
                self.directories[from].record_read(info.size - begun, reads);
                self.directories[to].record_write(info.size - begun, writes + began.elapsed());
                return Ok(Some(info.size));
            }
            self.attempt(to, |_| writer.write(&buffer[..length]))?;
            writes += began.elapsed();
        }
        Ok(None)
    }
}
