//! The exponential function, the same bits on every instruction set.

use crate::isa::{Isa, Kernel, Simd};

/// Above, the result is infinite; 89 already is.
const INPUT_MAX: f32 = 89.0;
/// Below, the result rounds to zero; -104 already does.
const INPUT_MIN: f32 = -104.0;
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// The natural logarithm of 2 in two parts, the first with zeros at the end so that its multiples are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// `e^r = 1 + r + r^2 * P(r)` for `|r| <= ln(2) / 2`: the coefficients of P from the highest power down, by Moshier
/// (Cephes, `expf`).
const POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// `e^x` within 2 units in the last place; subnormal results included; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    let x = simd.max(simd.splat(INPUT_MIN), x);
    let x = simd.min(simd.splat(INPUT_MAX), x);
    let n = simd.round(simd.mul(x, simd.splat(LOG2_E)));
    let r = simd.fma(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.fma(n, simd.splat(-LN_2_LOW), r);
    let mut p = simd.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = simd.fma(p, r, simd.splat(*coefficient));
    }
    let p = simd.add(simd.fma(p, simd.mul(r, r), r), simd.splat(1.0));
    simd.scale_by_power(p, n)
}

/// Replaces each `x` by `e^x`: within 2 units in the last place, 0 below -104, infinite from 89, NaN for NaN.
pub fn exp_in_place(values: &mut [f32]) {
    Isa::detect().run(Exp(values));
}

struct Exp<'a>(&'a mut [f32]);

impl Kernel for Exp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (chunks, rest) = self.0.as_chunks_mut();
        for chunk in chunks {
            simd.store(exp(simd, simd.load(chunk)), chunk);
        }
        let last = exp(simd, simd.load_part(rest));
        simd.store_part(last, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::Exp;
    use crate::Isa;

    fn exp_on(isa: Isa, values: &[f32]) -> Vec<f32> {
        let mut values = values.to_vec();
        isa.run(Exp(&mut values));
        values
    }

    /// Every 1,009th f32 bit pattern, both signs, all magnitudes, NaN and infinities.
    fn samples() -> Vec<f32> {
        (0..=u32::MAX).step_by(1_009).map(f32::from_bits).collect()
    }

    #[test]
    fn all_instruction_sets_give_the_same_bits() {
        let samples = samples();
        let expected = exp_on(Isa::detect(), &samples);
        for isa in Isa::available() {
            for ((x, a), b) in samples.iter().zip(&expected).zip(exp_on(isa, &samples)) {
                assert!(
                    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                    "{isa:?}: exp({x}) {a} or {b}"
                );
            }
        }
    }

    #[test]
    fn results_are_within_two_units_in_the_last_place() {
        let samples = samples();
        for (x, result) in samples.iter().zip(exp_on(Isa::detect(), &samples)) {
            let exact = f64::from(*x).exp();
            let rounded = exact as f32;
            if x.is_nan() || rounded.is_infinite() {
                assert_eq!(result.to_bits(), (x + rounded).to_bits(), "exp({x})");
                continue;
            }
            let unit = f64::from(rounded.next_up()) - f64::from(rounded);
            assert!((f64::from(result) - exact).abs() <= 2.0 * unit, "exp({x}): {result}, not {exact}");
        }
    }

    #[test]
    fn edges_are_exact() {
        let inputs = [0.0, -0.0, f32::NEG_INFINITY, f32::INFINITY, -200.0, 88.7, 88.8, 1e-40];
        let results = exp_on(Isa::detect(), &inputs);
        assert_eq!(results[..5], [1.0, 1.0, 0.0, f32::INFINITY, 0.0]);
        assert!(results[5].is_finite() && results[6].is_infinite() && results[7] == 1.0);
        assert!(exp_on(Isa::detect(), &[f32::NAN])[0].is_nan());
    }
}
