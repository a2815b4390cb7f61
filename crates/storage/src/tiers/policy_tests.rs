//! The policy against its promises, over random histories: pure arithmetic, no file.

use std::collections::{HashMap, HashSet};

use helios_types::Digest;
use proptest::prelude::*;

use super::kind::{Residency, TierKind};
use super::ledger::{Ledger, Place, PlaceId};
use super::policy::{Departure, Placement};
use super::uses::DecayedUses;

const MEMORY: PlaceId = 0;
const NVME: PlaceId = 1;
const SSD: PlaceId = 2;
const BLOBS: u8 = 12;

fn digest(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

fn nobody(_: &Digest) -> bool {
    false
}

/// Every third blob can be fetched again.
fn some_origin(digest: &Digest) -> bool {
    digest.as_bytes()[0].is_multiple_of(3)
}

fn ledger(budgets: [u64; 3]) -> Ledger {
    let kinds = [TierKind::Memory, TierKind::Nvme, TierKind::Ssd];
    let places = kinds.into_iter().zip(budgets).map(|(kind, budget)| Place::new(kind, Some(budget)));
    Ledger::new(places.collect(), SSD, Box::new(DecayedUses::default()))
}

#[derive(Clone, Debug)]
enum Step {
    Add { blob: u8, bytes: u64 },
    Use { blob: u8 },
    Pin { blob: u8, memory: bool },
    Hold { blob: u8 },
    Release,
    Fail { place: PlaceId, fails: bool },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let blob = 1..=BLOBS;
    prop_oneof![
        4 => (blob.clone(), 1_u64..400).prop_map(|(blob, bytes)| Step::Add { blob, bytes }),
        8 => blob.clone().prop_map(|blob| Step::Use { blob }),
        1 => (blob.clone(), any::<bool>()).prop_map(|(blob, memory)| Step::Pin { blob, memory }),
        1 => blob.prop_map(|blob| Step::Hold { blob }),
        1 => Just(Step::Release),
        1 => (0_usize..3, any::<bool>()).prop_map(|(place, fails)| Step::Fail { place, fails }),
        2 => (1_u64..100_000_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// Carries decisions out on the books, as the directories would, and watches the promises.
struct World {
    ledger: Ledger,
    now_ms: u64,
    pins: HashMap<Digest, Residency>,
    held: HashSet<Digest>,
    /// Blobs that were acknowledged, and are owed.
    owed: HashMap<Digest, u64>,
    log: Vec<String>,
}

impl World {
    fn new(budgets: [u64; 3]) -> Self {
        Self {
            ledger: ledger(budgets),
            now_ms: 0,
            pins: HashMap::new(),
            held: HashSet::new(),
            owed: HashMap::new(),
            log: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Add { blob, bytes } => self.add(digest(blob), bytes),
            Step::Use { blob } => self.used(digest(blob)),
            Step::Pin { blob, memory } => {
                let residency = if memory { Residency::Memory } else { Residency::Disk };
                self.pins.insert(digest(blob), residency);
                self.ledger.set_pins(self.pins.clone());
            }
            Step::Hold { blob } => {
                self.held.insert(digest(blob));
                self.ledger.set_held(self.held.clone());
            }
            Step::Release => {
                self.held.clear();
                self.pins.clear();
                self.ledger.set_held(HashSet::new());
                self.ledger.set_pins(HashMap::new());
            }
            Step::Fail { place, fails } => {
                let place = self.ledger.place_mut(place);
                (place.is_readable, place.is_writable) = (!fails, !fails);
            }
            Step::Wait { ms } => self.now_ms += ms,
        }
        self.check();
    }

    fn add(&mut self, digest: Digest, bytes: u64) {
        if self.ledger.places_of(&digest).next().is_some() {
            return;
        }
        let Some(placement) = self.ledger.place_new(bytes, self.now_ms, &some_origin) else { return };
        assert!(self.ledger.place(placement.place).kind.is_durable(), "only durable places get new blobs");
        self.carry_out(&placement, digest, bytes);
        self.owed.insert(digest, bytes);
    }

    fn used(&mut self, digest: Digest) {
        self.ledger.predictor.used(digest, self.now_ms);
        let Some((from, placement)) = self.ledger.promotion(&digest, self.now_ms, &some_origin) else {
            return;
        };
        assert!(self.ledger.place(from).is_readable && self.ledger.place(placement.place).is_writable);
        let bytes = self.owed[&digest];
        if !self.pins.contains_key(&digest) {
            let gain = self.ledger.value(&digest, bytes, placement.place, self.now_ms, &some_origin);
            assert!(gain > 0.0 && placement.departures.iter().all(|departure| departure.value < gain));
        }
        self.carry_out(&placement, digest, bytes);
    }

    fn carry_out(&mut self, placement: &Placement, digest: Digest, bytes: u64) {
        self.log.push(format!("{digest} {placement:?}"));
        let values: Vec<f64> = placement.departures.iter().map(|departure| departure.value).collect();
        assert!(values.is_sorted(), "least value first: {values:?}");
        for departure in &placement.departures {
            self.depart(placement.place, departure);
        }
        assert!(self.ledger.reserve(placement.place, bytes), "the room that was promised");
        assert!(self.ledger.place(placement.place).reserved() >= bytes);
        self.ledger.release(placement.place, bytes, 0);
        self.ledger.add(placement.place, digest, bytes);
    }

    fn depart(&mut self, place: PlaceId, departure: &Departure) {
        let digest = &departure.digest;
        assert!(!self.held.contains(digest), "what is in use stays");
        assert!(!self.ledger.is_pinned_at(digest, place), "what is pinned stays");
        if let Some(to) = departure.to {
            assert!(self.ledger.reserve(to, departure.bytes), "a refuge has room");
            self.ledger.release(to, departure.bytes, 0);
            self.ledger.add(to, *digest, departure.bytes);
        }
        assert!(self.ledger.may_leave(digest, place, &some_origin));
        self.ledger.remove(place, digest);
    }

    fn check(&self) {
        for (_, place) in self.ledger.places() {
            assert!(place.used() + place.reserved() <= place.budget.unwrap_or(u64::MAX));
            assert_eq!(place.used(), place.blobs().values().sum::<u64>());
        }
        for digest in self.owed.keys().filter(|digest| !some_origin(digest)) {
            assert!(
                self.ledger.places_of(digest).any(|(_, place)| place.kind.is_durable()),
                "the last durable copy of {digest} left"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn budgets_pins_holds_and_last_copies_are_kept_and_value_is_the_order(
        budgets in [50_u64..600, 100..900, 200..2000],
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(budgets);
        steps.iter().for_each(|step| world.take(step));
    }

    #[test]
    fn the_same_history_gives_the_same_decisions(
        budgets in [50_u64..600, 100..900, 200..2000],
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let run = || {
            let mut world = World::new(budgets);
            steps.iter().for_each(|step| world.take(step));
            world.log
        };
        prop_assert_eq!(run(), run());
    }
}

fn add(ledger: &mut Ledger, place: PlaceId, number: u8, bytes: u64) {
    assert!(ledger.add(place, digest(number), bytes));
}

#[test]
fn a_large_blob_used_as_often_as_small_ones_is_worth_less_a_byte() {
    let mut ledger = ledger([1000, 1000, 1000]);
    for (number, bytes) in [(1, 900), (2, 50), (3, 50)] {
        add(&mut ledger, MEMORY, number, bytes);
        add(&mut ledger, SSD, number, bytes);
        ledger.predictor.used(digest(number), 0);
    }
    let value = |number, bytes| ledger.value(&digest(number), bytes, MEMORY, 0, &nobody);
    assert!(value(2, 50) > value(1, 900));
    let (departures, missing) = ledger.departing(MEMORY, 10, None, 0, &nobody);
    assert_eq!((departures[0].digest, departures.len(), missing), (digest(1), 1, 0));
}

#[test]
fn seconds_saved_come_from_the_next_place_that_has_it() {
    let mut ledger = ledger([1000, 1000, 1000]);
    add(&mut ledger, MEMORY, 1, 100);
    add(&mut ledger, SSD, 1, 100);
    ledger.predictor.used(digest(1), 0);
    let from_ssd = ledger.value(&digest(1), 100, MEMORY, 0, &nobody);
    add(&mut ledger, NVME, 1, 100);
    let from_nvme = ledger.value(&digest(1), 100, MEMORY, 0, &nobody);
    assert!(from_ssd > from_nvme && from_nvme > 0.0);
    // A disk that measures faster than memory makes the copy there worthless.
    ledger.place_mut(NVME).bytes_per_second = 1e12;
    ledger.place_mut(MEMORY).bytes_per_second = 1e3;
    assert!(ledger.value(&digest(1), 100, MEMORY, 0, &nobody) < 0.0);
}

#[test]
fn the_last_copy_moves_to_another_disk_or_stays() {
    let mut ledger = ledger([1000, 100, 50]);
    add(&mut ledger, NVME, 1, 100);
    assert_eq!(ledger.place_new(60, 0, &nobody), None, "the slower disk has no room for it");
    let placement = ledger.place_new(60, 0, &|_| true).expect("it can be fetched again");
    assert_eq!((placement.place, placement.departures[0].to), (NVME, None));
    ledger.place_mut(SSD).budget = Some(100);
    ledger.place_mut(SSD).see_free_bytes(100);
    add(&mut ledger, SSD, 2, 30);
    assert_eq!(ledger.place_new(80, 0, &nobody), None);
    ledger.remove(SSD, &digest(2));
    let placement = ledger.place_new(100, 0, &nobody).expect("the slower disk first");
    assert_eq!(placement, Placement { place: SSD, departures: Vec::new() });
}

#[test]
fn pins_bring_blobs_where_they_belong_and_push_others_out() {
    let mut ledger = ledger([100, 100, 1000]);
    for number in [1, 2] {
        add(&mut ledger, SSD, number, 100);
        ledger.predictor.used(digest(number), 0);
    }
    add(&mut ledger, MEMORY, 2, 100);
    ledger.set_pins(HashMap::from([(digest(1), Residency::Memory)]));
    let (from, placement) = ledger.promotion(&digest(1), 0, &nobody).expect("to memory");
    assert_eq!((from, placement.place, placement.departures[0].digest), (SSD, MEMORY, digest(2)));
    ledger.remove(MEMORY, &digest(2));
    add(&mut ledger, MEMORY, 1, 100);
    let (_, placement) = ledger.promotion(&digest(1), 0, &nobody).expect("to the faster disk, too");
    assert_eq!(placement.place, NVME);
    add(&mut ledger, NVME, 1, 100);
    assert_eq!(ledger.promotion(&digest(1), 0, &nobody), None);
    assert!(ledger.is_pinned_at(&digest(1), MEMORY) && ledger.is_pinned_at(&digest(1), NVME));
    assert!(!ledger.is_pinned_at(&digest(1), SSD));
    assert_eq!(ledger.promotion(&digest(2), 0, &nobody), None, "nothing may leave for it");
}
