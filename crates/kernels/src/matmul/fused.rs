//! The product for few tokens: each stored weight is read once, decoded in registers and used for all tokens.

use std::ops::Range;

use super::{Activations, Part};
use crate::Isa;
use crate::decode::{Decode, steps, with_format};
use crate::isa::{Kernel, Simd};
use crate::unroll::unrolled;

/// The most tokens this loop takes.
pub(super) const TOKENS_MAX: usize = 1;

/// Rows computed together, so that enough additions are under way to hide their latency.
const ROWS: usize = 4;

pub(super) fn compute(isa: Isa, part: &Part<'_>, x: &Activations<'_>, rows: Range<usize>) {
    isa.run(Fused { part, x, rows });
}

struct Fused<'a> {
    part: &'a Part<'a>,
    x: &'a Activations<'a>,
    rows: Range<usize>,
}

impl Kernel for Fused<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        with_format!(self.part.weights.format(), all_rows::<S>(simd, self.part, self.x, self.rows));
    }
}

#[inline(always)]
fn all_rows<S: Simd, F: Decode<N>, const N: usize>(
    simd: S,
    part: &Part<'_>,
    x: &Activations<'_>,
    rows: Range<usize>,
) {
    for t in 0..x.tokens {
        let x = x.token(t);
        let mut row = rows.start;
        while row + ROWS <= rows.end {
            some_rows::<S, F, N, ROWS>(simd, part, x, t, row);
            row += ROWS;
        }
        while row < rows.end {
            some_rows::<S, F, N, 1>(simd, part, x, t, row);
            row += 1;
        }
    }
}

#[inline(always)]
fn some_rows<S: Simd, F: Decode<N>, const N: usize, const R: usize>(
    simd: S,
    part: &Part<'_>,
    x: &[[f32; 16]],
    t: usize,
    row: usize,
) {
    let mut stored: [&[u8]; R] = [&[]; R];
    unrolled!(r < R, stored[r] = part.weights.row(row + r));
    let dots = dot::<S, F, N, R>(simd, stored, x);
    // SAFETY: this item is the only one with these rows.
    unsafe { part.y.write(t, row..row + R, &dots) };
}

/// Dot products of `R` stored rows with one token.
#[inline(always)]
fn dot<S: Simd, F: Decode<N>, const N: usize, const R: usize>(
    simd: S,
    stored: [&[u8]; R],
    x: &[[f32; 16]],
) -> [f32; R] {
    let mut sums = [simd.splat(0.0); R];
    let (x, _) = x.as_chunks::<2>();
    let whole_steps = stored[0].len() / N;
    let mut rows: [&[[u8; N]]; R] = [&[]; R];
    unrolled!(r < R, rows[r] = &steps::<N>(stored[r]).0[..whole_steps]);
    for (step, x) in x[..whole_steps].iter().enumerate() {
        let x = [simd.load(&x[0]), simd.load(&x[1])];
        unrolled!(r < R, sums[r] = add_step::<S, F, N>(simd, &rows[r][step], x, sums[r]));
    }
    if let Some(x) = x.get(whole_steps) {
        let x = [simd.load(&x[0]), simd.load(&x[1])];
        unrolled!(r < R, {
            if let Some(last) = steps::<N>(stored[r]).1 {
                sums[r] = add_step::<S, F, N>(simd, &last, x, sums[r]);
            }
        });
    }
    let mut dots = [0.0; R];
    unrolled!(r < R, dots[r] = simd.sum(sums[r]));
    dots
}

#[inline(always)]
fn add_step<S: Simd, F: Decode<N>, const N: usize>(simd: S, step: &[u8; N], x: [S::V; 2], sum: S::V) -> S::V {
    let [low, high] = F::decode(simd, step);
    simd.fma(high, x[1], simd.fma(low, x[0], sum))
}
