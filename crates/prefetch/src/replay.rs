//! A tier of limited bytes under a trace: how often a model was there, and what was waited and moved.
//!
//! One fetch at a time is made ahead; it takes the model's fetch time, and a request in the meantime waits for the rest
//! of it and counts as a miss. What is asked for is always brought in.

use super::trace::Trace;
use super::{Event, EventKind, ModelCost, ModelIndex, Policy, PolicyOptions, Tier as Seen};

/// How often policies may think of prefetching while nothing happens.
const TICK_SECONDS: f64 = 120.0;

/// Who decides what leaves and what comes ahead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contender {
    /// The least recently used leaves; nothing comes ahead.
    Lru,
    /// [`Policy`] as given.
    Policy(PolicyOptions),
    /// Knows the future: what is needed last leaves, what is needed next comes ahead.
    Oracle,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Requests.
    pub requests: u64,
    /// Of those, to models that were there.
    pub hits: u64,
    /// What requests waited for models.
    pub waited_seconds: f64,
    /// Bytes fetched, on demand and ahead.
    pub bytes: u64,
    /// Models fetched ahead and used.
    pub prefetch_hits: u64,
    /// Models fetched ahead that left unused.
    pub prefetch_wastes: u64,
}

impl Outcome {
    /// Share of requests to models that were there.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.requests.max(1) as f64
    }

    /// Adds what came of another trace.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.hits += other.hits;
        self.waited_seconds += other.waited_seconds;
        self.bytes += other.bytes;
        self.prefetch_hits += other.prefetch_hits;
        self.prefetch_wastes += other.prefetch_wastes;
    }
}

/// Runs a contender over a trace with a budget of bytes.
pub fn replay(trace: &Trace, budget_bytes: u64, contender: Contender) -> Outcome {
    let mut tier = Tier::new(trace, budget_bytes, contender);
    // Nothing happens before the first event, however long after midnight of the first day it is.
    let mut now = trace.events.first().map_or(0.0, |event| event.at);
    for (index, event) in trace.events.iter().enumerate() {
        tier.upcoming = index;
        while now + TICK_SECONDS < event.at {
            now += TICK_SECONDS;
            tier.tick(now);
        }
        now = event.at;
        tier.settle(now);
        match event.kind {
            EventKind::Request => tier.request(event),
            EventKind::Deploy => tier.brain.observe(event, true),
        }
        tier.upcoming = index + 1;
        tier.tick(now);
    }
    let (prefetch_hits, prefetch_wastes) = match &tier.brain {
        Brain::Policy(policy) => policy.gate().outcomes(),
        _ => (0, 0),
    };
    Outcome { prefetch_hits, prefetch_wastes, ..tier.outcome }
}

struct Tier<'a> {
    costs: &'a [ModelCost],
    budget_bytes: u64,
    /// The models that are there or on their way.
    here: Vec<ModelIndex>,
    coming: Option<(ModelIndex, f64)>,
    brain: Brain<'a>,
    /// The next event.
    upcoming: usize,
    outcome: Outcome,
}

enum Brain<'a> {
    Lru(Vec<f64>),
    Policy(Box<Policy>),
    Oracle(Future<'a>),
}

/// When each model is asked for next.
struct Future<'a> {
    trace: &'a Trace,
}

impl Future<'_> {
    /// The time of each model's next request at or behind an event; infinite for none. O(models + events looked at).
    fn next_uses(&self, upcoming: usize) -> Vec<f64> {
        const LOOKED_AT_MAX: usize = 2000;
        let mut next = vec![f64::INFINITY; self.trace.costs.len()];
        let events = self.trace.events[upcoming.min(self.trace.events.len())..].iter().take(LOOKED_AT_MAX);
        for event in events.filter(|event| event.kind == EventKind::Request) {
            next[event.model] = next[event.model].min(event.at);
        }
        next
    }
}

impl Brain<'_> {
    fn observe(&mut self, event: &Event, was_here: bool) {
        match self {
            Self::Lru(last) if event.kind == EventKind::Request => last[event.model] = event.at,
            Self::Policy(policy) => policy.observe(event, was_here),
            Self::Lru(_) | Self::Oracle(_) => {}
        }
    }

    /// What each model is worth keeping; the least leaves first.
    fn values(&self, at: f64, upcoming: usize) -> Vec<f64> {
        match self {
            Self::Lru(last) => last.clone(),
            Self::Policy(policy) => policy.values(at),
            Self::Oracle(future) => future.next_uses(upcoming).iter().map(|next| -next).collect(),
        }
    }

    fn prefetch(&mut self, tier: &View<'_>) -> Option<ModelIndex> {
        match self {
            Self::Lru(_) => None,
            Self::Policy(policy) => {
                policy.prefetch(&Seen { at: tier.at, here: tier.here, fixed: &[], free: tier.free })
            }
            Self::Oracle(future) => {
                let next = future.next_uses(tier.upcoming);
                let absent = (0..next.len()).filter(|model| !tier.here.contains(model));
                let best = absent.min_by(|a, b| next[*a].total_cmp(&next[*b]))?;
                let later = tier.here.iter().filter(|model| next[**model] > next[best]);
                let room = tier.free + later.map(|model| tier.costs[*model].bytes).sum::<u64>();
                (next[best].is_finite() && room >= tier.costs[best].bytes).then_some(best)
            }
        }
    }
}

/// What a decision to prefetch sees.
struct View<'t> {
    at: f64,
    here: &'t [ModelIndex],
    free: u64,
    upcoming: usize,
    costs: &'t [ModelCost],
}

impl<'a> Tier<'a> {
    fn new(trace: &'a Trace, budget_bytes: u64, contender: Contender) -> Self {
        let brain = match contender {
            Contender::Lru => Brain::Lru(vec![f64::NEG_INFINITY; trace.costs.len()]),
            Contender::Policy(options) => {
                Brain::Policy(Box::new(Policy::new(options, trace.costs.clone(), budget_bytes)))
            }
            Contender::Oracle => Brain::Oracle(Future { trace }),
        };
        let (here, coming, upcoming, outcome) = (Vec::new(), None, 0, Outcome::default());
        Self { costs: &trace.costs, budget_bytes, here, coming, brain, upcoming, outcome }
    }

    /// What was on its way is there once its time has passed.
    fn settle(&mut self, now: f64) {
        self.coming = self.coming.filter(|(_, ready)| *ready > now);
    }

    fn request(&mut self, event: &Event) {
        let model = event.model;
        let wait = match (self.here.contains(&model), self.coming) {
            (true, Some((coming, ready))) if coming == model => ready - event.at,
            (true, _) => 0.0,
            (false, _) => self.costs[model].fetch_seconds,
        };
        let was_here = self.here.contains(&model);
        self.outcome.requests += 1;
        self.outcome.hits += u64::from(wait == 0.0);
        self.outcome.waited_seconds += wait;
        self.brain.observe(event, was_here);
        if was_here {
            self.coming = self.coming.filter(|(coming, _)| *coming != model);
        } else if self.costs[model].bytes <= self.budget_bytes {
            // The oracle is asked about what comes behind this request.
            self.upcoming += 1;
            self.bring_in(model, event.at);
        }
    }

    fn tick(&mut self, now: f64) {
        self.settle(now);
        if self.coming.is_some() {
            return;
        }
        let (free, here) = (self.free(), self.here.clone());
        let view = View { at: now, here: &here, free, upcoming: self.upcoming, costs: self.costs };
        if let Some(model) = self.brain.prefetch(&view) {
            self.bring_in(model, now);
            self.coming = Some((model, now + self.costs[model].fetch_seconds));
        }
    }

    /// Makes room, least valuable first, and takes the model in.
    fn bring_in(&mut self, model: ModelIndex, now: f64) {
        let bytes = self.costs[model].bytes;
        if self.free() < bytes {
            let values = self.brain.values(now, self.upcoming);
            self.here.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        }
        while self.free() < bytes {
            let Some(victim) = self.here.pop() else { return };
            self.coming = self.coming.filter(|(coming, _)| *coming != victim);
            if let Brain::Policy(policy) = &mut self.brain {
                let _wasted = policy.evicted(victim);
            }
        }
        self.here.push(model);
        self.outcome.bytes += bytes;
    }

    fn free(&self) -> u64 {
        self.budget_bytes - self.here.iter().map(|model| self.costs[*model].bytes).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::Pattern;
    use super::*;

    /// Seeds that neither tuning nor the bench uses.
    fn outcome(pattern: Pattern, contender: Contender) -> Outcome {
        let mut sum = Outcome::default();
        for seed in 31..33 {
            let trace = Trace::generate(pattern, seed);
            sum.add(&replay(&trace, trace.bytes() / 4, contender));
        }
        sum
    }

    #[test]
    fn a_recorded_trace_begins_with_its_first_event() {
        // Whole seconds since 1970, as a store records: they stay exact when they are moved.
        const DAYS_SINCE_1970: f64 = 20_000.0;
        let mut generated = Trace::generate(Pattern::Mixed, 31);
        generated.events.iter_mut().for_each(|event| event.at = event.at.floor());
        let mut recorded = generated.clone();
        recorded.events.iter_mut().for_each(|event| event.at += DAYS_SINCE_1970 * 86_400.0);
        let prefetch = Contender::Policy(PolicyOptions::default());
        for contender in [Contender::Lru, prefetch, Contender::Oracle] {
            let outcome = |trace: &Trace| replay(trace, trace.bytes() / 4, contender);
            let (expected, found) = (outcome(&generated), outcome(&recorded));
            let waited_more = found.waited_seconds - expected.waited_seconds;
            assert!(waited_more.abs() < 0.01, "{contender:?}: {waited_more} s");
            let waited_seconds = expected.waited_seconds;
            assert_eq!(Outcome { waited_seconds, ..found }, expected, "{contender:?}");
            let first = outcome(&Trace { events: recorded.events[..1].to_vec(), ..recorded.clone() });
            assert_eq!((first.requests, first.hits), (1, 0), "{contender:?} had no time to fetch anything");
        }
    }

    #[test]
    fn where_nothing_can_be_learned_prefetch_costs_next_to_nothing() {
        let options = PolicyOptions::default();
        for pattern in [Pattern::None, Pattern::Shift] {
            let with = outcome(pattern, Contender::Policy(options));
            let without = outcome(pattern, Contender::Policy(PolicyOptions { prefetch: false, ..options }));
            let lru = outcome(pattern, Contender::Lru);
            for other in [lru, without] {
                assert!(with.hit_rate() > other.hit_rate() - 0.01, "{pattern:?}: {with:?}, {other:?}");
                assert!(with.bytes as f64 <= 1.05 * other.bytes as f64, "{pattern:?}: {with:?}, {other:?}");
            }
        }
    }

    #[test]
    fn where_there_is_a_pattern_prefetch_pays_and_the_oracle_more() {
        let options = PolicyOptions::default();
        let with = outcome(Pattern::Sequences, Contender::Policy(options));
        let without =
            outcome(Pattern::Sequences, Contender::Policy(PolicyOptions { prefetch: false, ..options }));
        let oracle = outcome(Pattern::Sequences, Contender::Oracle);
        assert!(with.hit_rate() > without.hit_rate() + 0.01, "{with:?}, {without:?}");
        assert!(with.waited_seconds < without.waited_seconds, "{with:?}, {without:?}");
        assert!(oracle.hit_rate() > with.hit_rate() && with.prefetch_hits > 100, "{oracle:?}, {with:?}");
    }
}
