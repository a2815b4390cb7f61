//! What to keep and what to prefetch: value = probability of use x seconds saved / bytes.

use std::collections::HashMap;

use super::{Event, EventKind, Gate, ModelCost, ModelIndex, Predictor};

/// Parameters, tuned on traces of other seeds than those reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyOptions {
    /// Requests ahead that "use" means.
    pub horizon_requests: f64,
    /// Probability of use below which nothing is prefetched.
    pub probability_min: f64,
    /// How many times more a prefetch must be worth than what leaves for it.
    pub margin: f64,
    /// Whether to prefetch at all.
    pub prefetch: bool,
}

impl Default for PolicyOptions {
    fn default() -> Self {
        Self { horizon_requests: 8.0, probability_min: 0.35, margin: 2.0, prefetch: true }
    }
}

/// What a decision to prefetch sees of the tier.
#[derive(Clone, Copy, Debug)]
pub struct Tier<'a> {
    /// The time, in seconds as of events.
    pub at: f64,
    /// Models that are there and may leave.
    pub here: &'a [ModelIndex],
    /// Models that neither leave nor are to be fetched: pinned or in use, on their way, or not to be had.
    pub fixed: &'a [ModelIndex],
    /// Bytes that nobody has.
    pub free: u64,
}

/// A budget of bytes, the models that share it, and what is expected of them.
#[derive(Debug)]
pub struct Policy {
    options: PolicyOptions,
    predictor: Predictor,
    gate: Gate,
    costs: Vec<ModelCost>,
    /// Models that were prefetched and not used since.
    unused: HashMap<ModelIndex, u64>,
    budget_bytes: u64,
}

impl Policy {
    /// Largest part of the budget that prefetching may have at stake at once.
    const ALLOWANCE_SHARE: u64 = 4;

    /// A policy for a budget shared by models of those costs.
    pub fn new(options: PolicyOptions, costs: Vec<ModelCost>, budget_bytes: u64) -> Self {
        let unused = HashMap::new();
        Self { options, predictor: Predictor::default(), gate: Gate::default(), costs, unused, budget_bytes }
    }

    /// Learns from an event, whose model is fetched on demand unless it `was_here`.
    pub fn observe(&mut self, event: &Event, was_here: bool) {
        self.learn(event);
        if event.kind == EventKind::Request && !self.used(event.model) && !was_here {
            self.demanded(self.costs[event.model].bytes);
        }
    }

    /// Learns from an event and accounts for nothing.
    pub fn learn(&mut self, event: &Event) {
        self.predictor.observe(event);
    }

    /// A model was asked for. Returns whether it was prefetched and this is its first use since.
    pub fn used(&mut self, model: ModelIndex) -> bool {
        let Some(bytes) = self.unused.remove(&model) else { return false };
        self.gate.used(bytes);
        true
    }

    /// `bytes` were fetched on demand.
    pub fn demanded(&mut self, bytes: u64) {
        self.gate.demanded(bytes, self.budget_bytes / Self::ALLOWANCE_SHARE);
    }

    /// A model left the tier. Returns the bytes that were prefetched in vain.
    pub fn evicted(&mut self, model: ModelIndex) -> Option<u64> {
        let bytes = self.unused.remove(&model)?;
        self.gate.wasted();
        Some(bytes)
    }

    /// A prefetch failed or was given up with `missing` bytes not fetched: those were not spent.
    pub fn abandoned(&mut self, model: ModelIndex, missing: u64) {
        if let Some(bytes) = self.unused.remove(&model) {
            self.gate.unspend(missing.min(bytes));
            if missing < bytes {
                self.gate.wasted();
            }
        }
    }

    /// What each model is worth keeping: seconds saved a byte, at `at`. O(models).
    pub fn values(&self, at: f64) -> Vec<f64> {
        let shares = self.predictor.shares(at, self.costs.len());
        self.costs.iter().zip(shares).map(|(cost, share)| self.probability(share) * density(cost)).collect()
    }

    /// The model to prefetch now, if any: the most valuable that is not there, if it is likely, worth more than what
    /// would leave for it, and allowed. O(models log models).
    pub fn prefetch(&mut self, tier: &Tier<'_>) -> Option<ModelIndex> {
        if !self.options.prefetch {
            return None;
        }
        let shares = self.predictor.shares(tier.at, self.costs.len());
        let value = |model: ModelIndex| self.probability(shares[model]) * density(&self.costs[model]);
        let candidates = (0..self.costs.len()).filter(|model| {
            let bytes = self.costs[*model].bytes;
            !tier.here.contains(model)
                && !tier.fixed.contains(model)
                && bytes <= self.budget_bytes
                && self.probability(shares[*model]) >= self.options.probability_min
                && self.gate.allows(bytes)
        });
        let best = candidates.max_by(|a, b| value(*a).total_cmp(&value(*b)))?;
        let mut victims: Vec<ModelIndex> = tier.here.to_vec();
        victims.sort_by(|a, b| value(*a).total_cmp(&value(*b)));
        let seconds = |model: ModelIndex| value(model) * self.costs[model].bytes as f64;
        let (mut room, mut lost) = (tier.free, 0.0);
        for victim in victims {
            if room >= self.costs[best].bytes {
                break;
            }
            room += self.costs[victim].bytes;
            lost += seconds(victim);
        }
        if room < self.costs[best].bytes || seconds(best) < self.options.margin * lost {
            return None;
        }
        let bytes = self.costs[best].bytes;
        self.gate.spend(bytes);
        self.unused.insert(best, bytes);
        Some(best)
    }

    /// What is expected of the models.
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// The parameters.
    pub fn options(&self) -> &PolicyOptions {
        &self.options
    }

    /// What prefetching has come to.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Grants an allowance beside what is earned, up to `bytes_max` of it in all.
    pub fn grant(&mut self, bytes: u64, bytes_max: u64) {
        self.gate.granted(bytes, bytes_max);
    }

    /// Replaces what the models cost. A model that is not there costs what is missing of it.
    pub fn set_costs(&mut self, costs: Vec<ModelCost>, budget_bytes: u64) {
        (self.costs, self.budget_bytes) = (costs, budget_bytes);
    }

    /// The models that were prefetched and not used since, with the bytes that were spent.
    pub fn unused(&self) -> impl Iterator<Item = (ModelIndex, u64)> {
        self.unused.iter().map(|(model, bytes)| (*model, *bytes))
    }

    /// Takes over what another policy was allowed and has prefetched.
    pub fn resume(&mut self, gate: Gate, unused: impl IntoIterator<Item = (ModelIndex, u64)>) {
        self.gate = gate;
        self.unused = unused.into_iter().collect();
    }

    /// Probability that a model with that share of the next request is among the next ones.
    pub fn probability(&self, share: f64) -> f64 {
        1.0 - (1.0 - share).powf(self.options.horizon_requests)
    }
}

fn density(cost: &ModelCost) -> f64 {
    cost.fetch_seconds / cost.bytes.max(1) as f64
}
