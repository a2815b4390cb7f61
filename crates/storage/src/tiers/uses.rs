//! How likely a blob is to be used soon.
//!
//! The built-in answer is a count of uses that halves every [`HALF_LIFE_MS`]: recency and frequency in one number of
//! constant size (the "exponentially decayed rate" of Cormode et al., *Forward Decay*, ICDE 2009). A predictor that
//! knows more - the time of day, what follows what - takes its place through [`UsePredictor`].

use std::collections::HashMap;
use std::fmt::Debug;

use helios_types::Digest;

/// Milliseconds after which a use counts half.
const HALF_LIFE_MS: f64 = 24.0 * 3600e3;

/// The near future that a decision is about, in milliseconds: longer ahead, a blob can be fetched again in time.
const HORIZON_MS: f64 = 3600e3;

/// Blobs remembered; beyond, the least used half is forgotten.
const BLOBS_MAX: usize = 1 << 18;

/// Says how likely a blob is to be used soon.
pub trait UsePredictor: Debug + Send + Sync {
    /// Probability, 0 to 1, that the blob is used within the next hour after `now_ms` (milliseconds since 1970).
    fn probability(&self, digest: &Digest, now_ms: u64) -> f64;

    /// Notes a use.
    fn used(&mut self, digest: Digest, now_ms: u64);

    /// What to keep across restarts: each blob with its weight at a time. Empty if it keeps its own.
    fn history(&self) -> Vec<(Digest, f64, u64)> {
        Vec::new()
    }

    /// Takes back what [`history`](Self::history) gave.
    fn restore(&mut self, _history: Vec<(Digest, f64, u64)>) {}
}

/// Exponentially decayed counts of uses: the built-in judgement.
#[derive(Debug, Default)]
pub struct DecayedUses(HashMap<Digest, Count>);

#[derive(Clone, Copy, Debug)]
struct Count {
    weight: f64,
    at_ms: u64,
}

impl Count {
    fn decayed(self, now_ms: u64) -> f64 {
        let age_ms = now_ms.saturating_sub(self.at_ms) as f64;
        self.weight * (-age_ms / HALF_LIFE_MS).exp2()
    }
}

impl DecayedUses {
    /// Forgets the half with the least weight.
    fn shrink(&mut self, now_ms: u64) {
        let mut ranked: Vec<(Digest, Count)> = self.0.drain().collect();
        let weight = |entry: &(Digest, Count)| (entry.1.decayed(now_ms), entry.0);
        ranked.sort_unstable_by(|a, b| {
            let (a, b) = (weight(a), weight(b));
            b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
        });
        ranked.truncate(BLOBS_MAX / 2);
        self.0.extend(ranked);
    }
}

impl UsePredictor for DecayedUses {
    /// Uses as a Poisson process whose rate is the decayed count over its mean age, half-life / ln 2.
    fn probability(&self, digest: &Digest, now_ms: u64) -> f64 {
        let weight = self.0.get(digest).map_or(0.0, |count| count.decayed(now_ms));
        let expected = weight * std::f64::consts::LN_2 * HORIZON_MS / HALF_LIFE_MS;
        -(-expected).exp_m1()
    }

    fn used(&mut self, digest: Digest, now_ms: u64) {
        if self.0.len() >= BLOBS_MAX && !self.0.contains_key(&digest) {
            self.shrink(now_ms);
        }
        let count = self.0.entry(digest).or_insert(Count { weight: 0.0, at_ms: now_ms });
        *count = Count { weight: count.decayed(now_ms) + 1.0, at_ms: now_ms };
    }

    fn history(&self) -> Vec<(Digest, f64, u64)> {
        self.0.iter().map(|(digest, count)| (*digest, count.weight, count.at_ms)).collect()
    }

    fn restore(&mut self, history: Vec<(Digest, f64, u64)>) {
        let finite = history.into_iter().filter(|(_, weight, _)| weight.is_finite() && *weight > 0.0);
        self.0
            .extend(finite.take(BLOBS_MAX).map(|(digest, weight, at_ms)| (digest, Count { weight, at_ms })));
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOBS_MAX, DecayedUses, HALF_LIFE_MS, UsePredictor};
    use helios_types::Digest;

    fn digest(number: u64) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Digest::from_bytes(bytes)
    }

    #[test]
    fn frequent_and_recent_use_count_and_fade() {
        let mut uses = DecayedUses::default();
        let half_life_ms = HALF_LIFE_MS as u64;
        uses.used(digest(1), 0);
        uses.used(digest(2), 0);
        uses.used(digest(2), 0);
        uses.used(digest(3), half_life_ms);
        let probability = |number| uses.probability(&digest(number), half_life_ms);
        assert!((probability(2) - probability(3)).abs() < 1e-12, "two uses, one half-life ago, are one now");
        assert!(probability(3) > probability(1) && probability(1) > 0.0);
        assert_eq!(probability(4), 0.0);
        let mut restored = DecayedUses::default();
        restored.restore(uses.history());
        assert_eq!(restored.probability(&digest(2), half_life_ms), probability(2));
    }

    #[test]
    fn memory_is_bounded_and_the_most_used_stay() {
        let mut uses = DecayedUses::default();
        uses.used(digest(0), 0);
        uses.used(digest(0), 0);
        (1..=BLOBS_MAX as u64).for_each(|number| uses.used(digest(number), 0));
        assert!(uses.0.len() <= BLOBS_MAX && uses.0.contains_key(&digest(0)));
    }
}
