//! Root-mean-square normalisation.

use crate::isa::{Isa, Kernel, Simd};

/// `out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]`.
///
/// # Panics
/// If the three slices differ in length.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    Isa::detect().run(RmsNorm { x, weight, eps, out });
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        assert_eq!(self.x.len(), self.weight.len(), "weights of a normalised row");
        assert_eq!(self.x.len(), self.out.len(), "outputs of a normalised row");
        let mean = sum_of_squares(simd, self.x) / self.x.len() as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        for ((out, x), weight) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = x * scale * weight;
        }
    }
}

#[inline(always)]
fn sum_of_squares<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (groups, rest) = x.as_chunks();
    let mut sums = simd.splat(0.0);
    for group in groups {
        let x = simd.load(group);
        sums = simd.fma(x, x, sums);
    }
    let last = simd.load_part(rest);
    simd.sum(simd.fma(last, last, sums))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::RmsNorm;
    use crate::Isa;

    proptest! {
        #[test]
        fn rows_match_the_formula_with_the_same_bits_everywhere(
            row in prop::collection::vec((-4.0_f32..4.0, -2.0_f32..2.0), 1..100),
        ) {
            let (x, weight): (Vec<f32>, Vec<f32>) = row.into_iter().unzip();
            let results: Vec<Vec<f32>> = Isa::available().into_iter().map(|isa| {
                let mut out = vec![0.0; x.len()];
                isa.run(RmsNorm { x: &x, weight: &weight, eps: 1e-5, out: &mut out });
                out
            }).collect();
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64;
            for i in 0..x.len() {
                let exact = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                prop_assert!((f64::from(results[0][i]) - exact).abs() <= 1e-6 * (1.0 + exact.abs()));
                for other in &results {
                    prop_assert_eq!(results[0][i].to_bits(), other[i].to_bits());
                }
            }
        }
    }
}
