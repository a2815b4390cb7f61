//! One block's contribution to the query rows that see it.

use crate::BLOCK_TOKENS;
use crate::exp::exp;
use crate::isa::Simd;
use crate::kv_pool::Halves;
use crate::unroll::unrolled;

/// Query rows that are computed together, so that keys and values are converted once for all of them.
pub(super) const ROWS_MAX: usize = 6;

/// One query head at one position, on its way through the blocks.
pub(super) struct Row<'a> {
    pub(super) query: &'a [f32],
    /// Sum of the values weighted with the exponentials.
    pub(super) out: &'a mut [f32],
    /// Tokens it sees.
    pub(super) context: usize,
    /// The greatest score so far.
    pub(super) max: f32,
    /// Sum of the exponentials of the scores, relative to `max`.
    pub(super) sum: f32,
}

/// The keys and values of one head in one block.
pub(super) struct Block<'a> {
    /// `[head_dim]` groups of 16 tokens.
    pub(super) keys: &'a [Halves],
    /// `[16 tokens, head_dim / 16]` groups of 16 elements.
    pub(super) values: &'a [Halves],
    pub(super) scale: f32,
    /// Position of the first token.
    pub(super) start: usize,
}

impl Block<'_> {
    /// Takes the block into all `rows` that see at least one of its tokens.
    #[inline(always)]
    pub(super) fn add_to<S: Simd>(&self, simd: S, rows: &mut [Row<'_>]) {
        if !rows.iter().all(|row| row.context >= self.start + BLOCK_TOKENS) {
            for row in rows {
                let seen = row.context.saturating_sub(self.start).min(BLOCK_TOKENS);
                if seen > 0 {
                    self.add_to_some::<S, 1>(simd, std::slice::from_mut(row), seen);
                }
            }
            return;
        }
        let mut rows = rows;
        while !rows.is_empty() {
            let count = [6, 4, 3, 2, 1].into_iter().find(|count| *count <= rows.len()).unwrap_or(1);
            let (some, rest) = rows.split_at_mut(count);
            match count {
                6 => self.add_to_some::<S, 6>(simd, some, BLOCK_TOKENS),
                4 => self.add_to_some::<S, 4>(simd, some, BLOCK_TOKENS),
                3 => self.add_to_some::<S, 3>(simd, some, BLOCK_TOKENS),
                2 => self.add_to_some::<S, 2>(simd, some, BLOCK_TOKENS),
                _ => self.add_to_some::<S, 1>(simd, some, BLOCK_TOKENS),
            }
            rows = rest;
        }
    }

    /// Takes the block's first `seen` tokens into exactly `R` rows.
    #[inline(always)]
    fn add_to_some<S: Simd, const R: usize>(&self, simd: S, rows: &mut [Row<'_>], seen: usize) {
        let rows: &mut [Row<'_>; R] = rows.try_into().expect("invariant: the match above counted the rows");
        let mut weights = self.scores(simd, rows, seen);
        let mut shrink = [0.0; 16];
        for r in 0..R {
            let max = simd.max_lane(simd.load(&weights[r]));
            let max = if rows[r].max > max { rows[r].max } else { max };
            shrink[r] = rows[r].max - max;
            rows[r].max = max;
        }
        simd.store(exp(simd, simd.load(&shrink)), &mut shrink);
        for r in 0..R {
            let exponentials = exp(simd, simd.sub(simd.load(&weights[r]), simd.splat(rows[r].max)));
            simd.store(exponentials, &mut weights[r]);
            rows[r].sum = rows[r].sum * shrink[r] + simd.sum(exponentials);
        }
        self.add_values(simd, rows, &weights, &shrink, seen);
    }

    /// The scaled scores of `R` rows with the 16 tokens; negative infinity for those not seen.
    #[inline(always)]
    fn scores<S: Simd, const R: usize>(&self, simd: S, rows: &[Row<'_>; R], seen: usize) -> [[f32; 16]; R] {
        let mut queries: [&[f32]; R] = [&[]; R];
        unrolled!(r < R, queries[r] = &rows[r].query[..self.keys.len()]);
        let mut sums = [simd.splat(0.0); R];
        for (d, keys) in self.keys.iter().enumerate() {
            let keys = simd.load_f16(keys);
            unrolled!(r < R, sums[r] = simd.fma(simd.splat(queries[r][d]), keys, sums[r]));
        }
        let mut scores = [[0.0; 16]; R];
        unrolled!(r < R, {
            simd.store(simd.mul(sums[r], simd.splat(self.scale)), &mut scores[r]);
            scores[r][seen..].fill(f32::NEG_INFINITY);
        });
        scores
    }

    /// `out = out * shrink + weights * values`, over the tokens in order.
    #[inline(always)]
    fn add_values<S: Simd, const R: usize>(
        &self,
        simd: S,
        rows: &mut [Row<'_>; R],
        weights: &[[f32; 16]; R],
        shrink: &[f32; 16],
        seen: usize,
    ) {
        let groups = self.values.len() / BLOCK_TOKENS;
        for group in 0..groups {
            let mut sums = [simd.splat(0.0); R];
            unrolled!(r < R, {
                sums[r] = simd.mul(simd.load(&rows[r].out.as_chunks().0[group]), simd.splat(shrink[r]));
            });
            for (token, values) in self.values.chunks_exact(groups).take(seen).enumerate() {
                let values = simd.load_f16(&values[group]);
                unrolled!(r < R, sums[r] = simd.fma(simd.splat(weights[r][token]), values, sums[r]));
            }
            unrolled!(r < R, simd.store(sums[r], &mut rows[r].out.as_chunks_mut().0[group]));
        }
    }
}
