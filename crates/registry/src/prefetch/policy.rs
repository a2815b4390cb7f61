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

    /// Learns from an event. `was_here`: the model was in the tier when it was asked for.
    pub fn observe(&mut self, event: &Event, was_here: bool) {
        self.predictor.observe(event);
        if event.kind == EventKind::Deploy {
            return;
        }
        let bytes = self.costs[event.model].bytes;
        match self.unused.remove(&event.model) {
            Some(bytes) => self.gate.used(bytes),
            None if !was_here => self.gate.demanded(bytes, self.budget_bytes / Self::ALLOWANCE_SHARE),
            None => {}
        }
    }

    /// A model left the tier.
    pub fn evicted(&mut self, model: ModelIndex) {
        if let Some(bytes) = self.unused.remove(&model) {
            self.gate.wasted(bytes);
        }
    }

    /// What each model is worth keeping: seconds saved a byte, at `at`. O(models).
    pub fn values(&self, at: f64) -> Vec<f64> {
        let shares = self.predictor.shares(at, self.costs.len());
        self.costs.iter().zip(shares).map(|(cost, share)| self.probability(share) * density(cost)).collect()
    }

    /// The model to prefetch now, if any: the most valuable that is not here, if it is likely, worth more than what would
    /// leave for it, and allowed. `here` are the models in the tier, `free` the bytes nobody has. O(models log models).
    pub fn prefetch(&mut self, at: f64, here: &[ModelIndex], free: u64) -> Option<ModelIndex> {
        if !self.options.prefetch {
            return None;
        }
        let shares = self.predictor.shares(at, self.costs.len());
        let value = |model: ModelIndex| self.probability(shares[model]) * density(&self.costs[model]);
        let candidates = (0..self.costs.len()).filter(|model| {
            let bytes = self.costs[*model].bytes;
            !here.contains(model)
                && bytes <= self.budget_bytes
                && self.probability(shares[*model]) >= self.options.probability_min
                && self.gate.allows(bytes)
        });
        let best = candidates.max_by(|a, b| value(*a).total_cmp(&value(*b)))?;
        let mut victims: Vec<ModelIndex> = here.to_vec();
        victims.sort_by(|a, b| value(*a).total_cmp(&value(*b)));
        let seconds = |model: ModelIndex| value(model) * self.costs[model].bytes as f64;
        let (mut room, mut lost) = (free, 0.0);
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

    /// What prefetching has come to.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    fn probability(&self, share: f64) -> f64 {
        1.0 - (1.0 - share).powf(self.options.horizon_requests)
    }
}

fn density(cost: &ModelCost) -> f64 {
    cost.fetch_seconds / cost.bytes.max(1) as f64
}
