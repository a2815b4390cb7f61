//! Attention against the formula in f64, and its bits against one token at a time.

use half::f16;
use helios_kernels::{AttentionShape, BLOCK_TOKENS, Isa, KvPool, Span, Team, attention_with};
use proptest::prelude::*;

use super::{bits, numbers};

const HEAD_DIM: usize = 32;
const LAYERS: usize = 2;
const LAYER: usize = 1;

/// Sequences in a shared pool, their blocks scattered in it, unused slots full of NaN.
struct Fixture {
    kv_heads: usize,
    shape: AttentionShape,
    pool: KvPool,
    /// Blocks, keys and values of each sequence, as stored.
    sequences: Vec<(Vec<u32>, Vec<f32>, Vec<f32>)>,
}

impl Fixture {
    fn new(kv_heads: usize, group: usize, lengths: &[usize], seed: u64) -> Self {
        let blocks: usize = lengths.iter().map(|length| length.div_ceil(BLOCK_TOKENS)).sum();
        let mut pool = KvPool::new(LAYERS, blocks, kv_heads, HEAD_DIM);
        for block in 0..blocks as u32 {
            pool.block_bytes_mut(block).fill(0xff);
        }
        let mut free: Vec<u32> = (0..blocks as u32).collect();
        free.sort_by_key(|block| (block * 7 + 3) % 11);
        let width = kv_heads * HEAD_DIM;
        let rounded = |values: Vec<f32>| values.iter().map(|v| f16::from_f32(v * 3.0).to_f32()).collect();
        let mut sequences = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            let keys: Vec<f32> = rounded(numbers(seed ^ (2 * index as u64 + 1), length * width));
            let values: Vec<f32> = rounded(numbers(seed ^ (2 * index as u64 + 2), length * width));
            let table = free.split_off(free.len() - length.div_ceil(BLOCK_TOKENS));
            for (t, (k, v)) in keys.chunks(width).zip(values.chunks(width)).enumerate() {
                pool.write(LAYER, table[t / BLOCK_TOKENS], t % BLOCK_TOKENS, k, v);
            }
            sequences.push((table, keys, values));
        }
        let shape = AttentionShape { heads: kv_heads * group, scale: 0.2 };
        Self { kv_heads, shape, pool, sequences }
    }

    fn run(&self, isa: Isa, team: &Team, spans: &[Span<'_>], queries: &[f32]) -> Vec<f32> {
        let mut out = vec![f32::NAN; queries.len()];
        attention_with(isa, team, &self.pool, LAYER, self.shape, spans, queries, &mut out);
        out
    }

    /// One head's output for a query that sees `context` tokens, in f64.
    fn exact(&self, sequence: usize, context: usize, head: usize, query: &[f32]) -> Vec<f64> {
        let (_, keys, values) = &self.sequences[sequence];
        let kv_head = head / (self.shape.heads / self.kv_heads);
        let row = |from: &[f32], t: usize| -> Vec<f64> {
            let start = (t * self.kv_heads + kv_head) * HEAD_DIM;
            from[start..start + HEAD_DIM].iter().map(|v| f64::from(*v)).collect()
        };
        let score = |t: usize| row(keys, t).iter().zip(query).map(|(k, q)| k * f64::from(*q)).sum::<f64>();
        let weights: Vec<f64> =
            (0..context).map(|t| (score(t) * f64::from(self.shape.scale)).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; HEAD_DIM];
        for (t, weight) in weights.iter().enumerate() {
            out.iter_mut().zip(row(values, t)).for_each(|(out, v)| *out += weight / sum * v);
        }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_way_gives_the_same_bits_and_the_formula(
        kv_heads in 1..4_usize,
        group in 1..9_usize,
        lengths in prop::collection::vec((1..80_usize, 0..80_usize), 1..4),
        seed: u64,
    ) {
        let ends: Vec<usize> = lengths.iter().map(|(length, _)| *length).collect();
        let fixture = Fixture::new(kv_heads, group, &ends, seed);
        let width = fixture.shape.heads * HEAD_DIM;
        let spans: Vec<Span<'_>> = lengths.iter().zip(&fixture.sequences).map(|((length, start), (blocks, ..))| {
            let start = start % length;
            Span { blocks, start, tokens: length - start }
        }).collect();
        let tokens: usize = spans.iter().map(|span| span.tokens).sum();
        let queries = numbers(seed ^ 99, tokens * width);
        let expected = fixture.run(Isa::detect(), &Team::new(1), &spans, &queries);
        for isa in Isa::available() {
            for threads in [1, 2, 3] {
                let team = Team::new(threads);
                prop_assert_eq!(bits(&fixture.run(isa, &team, &spans, &queries)), bits(&expected), "{:?}", isa);
            }
        }
        let mut token = 0;
        for (sequence, span) in spans.iter().enumerate() {
            for position in span.start..span.start + span.tokens {
                let (queries, expected) = (&queries[token * width..][..width], &expected[token * width..][..width]);
                let alone = Span { blocks: span.blocks, start: position, tokens: 1 };
                let result = fixture.run(Isa::detect(), &Team::new(1), &[alone], queries);
                prop_assert_eq!(bits(&result), bits(expected));
                for (head, (query, result)) in queries.chunks(HEAD_DIM).zip(result.chunks(HEAD_DIM)).enumerate() {
                    let exact = fixture.exact(sequence, position + 1, head, query);
                    for (result, exact) in result.iter().zip(exact) {
                        prop_assert!((f64::from(*result) - exact).abs() < 1e-5, "{} is not {}", result, exact);
                    }
                }
                token += 1;
            }
        }
    }
}

#[test]
fn nothing_to_do_is_fine() {
    let fixture = Fixture::new(1, 2, &[20], 5);
    assert!(fixture.run(Isa::detect(), &Team::new(2), &[], &[]).is_empty());
}

#[test]
#[should_panic(expected = "range end index 2")]
fn spans_beyond_their_blocks_are_refused() {
    let fixture = Fixture::new(1, 1, &[16], 5);
    let span = Span { blocks: &fixture.sequences[0].0, start: 16, tokens: 1 };
    fixture.run(Isa::detect(), &Team::new(1), &[span], &[0.0; HEAD_DIM]);
}
