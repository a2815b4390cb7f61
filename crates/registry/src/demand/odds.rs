//! How likely blobs are to be used within the hour, by what was learned of the models that have them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use helios_storage::tiers::{DecayedUses, UsePredictor};
use helios_types::Digest;

/// Probabilities by blob, computed from time to time and read often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Odds(Arc<RwLock<HashMap<Digest, f64>>>);

impl Odds {
    /// Replaces them.
    pub(crate) fn replace(&self, odds: HashMap<Digest, f64>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = odds;
    }

    /// The judgement that tiers go by: these, and recency and frequency for blobs that they say nothing of.
    pub(crate) fn predictor(&self) -> Box<dyn UsePredictor> {
        Box::new(Learned { odds: self.clone(), uses: DecayedUses::default() })
    }

    /// The probability of a blob; `None` if no model of the history has it. O(1).
    fn of(&self, blob: &Digest) -> Option<f64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(blob).copied()
    }
}

/// What was learned of models, by blob. Asked under a lock, for each blob that may leave: a look into two maps.
#[derive(Debug)]
struct Learned {
    odds: Odds,
    uses: DecayedUses,
}

impl UsePredictor for Learned {
    fn probability(&self, digest: &Digest, now_ms: u64) -> f64 {
        self.odds.of(digest).unwrap_or_else(|| self.uses.probability(digest, now_ms))
    }

    fn used(&mut self, digest: Digest, now_ms: u64) {
        self.uses.used(digest, now_ms);
    }

    fn history(&self) -> Vec<(Digest, f64, u64)> {
        self.uses.history()
    }

    fn restore(&mut self, history: Vec<(Digest, f64, u64)>) {
        self.uses.restore(history);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use helios_types::Digest;

    use super::Odds;

    #[test]
    fn what_was_learned_of_models_comes_before_what_blobs_were_read() {
        let [known, read, neither] = [1, 2, 3].map(|byte| Digest::from_bytes([byte; 32]));
        let odds = Odds::default();
        let mut predictor = odds.predictor();
        predictor.used(known, 0);
        predictor.used(read, 0);
        let probability = predictor.probability(&read, 0);
        assert!(probability > 0.0 && predictor.probability(&known, 0) == probability);
        odds.replace(HashMap::from([(known, 0.75)]));
        assert_eq!(
            [known, read, neither].map(|blob| predictor.probability(&blob, 0)),
            [0.75, probability, 0.0]
        );
        let mut next = odds.predictor();
        next.restore(predictor.history());
        assert_eq!(next.probability(&read, 0), probability);
    }
}
