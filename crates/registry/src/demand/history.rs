//! What was asked for and deployed, and when: bounded in models, events and age.
//!
//! Uses of a model within [`SAME_USE_MS`] are one event: a busy model says nothing new with each request. Where even
//! those are too many, what is older than a day is thinned to one event a model and quarter of an hour, which is what the
//! views of the predictor tell apart.

use std::collections::{HashMap, HashSet, VecDeque};

use helios_prefetch::{Event, EventKind, ModelIndex};
use helios_types::ModelRef;

/// Milliseconds in which uses of one model are one event.
const SAME_USE_MS: u64 = 60_000;
/// Events remembered; about 24 bytes each in memory, 16 in the file.
pub(crate) const EVENTS_MAX: usize = 1 << 17;
/// Models remembered: what the predictor does for one event grows with them.
pub(crate) const MODELS_MAX: usize = 1024;
/// Milliseconds after which events are forgotten: the views look back a week at most.
const AGE_MS_MAX: u64 = 60 * DAY_MS;
const DAY_MS: u64 = 24 * 3600 * 1000;
const QUARTER_MS: u64 = 15 * 60 * 1000;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) model: ModelIndex,
    pub(crate) kind: EventKind,
}

impl Entry {
    /// As the predictor takes it.
    pub(crate) fn event(&self) -> Event {
        Event { at: seconds(self.at_ms), model: self.model, kind: self.kind }
    }
}

/// A time as the predictor counts it.
pub(crate) fn seconds(at_ms: u64) -> f64 {
    at_ms as f64 / 1e3
}

/// Events in order of time, and the models that they name.
#[derive(Debug, Default)]
pub(crate) struct History {
    models: Vec<ModelRef>,
    index: HashMap<ModelRef, ModelIndex>,
    /// When each model's last event of each kind was.
    last: HashMap<(ModelIndex, EventKind), u64>,
    events: VecDeque<Entry>,
}

impl History {
    /// A history of such models and events, in order of time.
    pub(crate) fn new(models: Vec<ModelRef>, events: impl IntoIterator<Item = Entry>) -> Self {
        let index = models.iter().enumerate().map(|(index, model)| (model.clone(), index)).collect();
        let mut history = Self { models, index, ..Self::default() };
        events.into_iter().for_each(|entry| history.push(entry));
        history
    }

    /// Notes that something happened. `None` if that says nothing new, or there is no room for another model before the
    /// next [`thin`](Self::thin). O(1).
    pub(crate) fn note(&mut self, model: &ModelRef, kind: EventKind, at_ms: u64) -> Option<Entry> {
        let at_ms = self.events.back().map_or(at_ms, |last| last.at_ms.max(at_ms));
        let model = match self.index.get(model) {
            Some(known) => *known,
            None if self.models.len() >= MODELS_MAX => return None,
            None => {
                self.models.push(model.clone());
                self.index.insert(model.clone(), self.models.len() - 1);
                self.models.len() - 1
            }
        };
        if self.last.get(&(model, kind)).is_some_and(|last| at_ms - last < SAME_USE_MS) {
            return None;
        }
        let entry = Entry { at_ms, model, kind };
        self.push(entry);
        Some(entry)
    }

    fn push(&mut self, entry: Entry) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.last.insert((entry.model, entry.kind), entry.at_ms);
        self.events.push_back(entry);
    }

    /// Forgets what is too old, too much or in the future of a clock that was wrong, and models without events. Returns
    /// whether the models have other numbers now. O(events).
    pub(crate) fn thin(&mut self, now_ms: u64) -> bool {
        let is_past = |entry: &Entry| entry.at_ms <= now_ms && now_ms - entry.at_ms < AGE_MS_MAX;
        self.events.retain(is_past);
        const EVENTS_ENOUGH: usize = EVENTS_MAX / 4 * 3;
        if self.events.len() > EVENTS_ENOUGH {
            let mut seen = HashSet::new();
            let is_new = |entry: &Entry| now_ms - entry.at_ms < DAY_MS;
            self.events.retain(|entry| {
                is_new(entry) || seen.insert((entry.model, entry.kind, entry.at_ms / QUARTER_MS))
            });
        }
        if self.events.len() > EVENTS_ENOUGH {
            self.events.drain(..self.events.len() - EVENTS_ENOUGH);
        }
        if self.models.len() >= MODELS_MAX {
            self.forget_models(MODELS_MAX / 4);
        }
        let named: HashSet<ModelIndex> = self.events.iter().map(|entry| entry.model).collect();
        if named.len() == self.models.len() {
            return false;
        }
        self.renumber(&named);
        true
    }

    /// Forgets the models whose last event is the longest ago.
    fn forget_models(&mut self, count: usize) {
        let mut last = vec![0; self.models.len()];
        self.events.iter().for_each(|entry| last[entry.model] = entry.at_ms);
        let mut order: Vec<ModelIndex> = (0..last.len()).collect();
        order.sort_by_key(|model| last[*model]);
        let gone: HashSet<ModelIndex> = order.into_iter().take(count).collect();
        self.events.retain(|entry| !gone.contains(&entry.model));
    }

    fn renumber(&mut self, named: &HashSet<ModelIndex>) {
        let kept = (0..self.models.len()).filter(|model| named.contains(model));
        let numbers: HashMap<ModelIndex, ModelIndex> =
            kept.enumerate().map(|(new, old)| (old, new)).collect();
        let mut models = vec![None; numbers.len()];
        for (old, model) in std::mem::take(&mut self.models).into_iter().enumerate() {
            if let Some(new) = numbers.get(&old) {
                models[*new] = Some(model);
            }
        }
        let events = std::mem::take(&mut self.events);
        let events = events.into_iter().map(|entry| Entry { model: numbers[&entry.model], ..entry });
        *self = Self::new(models.into_iter().flatten().collect(), events);
    }

    /// The models by their number.
    pub(crate) fn models(&self) -> &[ModelRef] {
        &self.models
    }

    /// The number of a model.
    pub(crate) fn number(&self, model: &ModelRef) -> Option<ModelIndex> {
        self.index.get(model).copied()
    }

    /// The events, oldest first.
    pub(crate) fn events(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.events.iter()
    }

    /// Requests of each model in the day before `now_ms`. O(events of that day).
    pub(crate) fn requests_of_a_day(&self, now_ms: u64) -> Vec<u32> {
        let mut counts = vec![0; self.models.len()];
        let of_day = self.events.iter().rev().take_while(|entry| now_ms.saturating_sub(entry.at_ms) < DAY_MS);
        let requests = of_day.filter(|entry| entry.kind == EventKind::Request);
        requests.for_each(|entry| counts[entry.model] += 1);
        counts
    }
}

#[cfg(test)]
mod tests {
    use helios_prefetch::EventKind::{Deploy, Request};
    use helios_types::ModelRef;

    use super::{AGE_MS_MAX, DAY_MS, EVENTS_MAX, History, MODELS_MAX, SAME_USE_MS};

    fn name(number: usize) -> ModelRef {
        format!("m{number}").parse().expect("a name")
    }

    #[test]
    fn a_burst_is_one_event_and_time_does_not_go_back() {
        let mut history = History::default();
        assert!(history.note(&name(1), Request, 1_000_000).is_some());
        assert!(history.note(&name(1), Request, 1_000_000 + SAME_USE_MS - 1).is_none());
        assert!(history.note(&name(1), Deploy, 1_000_001).is_some(), "another kind");
        let late = history.note(&name(2), Request, 5).expect("another model");
        assert_eq!(late.at_ms, 1_000_001, "a clock that was set back");
        assert!(history.note(&name(1), Request, 1_000_000 + SAME_USE_MS).is_some());
        assert_eq!(history.requests_of_a_day(1_000_000 + SAME_USE_MS), [2, 1]);
    }

    #[test]
    fn models_and_events_are_bounded_and_the_newest_stay() {
        let mut history = History::default();
        for number in 0..MODELS_MAX {
            assert!(history.note(&name(number), Request, number as u64).is_some());
        }
        assert!(history.note(&name(MODELS_MAX), Request, MODELS_MAX as u64).is_none(), "no room");
        assert!(history.thin(MODELS_MAX as u64));
        assert_eq!(history.models().len(), MODELS_MAX - MODELS_MAX / 4);
        assert_eq!(history.number(&name(0)), None);
        let last = name(MODELS_MAX - 1);
        assert_eq!(history.number(&last).map(|number| history.models()[number].clone()), Some(last));
        assert!(history.note(&name(MODELS_MAX), Request, MODELS_MAX as u64).is_some(), "room again");
    }

    #[test]
    fn what_is_old_is_thinned_and_then_forgotten() {
        let mut history = History::default();
        let minute = |turn: usize| turn as u64 * SAME_USE_MS;
        for turn in 0..EVENTS_MAX {
            for model in [0, 1] {
                assert!(history.note(&name(model), Request, minute(turn)).is_some());
            }
        }
        assert_eq!(history.events().count(), EVENTS_MAX);
        let now = minute(EVENTS_MAX - 1);
        assert!(!history.thin(now));
        let of_today = history.events().filter(|entry| now - entry.at_ms < DAY_MS).count();
        assert_eq!(of_today, 2 * 24 * 60);
        let of_before = history.events().count() - of_today;
        // Both models, 96 quarters of an hour a day, for the 44.5 days before today that there was room for.
        assert!((8_540..8_550).contains(&of_before), "{of_before}");
        assert!(history.thin(now + AGE_MS_MAX));
        assert!(history.models().is_empty() && history.events().next().is_none());
    }
}
