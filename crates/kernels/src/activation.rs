//! Elementwise steps between the products of a block.

use crate::exp::exp;
use crate::isa::{Isa, Kernel, Simd};

/// `y[i] += x[i]`: residuals and biases.
///
/// # Panics
/// If the slices differ in length.
pub fn add(y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len(), "terms of a sum");
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// `out[i] = silu(gate[i]) * up[i]` with `silu(g) = g / (1 + e^-g)`.
///
/// # Panics
/// If the slices differ in length.
pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
    Isa::detect().run(SiluMul { gate, up, out });
}

struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        assert_eq!(self.gate.len(), self.up.len(), "gates and inputs");
        assert_eq!(self.gate.len(), self.out.len(), "gates and outputs");
        let (gates, last_gate) = self.gate.as_chunks();
        let (ups, last_up) = self.up.as_chunks();
        let (outs, last_out) = self.out.as_chunks_mut();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            simd.store(silu_times(simd, simd.load(gate), simd.load(up)), out);
        }
        let last = silu_times(simd, simd.load_part(last_gate), simd.load_part(last_up));
        simd.store_part(last, last_out);
    }
}

#[inline(always)]
fn silu_times<S: Simd>(simd: S, gate: S::V, up: S::V) -> S::V {
    let negative = simd.sub(simd.splat(0.0), gate);
    let silu = simd.div(gate, simd.add(simd.splat(1.0), exp(simd, negative)));
    simd.mul(silu, up)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SiluMul, add};
    use crate::Isa;

    #[test]
    fn sums_add_in_place() {
        let mut y = [1.0, 2.0, 3.0];
        add(&mut y, &[0.5, -2.0, 4.0]);
        assert_eq!(y, [1.5, 0.0, 7.0]);
    }

    proptest! {
        #[test]
        fn silu_matches_the_formula_with_the_same_bits_everywhere(
            row in prop::collection::vec((-100.0_f32..100.0, -2.0_f32..2.0), 1..70),
        ) {
            let (gate, up): (Vec<f32>, Vec<f32>) = row.into_iter().unzip();
            let results: Vec<Vec<f32>> = Isa::available().into_iter().map(|isa| {
                let mut out = vec![0.0; gate.len()];
                isa.run(SiluMul { gate: &gate, up: &up, out: &mut out });
                out
            }).collect();
            for i in 0..gate.len() {
                let g = f64::from(gate[i]);
                let exact = g / (1.0 + (-g).exp()) * f64::from(up[i]);
                prop_assert!((f64::from(results[0][i]) - exact).abs() <= 1e-6 * exact.abs() + 1e-30);
                for other in &results {
                    prop_assert_eq!(results[0][i].to_bits(), other[i].to_bits());
                }
            }
        }
    }
}
