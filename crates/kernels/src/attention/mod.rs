//! Causal attention over paged keys and values, one block of 16 tokens after the other.
//!
//! Online softmax (Milakov and Gimelshein, 2018): each query row keeps the greatest score so far, the sum of the
//! exponentials and the weighted sum of the values, and rescales them when a block brings a greater score. Blocks are
//! taken in order and never split, and within a block every sum has one order, so that a row's bits depend on its
//! query and its context alone.

#![allow(unsafe_code)]

mod block;

use block::{Block, ROWS_MAX, Row};

use crate::disjoint::Disjoint;
use crate::isa::{Kernel, Simd};
use crate::{BLOCK_TOKENS, Isa, KvPool, Team};

/// The shape of an attention layer; key and value heads and the size of a head are the pool's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads: a multiple of the pool's key and value heads.
    pub heads: usize,
    /// What scores are multiplied with, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// Consecutive query tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The sequence's blocks in order; those up to the last query's position are written.
    pub blocks: &'a [u32],
    /// Position of the first query token in the sequence.
    pub start: usize,
    /// Query tokens; the one at position `p` sees positions `0..=p`.
    pub tokens: usize,
}

/// Computes `out` for all tokens of all `spans`, one span after the other in `queries` and `out`, both
/// `[tokens, heads, head_dim]`.
///
/// # Panics
/// If the slices do not hold exactly the spans' tokens, a span's blocks do not reach its last token or are not in the
/// pool, or `heads` is not a multiple of the pool's.
pub fn attention(
    team: &Team,
    pool: &KvPool,
    layer: usize,
    shape: AttentionShape,
    spans: &[Span<'_>],
    queries: &[f32],
    out: &mut [f32],
) {
    attention_with(Isa::detect(), team, pool, layer, shape, spans, queries, out);
}

/// [`attention`] on a chosen instruction set.
///
/// # Panics
/// As [`attention`].
#[allow(clippy::too_many_arguments)]
pub fn attention_with(
    isa: Isa,
    team: &Team,
    pool: &KvPool,
    layer: usize,
    shape: AttentionShape,
    spans: &[Span<'_>],
    queries: &[f32],
    out: &mut [f32],
) {
    let width = shape.heads * pool.head_dim();
    let tokens: usize = spans.iter().map(|span| span.tokens).sum();
    assert!(shape.heads > 0 && shape.heads.is_multiple_of(pool.kv_heads()), "{} query heads", shape.heads);
    assert_eq!(queries.len(), tokens * width, "queries of {tokens} tokens");
    assert_eq!(out.len(), queries.len(), "outputs of {tokens} tokens");
    let group = shape.heads / pool.kv_heads();
    let items = items(spans, pool.kv_heads(), (ROWS_MAX / group).max(1));
    let layer = Layer { pool, layer, scale: shape.scale, group, width, queries, out: Disjoint::new(out) };
    team.run(items.len(), &|index| layer.compute(isa, &items[index]));
}

/// Some consecutive tokens of one span, for the query heads of one key and value head.
struct Item<'a> {
    blocks: &'a [u32],
    /// Position of the first token in its sequence.
    position: usize,
    /// The first token's place among all queries.
    token: usize,
    tokens: usize,
    kv_head: usize,
}

/// The items of all spans, each of up to `tokens_max` tokens; those with the longest contexts first, so that no
/// thread begins a long one at the end.
fn items<'a>(spans: &[Span<'a>], kv_heads: usize, tokens_max: usize) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    let mut first = 0;
    for span in spans {
        for offset in (0..span.tokens).step_by(tokens_max) {
            let tokens = tokens_max.min(span.tokens - offset);
            let (position, token) = (span.start + offset, first + offset);
            items.extend((0..kv_heads).map(|kv_head| Item {
                blocks: span.blocks,
                position,
                token,
                tokens,
                kv_head,
            }));
        }
        first += span.tokens;
    }
    items.sort_by_key(|item| std::cmp::Reverse(item.position));
    items
}

/// One call's inputs and output.
struct Layer<'a> {
    pool: &'a KvPool,
    layer: usize,
    scale: f32,
    /// Query heads of one key and value head.
    group: usize,
    /// Elements of a token's queries.
    width: usize,
    queries: &'a [f32],
    out: Disjoint<'a, f32>,
}

impl Layer<'_> {
    fn compute(&self, isa: Isa, item: &Item<'_>) {
        let mut rows: Vec<Row<'_>> =
            (0..item.tokens * self.group).map(|index| self.row(item, index)).collect();
        for rows in rows.chunks_mut(ROWS_MAX) {
            isa.run(Rows { layer: self, item, rows });
        }
    }

    fn row(&self, item: &Item<'_>, index: usize) -> Row<'_> {
        let (token, head) = (index / self.group, item.kv_head * self.group + index % self.group);
        let head_dim = self.pool.head_dim();
        let start = (item.token + token) * self.width + head * head_dim;
        // SAFETY: items differ in their tokens or their heads, and so do the rows of an item.
        let out = unsafe { self.out.part(start..start + head_dim) };
        out.fill(0.0);
        let query = &self.queries[start..start + head_dim];
        Row { query, out, context: item.position + token + 1, max: f32::NEG_INFINITY, sum: 0.0 }
    }
}

/// Up to [`ROWS_MAX`] rows of an item.
struct Rows<'a> {
    layer: &'a Layer<'a>,
    item: &'a Item<'a>,
    rows: &'a mut [Row<'a>],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Layer { pool, layer, scale, .. } = *self.layer;
        let context = self.rows.iter().map(|row| row.context).max().unwrap_or(0);
        for (index, block) in self.item.blocks[..context.div_ceil(BLOCK_TOKENS)].iter().enumerate() {
            let keys = pool.keys(layer, *block, self.item.kv_head);
            let values = pool.values(layer, *block, self.item.kv_head);
            Block { keys, values, scale, start: index * BLOCK_TOKENS }.add_to(simd, self.rows);
        }
        for row in self.rows {
            let inverse = 1.0 / row.sum;
            row.out.iter_mut().for_each(|out| *out *= inverse);
        }
    }
}
