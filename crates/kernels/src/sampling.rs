//! What a sampler needs to know of a row of logits.

use crate::exp::exp;
use crate::isa::{Isa, Kernel, Simd};

/// The index of the greatest value, the first of equal ones; NaN counts as less than everything. `None` if there is
/// no value that is a number.
pub fn argmax(values: &[f32]) -> Option<usize> {
    let mut best = None;
    let mut greatest = f32::NEG_INFINITY;
    for (index, value) in values.iter().enumerate() {
        if *value > greatest || (best.is_none() && *value == greatest) {
            (best, greatest) = (Some(index), *value);
        }
    }
    best
}

/// The two numbers that turn logits into probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftmaxStats {
    /// The greatest logit.
    pub max: f32,
    /// The logarithm of the sum of the exponentials of all logits.
    pub log_sum_exp: f64,
}

impl SoftmaxStats {
    /// The statistics of `logits`: exponentials in f32, summed in f64 in a fixed order.
    pub fn of(logits: &[f32]) -> Self {
        Isa::detect().run(Stats(logits))
    }

    /// The natural logarithm of the probability of a token with this logit.
    pub fn log_probability(&self, logit: f32) -> f64 {
        f64::from(logit) - self.log_sum_exp
    }
}

struct Stats<'a>(&'a [f32]);

impl Kernel for Stats<'_> {
    type Output = SoftmaxStats;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> SoftmaxStats {
        let max = argmax(self.0).map_or(f32::NEG_INFINITY, |index| self.0[index]);
        let (groups, rest) = self.0.as_chunks();
        let mut sums = [0.0; 16];
        for group in groups {
            add_exponentials(simd, simd.load(group), max, 16, &mut sums);
        }
        add_exponentials(simd, simd.load_part(rest), max, rest.len(), &mut sums);
        let sum: f64 = sums.iter().sum();
        SoftmaxStats { max, log_sum_exp: f64::from(max) + sum.ln() }
    }
}

/// Adds the exponentials of the first `count` logits, relative to `max`, each to the sum of its lane.
#[inline(always)]
fn add_exponentials<S: Simd>(simd: S, logits: S::V, max: f32, count: usize, sums: &mut [f64; 16]) {
    let mut terms = [0.0; 16];
    simd.store(exp(simd, simd.sub(logits, simd.splat(max))), &mut terms);
    for (sum, term) in sums.iter_mut().zip(terms).take(count) {
        *sum += f64::from(term);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Stats, argmax};
    use crate::Isa;

    #[test]
    fn argmax_takes_the_first_of_equals_and_no_nan() {
        assert_eq!(argmax(&[1.0, 3.0, f32::NAN, 3.0]), Some(1));
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY, f32::NEG_INFINITY]), Some(1));
        assert_eq!(argmax(&[f32::NAN]), None);
        assert_eq!(argmax(&[]), None);
    }

    proptest! {
        #[test]
        fn statistics_match_f64_with_the_same_bits_everywhere(
            logits in prop::collection::vec(-40.0_f32..40.0, 1..200),
        ) {
            let exact = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            let first = Isa::detect().run(Stats(&logits));
            prop_assert_eq!(first.max, logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            prop_assert!((first.log_sum_exp - exact).abs() < 1e-6);
            for isa in Isa::available() {
                prop_assert_eq!(isa.run(Stats(&logits)), first);
            }
        }
    }
}
