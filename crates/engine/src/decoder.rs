//! One forward pass of a decoder-only transformer over a flattened batch.
//!
//! The batch is a list of spans, each some consecutive tokens of one sequence: a chunk of a prompt or one new token,
//! which are the same thing here. Every row of every intermediate is computed from its own token and the KV of its own
//! sequence, in an order of operations that does not depend on the other rows; that is why batching, chunking and
//! threads leave no trace in the result.

use std::sync::Arc;

use helios_kernels::{
    AttentionShape, KvPool, Projection, RopeStyle, RopeTable, Span, Team, attention, matmul, project,
    rms_norm, silu_mul,
};
use helios_types::TokenId;

use crate::weights::LayerWeights;
use crate::{Model, ModelConfig, RopeLayout};

/// Most rows that [`Decoder::logits`] computes at once: a row of a large vocabulary is half a megabyte.
pub(crate) const LOGIT_ROWS_MAX: usize = 32;

/// Rows that one thread takes at a time in steps that cost less than a microsecond a row.
const ROWS_PER_ITEM: usize = 4;

/// The model with its KV memory and its working memory.
pub(crate) struct Decoder {
    model: Arc<Model>,
    team: Arc<Team>,
    pool: KvPool,
    rope: RopeTable,
    work: Work,
}

/// Working memory, `[tokens, width]` f32 each; it grows to the largest step and stays.
#[derive(Default)]
struct Work {
    /// The residual stream.
    stream: Vec<f32>,
    /// The normalised stream.
    normed: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    activated: Vec<f32>,
    logits: Vec<f32>,
}

/// One batch: the tokens of all spans behind each other.
pub(crate) struct Batch<'a> {
    /// Which tokens.
    pub(crate) tokens: Vec<TokenId>,
    /// Where they stand, and the KV blocks of their sequences.
    pub(crate) spans: Vec<Span<'a>>,
}

impl Batch<'_> {
    /// The position of each token in its sequence.
    fn positions(&self) -> Vec<usize> {
        self.spans.iter().flat_map(|span| span.start..span.start + span.tokens).collect()
    }
}

impl Decoder {
    /// Takes `blocks` KV blocks, for sequences of up to `context_tokens`.
    pub(crate) fn new(model: Arc<Model>, team: Arc<Team>, blocks: usize, context_tokens: usize) -> Self {
        let config = model.config();
        let pool = KvPool::new(config.layers, blocks, config.kv_heads, config.head_dim);
        let rope = RopeTable::new(config.head_dim, f64::from(config.rope_theta), context_tokens);
        Self { model, team, pool, rope, work: Work::default() }
    }

    /// Runs all layers over the batch and writes its keys and values into its sequences' blocks.
    pub(crate) fn forward(&mut self, batch: &Batch<'_>) {
        let model = Arc::clone(&self.model);
        self.work.resize(model.config(), batch.tokens.len());
        self.embed(&batch.tokens);
        let positions = batch.positions();
        for (index, layer) in model.weights().layers.iter().enumerate() {
            self.attend(layer, index, batch, &positions);
            self.feed_forward(layer);
        }
    }

    /// The logits of some rows of the last batch: `[rows, vocab]`.
    pub(crate) fn logits(&mut self, rows: &[usize]) -> &[f32] {
        assert!(rows.len() <= LOGIT_ROWS_MAX, "{} rows of logits at once", rows.len());
        let (config, weights) = (self.model.config(), self.model.weights());
        let (hidden, eps) = (config.hidden, config.norm_eps);
        let Work { stream, normed, logits, .. } = &mut self.work;
        normed.resize(rows.len() * hidden, 0.0);
        for (&row, out) in rows.iter().zip(normed.chunks_exact_mut(hidden)) {
            rms_norm(&stream[row * hidden..][..hidden], &weights.output_norm, eps, out);
        }
        logits.resize(rows.len() * config.vocab, 0.0);
        matmul(&self.team, weights.output.view(), normed, logits, false);
        logits
    }

    fn embed(&mut self, tokens: &[TokenId]) {
        let embedding = self.model.weights().embedding.view();
        let hidden = embedding.cols();
        for_rows(&self.team, &mut self.work.stream, hidden, &|row, out| {
            embedding.dequantise_row(tokens[row] as usize, out);
        });
    }

    /// `stream += output(attention(norm(stream)))`.
    fn attend(&mut self, layer: &LayerWeights, index: usize, batch: &Batch<'_>, positions: &[usize]) {
        let config = self.model.config();
        let (team, work) = (&*self.team, &mut self.work);
        normalise(team, &work.stream, &layer.attention_norm, config, &mut work.normed);
        project(
            team,
            &work.normed,
            &mut [
                Projection { weights: layer.query.view(), y: &mut work.queries, accumulate: false },
                Projection { weights: layer.key.view(), y: &mut work.keys, accumulate: false },
                Projection { weights: layer.value.view(), y: &mut work.values, accumulate: false },
            ],
        );
        for (heads, width) in [(&mut work.queries, config.query_width()), (&mut work.keys, config.kv_width())]
        {
            let style = rope_style(config.rope_layout);
            for_rows(team, heads, width, &|row, heads| {
                self.rope.apply(style, positions[row], heads, config.head_dim);
            });
        }
        write_kv(&mut self.pool, index, batch, &work.keys, &work.values);
        let shape = AttentionShape { heads: config.heads, scale: 1.0 / (config.head_dim as f32).sqrt() };
        attention(team, &self.pool, index, shape, &batch.spans, &work.queries, &mut work.attended);
        matmul(team, layer.attention_output.view(), &work.attended, &mut work.stream, true);
    }

    /// `stream += down(silu(gate(norm(stream))) * up(norm(stream)))`.
    fn feed_forward(&mut self, layer: &LayerWeights) {
        let config = self.model.config();
        let (team, work) = (&*self.team, &mut self.work);
        normalise(team, &work.stream, &layer.ffn_norm, config, &mut work.normed);
        project(
            team,
            &work.normed,
            &mut [
                Projection { weights: layer.gate.view(), y: &mut work.gate, accumulate: false },
                Projection { weights: layer.up.view(), y: &mut work.up, accumulate: false },
            ],
        );
        let (gate, up, ffn) = (&work.gate, &work.up, config.ffn);
        for_rows(team, &mut work.activated, ffn, &|row, out| {
            silu_mul(&gate[row * ffn..][..ffn], &up[row * ffn..][..ffn], out);
        });
        matmul(team, layer.down.view(), &work.activated, &mut work.stream, true);
    }
}

impl Work {
    fn resize(&mut self, config: &ModelConfig, tokens: usize) {
        let widths = [
            (&mut self.stream, config.hidden),
            (&mut self.normed, config.hidden),
            (&mut self.queries, config.query_width()),
            (&mut self.keys, config.kv_width()),
            (&mut self.values, config.kv_width()),
            (&mut self.attended, config.query_width()),
            (&mut self.gate, config.ffn),
            (&mut self.up, config.ffn),
            (&mut self.activated, config.ffn),
        ];
        for (buffer, width) in widths {
            buffer.resize(tokens * width, 0.0);
        }
    }
}

/// Calls `body` with each row of `data: [rows, width]`, on all threads if there are enough rows to be worth a join.
fn for_rows(team: &Team, data: &mut [f32], width: usize, body: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    team.run_chunks(data, ROWS_PER_ITEM * width, &|item, rows| {
        for (index, row) in rows.chunks_exact_mut(width).enumerate() {
            body(item * ROWS_PER_ITEM + index, row);
        }
    });
}

fn normalise(team: &Team, x: &[f32], weight: &[f32], config: &ModelConfig, out: &mut [f32]) {
    let width = config.hidden;
    for_rows(team, out, width, &|row, out| {
        rms_norm(&x[row * width..][..width], weight, config.norm_eps, out)
    });
}

/// Stores the batch's keys and values of one layer in the slots of their positions.
fn write_kv(pool: &mut KvPool, layer: usize, batch: &Batch<'_>, keys: &[f32], values: &[f32]) {
    let width = pool.kv_heads() * pool.head_dim();
    let mut rows = keys.chunks_exact(width).zip(values.chunks_exact(width));
    for span in &batch.spans {
        for (position, (keys, values)) in (span.start..span.start + span.tokens).zip(&mut rows) {
            let block = span.blocks[position / helios_kernels::BLOCK_TOKENS];
            pool.write(layer, block, position % helios_kernels::BLOCK_TOKENS, keys, values);
        }
    }
}

fn rope_style(layout: RopeLayout) -> RopeStyle {
    match layout {
        RopeLayout::Interleaved => RopeStyle::Interleaved,
        RopeLayout::HalfSplit => RopeStyle::HalfSplit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_memory_is_what_the_configuration_says() {
        let config = br#"{"model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576,
            "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152}"#;
        let config = ModelConfig::from_hugging_face(config).expect("a configuration");
        let mut work = Work::default();
        for tokens in [1, 512] {
            work.resize(&config, tokens);
            work.logits.resize(LOGIT_ROWS_MAX * config.vocab, 0.0);
            let Work { stream, normed, queries, keys, values, attended, gate, up, activated, logits } = &work;
            let buffers = [stream, normed, queries, keys, values, attended, gate, up, activated, logits];
            let bytes: usize = buffers.iter().map(|buffer| size_of_val(buffer.as_slice())).sum();
            assert_eq!(bytes, config.activation_bytes(tokens, LOGIT_ROWS_MAX));
        }
    }
}
