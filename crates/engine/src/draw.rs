//! The random numbers of sampling: a counter-based generator, so that a draw depends on nothing but (seed, position).
//!
//! Philox4x32-10 (Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", 2011). The key is the request's
//! seed, the counter is the position of the token in its sequence, prompt included. A request that is continued in
//! another process, or computed again after a preemption, meets the same draws.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// A number in `[0, 1)` with 53 random bits.
pub(crate) fn uniform(seed: u64, position: usize) -> f64 {
    let position = position as u64;
    let counter = [position as u32, (position >> 32) as u32, 0, 0];
    let random = philox(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = u64::from(random[0]) << 32 | u64::from(random[1]);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let products = [0, 1].map(|i| u64::from(MULTIPLIERS[i]) * u64::from(counter[2 * i]));
        let [high, low] =
            [products.map(|product| (product >> 32) as u32), products.map(|product| product as u32)];
        counter = [high[1] ^ counter[1] ^ key[0], low[1], high[0] ^ counter[3] ^ key[1], low[0]];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::{philox, uniform};

    /// The known answers of the authors' library, Random123 (`kat_vectors`).
    #[test]
    fn the_generator_gives_the_published_numbers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), expected);
    }

    #[test]
    fn draws_fill_the_unit_interval_evenly() {
        let mut buckets = [0; 10];
        for position in 0..10_000 {
            buckets[(uniform(7, position) * 10.0) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
    }
}
