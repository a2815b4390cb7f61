//! What prefetching may cost: an allowance of bytes that it earns, spends, and gets back only for what was used.
//!
//! Fetching on demand earns a small part of its bytes. A prefetch spends its bytes; used, it has replaced a fetch on
//! demand and gets them back; thrown away unused, they are lost. So wasted bytes stay below [`Gate::EARNED`] of those
//! fetched on demand, whatever the predictions are worth: where they are worth nothing, prefetching starves.

/// The allowance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gate {
    allowance_bytes: f64,
    hits: u64,
    wastes: u64,
}

impl Gate {
    /// Part of the bytes fetched on demand that may be wasted.
    pub const EARNED: f64 = 0.03;

    /// `bytes` were fetched on demand; the allowance never exceeds `allowance_max`.
    pub fn demanded(&mut self, bytes: u64, allowance_max: u64) {
        self.granted((Self::EARNED * bytes as f64) as u64, allowance_max);
    }

    /// An allowance kept from before.
    pub fn kept(allowance_bytes: u64) -> Self {
        Self { allowance_bytes: allowance_bytes as f64, ..Self::default() }
    }

    /// `bytes` are granted beside what is earned; the allowance never exceeds `allowance_max` by it.
    pub fn granted(&mut self, bytes: u64, allowance_max: u64) {
        let earned = self.allowance_bytes + bytes as f64;
        self.allowance_bytes = earned.min(allowance_max as f64).max(self.allowance_bytes);
    }

    /// Whether `bytes` may be prefetched now.
    pub fn allows(&self, bytes: u64) -> bool {
        self.allowance_bytes >= bytes as f64
    }

    /// `bytes` are being prefetched.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.allowance_bytes -= bytes as f64;
    }

    /// `bytes` that were spent were not fetched after all.
    pub(crate) fn unspend(&mut self, bytes: u64) {
        self.allowance_bytes += bytes as f64;
    }

    /// A prefetch of `bytes` was used.
    pub fn used(&mut self, bytes: u64) {
        self.allowance_bytes += bytes as f64;
        self.hits += 1;
    }

    /// A prefetch left unused; what it spent is lost.
    pub(crate) fn wasted(&mut self) {
        self.wastes += 1;
    }

    /// Prefetches that were used, and those that were not.
    pub fn outcomes(&self) -> (u64, u64) {
        (self.hits, self.wastes)
    }

    /// Bytes that may be prefetched now.
    pub fn allowance_bytes(&self) -> u64 {
        self.allowance_bytes.max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Gate;

    #[test]
    fn prefetches_that_are_never_used_starve() {
        let mut gate = Gate::default();
        let (mut demanded, mut wasted) = (0, 0);
        for _ in 0..1000 {
            gate.demanded(100, 1000);
            demanded += 100;
            while gate.allows(100) {
                gate.spend(100);
                gate.wasted();
                wasted += 100;
            }
        }
        assert!(wasted as f64 <= Gate::EARNED * demanded as f64, "{wasted} of {demanded}");
        assert_eq!(gate.outcomes(), (0, wasted / 100));
    }

    #[test]
    fn prefetches_that_are_used_go_on() {
        let mut gate = Gate::default();
        gate.demanded(4000, 1000);
        for _ in 0..1000 {
            assert!(gate.allows(100));
            gate.spend(100);
            gate.used(100);
        }
        assert_eq!(gate.outcomes(), (1000, 0));
    }
}
