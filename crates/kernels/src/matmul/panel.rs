//! The product for many tokens: a panel of rows is decoded once, then multiplied tile by tile.
//!
//! The panel stays in the second-level cache and a tile's tokens in the first; the accumulators of a tile stay in
//! registers from the first column to the last.

use std::cell::RefCell;
use std::ops::Range;

use super::{Activations, Part};
use crate::Isa;
use crate::decode::{Decode, Group, decode_row, with_format};
use crate::isa::{Kernel, Simd};
use crate::unroll::unrolled;

/// Rows of the largest tile; items are whole numbers of it.
pub(super) const ROWS: usize = 4;

thread_local! {
    /// The decoded panel of this thread: some 256 KiB, kept from item to item.
    static PANEL: RefCell<Vec<Group>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn compute(isa: Isa, part: &Part<'_>, x: &Activations<'_>, rows: Range<usize>) {
    let groups = rows.len() * x.padded_cols / 16;
    PANEL.with_borrow_mut(|panel| {
        if panel.len() < groups {
            panel.resize(groups, Group::ZERO);
        }
        isa.run(Panel { part, x, rows, groups: &mut panel[..groups] });
    });
}

struct Panel<'a> {
    part: &'a Part<'a>,
    x: &'a Activations<'a>,
    rows: Range<usize>,
    groups: &'a mut [Group],
}

impl Kernel for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        with_format!(self.part.weights.format(), decode_panel::<S>(simd, &mut self));
        if S::MANY_REGISTERS {
            self.multiply::<S, 4, 6>(simd);
        } else {
            self.multiply::<S, 2, 2>(simd);
        }
    }
}

#[inline(always)]
fn decode_panel<S: Simd, F: Decode<N>, const N: usize>(simd: S, panel: &mut Panel<'_>) {
    let out = panel.groups.chunks_exact_mut(panel.x.padded_cols / 16);
    for (row, out) in panel.rows.clone().zip(out) {
        decode_row::<S, F, N>(simd, panel.part.weights.row(row), out);
    }
}

impl Panel<'_> {
    /// All tokens times all rows, in tiles of `R` rows and `T` tokens and smaller ones at the edges.
    #[inline(always)]
    fn multiply<S: Simd, const R: usize, const T: usize>(&self, simd: S) {
        let mut t = 0;
        while t + T <= self.x.tokens {
            self.token_tile::<S, R, T>(simd, t);
            t += T;
        }
        while t + 2 <= self.x.tokens {
            self.token_tile::<S, R, 2>(simd, t);
            t += 2;
        }
        if t < self.x.tokens {
            self.token_tile::<S, R, 1>(simd, t);
        }
    }

    #[inline(always)]
    fn token_tile<S: Simd, const R: usize, const T: usize>(&self, simd: S, t: usize) {
        let mut row = 0;
        while row + R <= self.rows.len() {
            self.tile::<S, R, T>(simd, row, t);
            row += R;
        }
        while row < self.rows.len() {
            self.tile::<S, 1, T>(simd, row, t);
            row += 1;
        }
    }

    /// The dot products of rows `row..row + R` of the panel with tokens `t..t + T`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const T: usize>(&self, simd: S, row: usize, t: usize) {
        let groups = self.x.padded_cols / 16;
        let mut w: [&[Group]; R] = [&[]; R];
        unrolled!(r < R, w[r] = &self.groups[(row + r) * groups..][..groups]);
        let mut x: [&[[f32; 16]]; T] = [&[]; T];
        unrolled!(i < T, x[i] = &self.x.token(t + i)[..groups]);
        let sums = multiply_tile::<S, R, T>(simd, groups, w, x);
        let first = self.rows.start + row;
        unrolled!(i < T, {
            let mut dots = [0.0; R];
            unrolled!(r < R, dots[r] = simd.sum(sums[i][r]));
            // SAFETY: this item is the only one with these rows.
            unsafe { self.part.y.write(t + i, first..first + R, &dots) };
        });
    }
}

/// The lanes of each dot product, by token and row.
#[inline(always)]
fn multiply_tile<S: Simd, const R: usize, const T: usize>(
    simd: S,
    groups: usize,
    w: [&[Group]; R],
    x: [&[[f32; 16]]; T],
) -> [[S::V; R]; T] {
    let mut sums = [[simd.splat(0.0); R]; T];
    for k in 0..groups {
        let mut weights = [simd.splat(0.0); R];
        unrolled!(r < R, weights[r] = simd.load(&w[r][k].0));
        unrolled!(t < T, {
            let x = simd.load(&x[t][k]);
            unrolled!(r < R, sums[t][r] = simd.fma(weights[r], x, sums[t][r]));
        });
    }
    sums
}
