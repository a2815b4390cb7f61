//! What a look at the store makes of the history: how likely each model is, what left, what is to be fetched.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use helios_prefetch::{ModelCost, ModelIndex, Tier, View};
use helios_storage::tiers::TierRoom;
use helios_types::{Digest, ModelRef};

use super::history::seconds;
use super::{Demand, State, cost};
use crate::metrics;
use crate::warm::{Files, Pin, WarmLevel};

/// Milliseconds before a model whose fetch failed is tried again; doubles with each failure.
const RETRY_MS_MIN: u64 = 60_000;
const RETRY_MS_MAX: u64 = 6 * HOUR_MS;
const HOUR_MS: u64 = 3_600_000;
const DAY_HOURS: f64 = 24.0;

/// A model as a look found it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) model: ModelRef,
    pub(crate) digest: Digest,
    pub(crate) files: Arc<Files>,
    pub(crate) missing_bytes: u64,
    pub(crate) level: Option<WarmLevel>,
    /// Whether a worker has it.
    pub(crate) is_leased: bool,
    /// Whether it could be fetched again, and so may leave.
    pub(crate) may_leave: bool,
}

impl Seen {
    fn bytes(&self) -> u64 {
        self.files.blobs().map(|blob| blob.size).sum()
    }
}

/// A look at the store.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) now_ms: u64,
    pub(crate) room: TierRoom,
    pub(crate) seen: Vec<Seen>,
}

/// What is known of a model since the last look.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) digest: Digest,
    files: Arc<Files>,
    pub(crate) bytes: u64,
    pub(crate) missing_bytes: u64,
    pub(crate) level: Option<WarmLevel>,
    /// Since when it has been at that level.
    pub(crate) since: u64,
    /// When it left, and how likely its use within the hour was then.
    pub(crate) evicted: Option<(u64, f64)>,
    is_leased: bool,
    may_leave: bool,
}

/// What is expected of a model that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance {
    /// That it is among the next requests.
    pub(crate) probability: f64,
    pub(crate) probability_of_hour: f64,
    pub(crate) view: Option<View>,
    pub(crate) busy_minutes_of_day: u32,
    /// Whether it is likely enough to be fetched ahead.
    pub(crate) is_likely: bool,
}

/// All about a model.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) model: ModelRef,
    pub(crate) pin: Option<Pin>,
    pub(crate) known: Option<Known>,
    pub(crate) chance: Option<Chance>,
    pub(crate) problem: Option<String>,
}

/// Why a model could not be fetched.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    at_ms: u64,
    times: u32,
    problem: String,
}

impl Failure {
    fn is_over(&self, now_ms: u64) -> bool {
        let wait = RETRY_MS_MIN.saturating_mul(1 << (self.times - 1).min(20)).min(RETRY_MS_MAX);
        now_ms.saturating_sub(self.at_ms) >= wait
    }
}

/// Why a model is fetched ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Pinned,
    Predicted,
}

/// A model to be fetched ahead.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) model: ModelRef,
    pub(crate) digest: Digest,
    pub(crate) why: Why,
}

impl Demand {
    /// The models to look at: those of the history and those pinned, each once.
    pub(crate) fn names(&self, now_ms: u64) -> Vec<ModelRef> {
        let mut state = self.state();
        state.thin(now_ms);
        let state = &*state;
        let pinned = state.pins.keys().filter(|model| state.history.number(model).is_none());
        state.history.models().iter().chain(pinned).cloned().collect()
    }

    /// The files of a version that the last look saw. O(models).
    pub(crate) fn files_of(&self, digest: &Digest) -> Option<Arc<Files>> {
        let state = self.state();
        let known = state.known.values().find(|known| known.digest == *digest)?;
        Some(Arc::clone(&known.files))
    }

    /// Takes in what a look found, and grants `bytes_per_hour`.
    pub(crate) fn take_in(&self, look: Look, bytes_per_hour: u64) {
        let mut state = self.state();
        let of_hour = state.probabilities_of_hour(look.now_ms);
        let mut odds: HashMap<Digest, f64> = HashMap::new();
        for seen in &look.seen {
            let Some(number) = state.history.number(&seen.model) else { continue };
            for blob in seen.files.blobs() {
                let likeliest = odds.entry(blob.digest).or_default();
                *likeliest = likeliest.max(of_hour[number]);
            }
        }
        self.odds.replace(odds);
        state.compare(&look, &of_hour);
        state.count_costs(look.room, &of_hour);
        state.grant(look.now_ms, bytes_per_hour);
        metrics::prefetch_allowance(state.policy.gate().allowance_bytes());
    }

    /// The next model to be fetched ahead; what the operator wants comes first.
    pub(crate) fn next_order(&self, room: TierRoom) -> Option<Order> {
        let now_ms = self.now_ms();
        let mut state = self.state();
        let pinned = state.pinned_order(now_ms).map(|model| (model, Why::Pinned));
        let (model, why) = pinned.or_else(|| Some((state.predicted_order(now_ms, room)?, Why::Predicted)))?;
        let known = state.known.get(&model)?;
        let order = Order { digest: known.digest, model: model.clone(), why };
        let missing_bytes = known.missing_bytes;
        state.fetching.insert(model, missing_bytes);
        metrics::prefetch_issued(why == Why::Pinned);
        Some(order)
    }

    /// What became of an order: the bytes that are missing still, and why.
    pub(crate) fn fetched(&self, order: &Order, missing_bytes: u64, problem: Option<String>) {
        let now_ms = self.now_ms();
        let mut state = self.state();
        let ordered = state.fetching.remove(&order.model).unwrap_or_default();
        metrics::prefetched(ordered.saturating_sub(missing_bytes), problem.is_some());
        if missing_bytes > 0
            && let Some(number) = state.history.number(&order.model)
        {
            state.policy.abandoned(number, missing_bytes);
        }
        match problem {
            Some(problem) => {
                let times = state.failures.get(&order.model).map_or(1, |failure| failure.times + 1);
                state.failures.insert(order.model.clone(), Failure { at_ms: now_ms, times, problem });
            }
            None => drop(state.failures.remove(&order.model)),
        }
        // A version that has several names came for all of them.
        for known in state.known.values_mut().filter(|known| known.digest == order.digest) {
            known.missing_bytes = missing_bytes;
            if missing_bytes == 0 {
                (known.level, known.since, known.evicted) = (Some(WarmLevel::Disk), now_ms, None);
            }
        }
        state.is_dirty = true;
    }

    /// Nothing is being fetched any more: what was, is not paid for.
    pub(crate) fn give_up(&self) {
        let mut state = self.state();
        let state = &mut *state;
        for (model, missing_bytes) in state.fetching.drain() {
            if let Some(number) = state.history.number(&model) {
                state.policy.abandoned(number, missing_bytes);
            }
        }
    }

    /// All about the models of the history and those pinned.
    pub(crate) fn expected(&self, now_ms: u64) -> Vec<Expected> {
        let state = self.state();
        let chances = state.chances(now_ms);
        let asked = state.history.models().iter().zip(chances).map(|(model, chance)| (model, Some(chance)));
        let others = state.pins.keys().filter(|model| state.history.number(model).is_none());
        let all = asked.chain(others.map(|model| (model, None)));
        let expected = all.map(|(model, chance)| Expected {
            model: model.clone(),
            pin: state.pins.get(model).copied(),
            known: state.known.get(model).cloned(),
            chance,
            problem: state.failures.get(model).map(|failure| failure.problem.clone()),
        });
        expected.collect()
    }
}

impl State {
    pub(super) fn bytes_of(&self, model: &ModelRef) -> u64 {
        self.known.get(model).map_or(0, |known| known.bytes)
    }

    /// Uses an hour of all models in the last day, or since the history began if that is less.
    fn requests_per_hour(&self, counts: &[u32], now_ms: u64) -> f64 {
        let began = self.history.events().next().map_or(now_ms, |first| first.at_ms);
        let hours = (now_ms.saturating_sub(began) as f64 / HOUR_MS as f64).clamp(1.0, DAY_HOURS);
        f64::from(counts.iter().sum::<u32>()) / hours
    }

    /// Probability of each model of the history that it is asked for within the hour. O(models + events of a day).
    fn probabilities_of_hour(&self, now_ms: u64) -> Vec<f64> {
        let counts = self.history.requests_of_a_day(now_ms);
        let requests = self.requests_per_hour(&counts, now_ms).max(1.0);
        let shares = self.policy.predictor().shares(seconds(now_ms), counts.len());
        shares.into_iter().map(|share| 1.0 - (1.0 - share).powf(requests)).collect()
    }

    fn chances(&self, now_ms: u64) -> Vec<Chance> {
        let counts = self.history.requests_of_a_day(now_ms);
        let (at, models) = (seconds(now_ms), counts.len());
        let shares = self.policy.predictor().shares(at, models);
        let views = self.policy.predictor().views(at, models);
        let of_hour = self.probabilities_of_hour(now_ms);
        let chance = |number: ModelIndex| {
            let probability = self.policy.probability(shares[number]);
            Chance {
                probability,
                probability_of_hour: of_hour[number],
                view: views[number],
                busy_minutes_of_day: counts[number],
                is_likely: probability >= self.policy.options().probability_min,
            }
        };
        (0..models).map(chance).collect()
    }

    /// Notes what came and what left since the last look.
    fn compare(&mut self, look: &Look, of_hour: &[f64]) {
        let arrived = std::mem::take(&mut self.arrived);
        let fetching: HashSet<Digest> = self.versions_being_fetched().collect();
        let mut before = std::mem::take(&mut self.known);
        let mut counted = HashSet::new();
        for seen in &look.seen {
            let is_fetched_ahead = fetching.contains(&seen.digest) || self.fetching.contains_key(&seen.model);
            let old = before.remove(&seen.model).filter(|old| old.digest == seen.digest);
            let was_missing = match &old {
                Some(old) => old.missing_bytes,
                None if arrived.contains(&seen.model) => seen.bytes(),
                None => 0,
            };
            if was_missing > 0 && seen.missing_bytes == 0 && !is_fetched_ahead && counted.insert(seen.digest)
            {
                self.policy.demanded(was_missing);
            }
            let left = old.as_ref().is_some_and(|old| old.missing_bytes == 0) && seen.missing_bytes > 0;
            let number = self.history.number(&seen.model);
            let likely = number.map_or(0.0, |number| of_hour[number]);
            let evicted = old.as_ref().and_then(|old| old.evicted).filter(|_| seen.missing_bytes > 0);
            let known = Known {
                digest: seen.digest,
                bytes: seen.bytes(),
                files: Arc::clone(&seen.files),
                missing_bytes: seen.missing_bytes,
                level: seen.level,
                since: old.filter(|old| old.level == seen.level).map_or(look.now_ms, |old| old.since),
                evicted: if left { Some((look.now_ms, likely)) } else { evicted },
                is_leased: seen.is_leased,
                may_leave: seen.may_leave,
            };
            self.known.insert(seen.model.clone(), known);
        }
        self.note_waste();
    }

    /// Prefetched models that are not here any more were fetched in vain.
    fn note_waste(&mut self) {
        let models = self.history.models();
        let is_here = |model: &ModelRef| self.known.get(model).is_some_and(|known| known.missing_bytes == 0);
        let unused = self.policy.unused().map(|(number, _)| number);
        let gone: Vec<ModelIndex> = unused
            .filter(|number| {
                models.get(*number).is_none_or(|model| !is_here(model) && !self.fetching.contains_key(model))
            })
            .collect();
        for number in gone {
            if self.policy.evicted(number).is_some() {
                metrics::prefetch_wasted();
            }
        }
    }

    /// What is missing of a model is what it costs to have it; what is here, what it frees. A blob that several models
    /// here have is freed with the last of them: it counts for one that stays, else for the likeliest.
    fn count_costs(&mut self, room: TierRoom, of_hour: &[f64]) {
        let models = self.history.models();
        let stays = |model| self.known.get(model).is_some_and(|known| self.stays(model, known));
        let mut order: Vec<ModelIndex> = (0..models.len()).collect();
        order.sort_by(|a, b| {
            let rank = |number: ModelIndex| (!stays(&models[number]), -of_hour[number]);
            let (a, b) = (rank(*a), rank(*b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let mut counted = HashSet::new();
        let mut costs = vec![ModelCost::default(); models.len()];
        for number in order {
            let Some(known) = self.known.get(&models[number]) else { continue };
            let freed =
                known.files.blobs().filter(|blob| known.missing_bytes == 0 && counted.insert(blob.digest));
            let freed: u64 = freed.map(|blob| blob.size).sum();
            costs[number] = cost(if known.missing_bytes > 0 { known.missing_bytes } else { freed });
        }
        self.policy.set_costs(costs, room.budget_bytes);
    }

    /// Whether a model neither leaves nor makes room.
    fn stays(&self, model: &ModelRef, known: &Known) -> bool {
        known.is_leased || !known.may_leave || self.pins.contains_key(model)
    }

    /// Grants what the time since the last grant is worth, an hour's at most; a start alone is worth nothing.
    fn grant(&mut self, now_ms: u64, bytes_per_hour: u64) {
        let before = self.granted_at_ms.replace(now_ms).unwrap_or(now_ms);
        let since = now_ms.saturating_sub(before).min(HOUR_MS);
        let bytes = u128::from(bytes_per_hour) * u128::from(since) / u128::from(HOUR_MS);
        self.policy.grant(u64::try_from(bytes).unwrap_or(u64::MAX), bytes_per_hour);
    }

    fn may_fetch(&self, model: &ModelRef, now_ms: u64) -> bool {
        let known = self.known.get(model);
        known.is_some_and(|known| {
            known.missing_bytes > 0 && !self.versions_being_fetched().any(|digest| digest == known.digest)
        }) && !self.fetching.contains_key(model)
            && self.failures.get(model).is_none_or(|failure| failure.is_over(now_ms))
    }

    /// The versions that are being fetched, each of which may have more names than the one it is fetched for.
    fn versions_being_fetched(&self) -> impl Iterator<Item = Digest> {
        self.fetching.keys().filter_map(|model| self.known.get(model)).map(|known| known.digest)
    }

    fn pinned_order(&self, now_ms: u64) -> Option<ModelRef> {
        self.pins.keys().find(|model| self.may_fetch(model, now_ms)).cloned()
    }

    fn predicted_order(&mut self, now_ms: u64, room: TierRoom) -> Option<ModelRef> {
        let (mut here, mut fixed) = (Vec::new(), Vec::new());
        for (number, model) in self.history.models().iter().enumerate() {
            match self.known.get(model) {
                Some(known) if known.missing_bytes == 0 && !self.stays(model, known) => here.push(number),
                Some(_) if self.may_fetch(model, now_ms) => {}
                _ => fixed.push(number),
            }
        }
        let coming: u64 = self.fetching.values().sum();
        let free = room.free_bytes.saturating_sub(coming);
        let tier = Tier { at: seconds(now_ms), here: &here, fixed: &fixed, free };
        let number = self.policy.prefetch(&tier)?;
        self.history.models().get(number).cloned()
    }
}
