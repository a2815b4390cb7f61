//! Activations times stored weights: `y[t][r] = dot(dequantised w[r], x[t])`.
//!
//! Two loops give the same bits. For few tokens, [`fused`] decodes weights in registers and uses them at once; for
//! many, [`panel`] decodes a panel of rows into a buffer and multiplies tiles of it with tiles of tokens. Threads
//! share out rows; a dot product is never split.

#![allow(unsafe_code)]

mod fused;
mod panel;

use std::borrow::Cow;
use std::ops::Range;

use crate::disjoint::Disjoint;
use crate::{Isa, Team, WeightMatrix};

/// One product of a [`project`] call.
pub struct Projection<'a> {
    /// The weights, `[rows, cols]`.
    pub weights: WeightMatrix<'a>,
    /// The result, `[tokens, rows]` f32.
    pub y: &'a mut [f32],
    /// Whether the product is added to what `y` holds instead of replacing it.
    pub accumulate: bool,
}

/// Multiplies `x: [tokens, cols]` with `weights: [rows, cols]` into `y: [tokens, rows]`, replacing it or, if
/// `accumulate`, adding to it after each dot product is finished.
///
/// # Panics
/// If `x` is not whole rows of `weights.cols()` or `y` not as many of `weights.rows()`.
pub fn matmul(team: &Team, weights: WeightMatrix<'_>, x: &[f32], y: &mut [f32], accumulate: bool) {
    matmul_with(Isa::detect(), team, weights, x, y, accumulate);
}

/// [`matmul`] on a chosen instruction set.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_with(
    isa: Isa,
    team: &Team,
    weights: WeightMatrix<'_>,
    x: &[f32],
    y: &mut [f32],
    accumulate: bool,
) {
    project_with(isa, team, x, &mut [Projection { weights, y, accumulate }]);
}

/// Several products of the same `x` as one run of the team: query, key and value, or gate and up.
///
/// # Panics
/// As [`matmul`], for any of the products.
pub fn project(team: &Team, x: &[f32], products: &mut [Projection<'_>]) {
    project_with(Isa::detect(), team, x, products);
}

fn project_with(isa: Isa, team: &Team, x: &[f32], products: &mut [Projection<'_>]) {
    let Some(cols) = products.first().map(|product| product.weights.cols()) else { return };
    let x = Activations::new(x, cols);
    let parts: Vec<Part<'_>> =
        products.iter_mut().map(|product| Part::new(product, &x, team.threads())).collect();
    let items = parts.iter().map(Part::items).sum();
    team.run(items, &|mut item| {
        for part in &parts {
            if item < part.items() {
                return part.compute(isa, &x, item);
            }
            item -= part.items();
        }
    });
}

/// The tokens' inputs, each row filled up with zeros to whole steps of 32.
struct Activations<'a> {
    tokens: usize,
    cols: usize,
    padded_cols: usize,
    values: Cow<'a, [f32]>,
}

impl<'a> Activations<'a> {
    fn new(x: &'a [f32], cols: usize) -> Self {
        assert!(cols > 0 && x.len().is_multiple_of(cols), "{} inputs are not rows of {cols}", x.len());
        let tokens = x.len() / cols;
        let padded_cols = cols.next_multiple_of(32);
        if padded_cols == cols {
            return Self { tokens, cols, padded_cols, values: Cow::Borrowed(x) };
        }
        let mut values = vec![0.0; tokens * padded_cols];
        for (to, from) in values.chunks_exact_mut(padded_cols).zip(x.chunks_exact(cols)) {
            to[..cols].copy_from_slice(from);
        }
        Self { tokens, cols, padded_cols, values: Cow::Owned(values) }
    }

    /// Token `t` in groups of sixteen.
    #[inline(always)]
    fn token(&self, t: usize) -> &[[f32; 16]] {
        self.values[t * self.padded_cols..][..self.padded_cols].as_chunks().0
    }
}

/// One product while it is computed.
struct Part<'a> {
    weights: WeightMatrix<'a>,
    y: Output<'a>,
    rows_per_item: usize,
}

/// Where results go: `[tokens, rows]`.
struct Output<'a> {
    y: Disjoint<'a, f32>,
    rows: usize,
    accumulate: bool,
}

impl<'a> Part<'a> {
    fn new(product: &'a mut Projection<'_>, x: &Activations<'_>, threads: usize) -> Self {
        let weights = product.weights;
        assert_eq!(weights.cols(), x.cols, "columns of a product's weights");
        assert_eq!(product.y.len(), x.tokens * weights.rows(), "outputs of {} tokens", x.tokens);
        let y = Output { y: Disjoint::new(product.y), rows: weights.rows(), accumulate: product.accumulate };
        Self { weights, y, rows_per_item: rows_per_item(weights.rows(), x.padded_cols, threads) }
    }

    fn items(&self) -> usize {
        self.weights.rows().div_ceil(self.rows_per_item)
    }

    fn compute(&self, isa: Isa, x: &Activations<'_>, item: usize) {
        let start = item * self.rows_per_item;
        let rows = start..self.weights.rows().min(start + self.rows_per_item);
        if x.tokens <= fused::TOKENS_MAX {
            fused::compute(isa, self, x, rows);
        } else {
            panel::compute(isa, self, x, rows);
        }
    }
}

impl Output<'_> {
    /// Takes the finished dot products of consecutive rows with token `t`.
    ///
    /// # Safety
    /// No other thread writes these rows at the same time.
    #[inline(always)]
    unsafe fn write(&self, t: usize, rows: Range<usize>, dots: &[f32]) {
        let start = t * self.rows;
        // SAFETY: what the caller promises, carried over to this token's row of `y`.
        let y = unsafe { self.y.part(start + rows.start..start + rows.end) };
        if self.accumulate {
            y.iter_mut().zip(dots).for_each(|(y, dot)| *y += dot);
        } else {
            y.copy_from_slice(dots);
        }
    }
}

/// Rows of one item: a decoded panel of them fits a quarter of a second-level cache of 1 MiB, four items or more for
/// each thread where there are enough rows, and whole tiles.
fn rows_per_item(rows: usize, cols: usize, threads: usize) -> usize {
    const PANEL_FLOATS: usize = 64 * 1024;
    let fitting = PANEL_FLOATS / cols;
    fitting.min(64).min(rows / (4 * threads)).max(panel::ROWS).next_multiple_of(panel::ROWS)
}
