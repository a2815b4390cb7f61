//! Randomness from the operating system, for ids and seeds.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 unpredictable bits: request ids, seeds that a client left open, jitter. Not for secrets.
pub fn random_u64() -> u64 {
    // The standard library keys each `RandomState` from the system's generator, and one step of SipHash spreads it.
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_differ() {
        let seen: std::collections::HashSet<u64> = (0..1000).map(|_| super::random_u64()).collect();
        assert_eq!(seen.len(), 1000);
    }
}
