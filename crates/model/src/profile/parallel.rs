//! What one rank holds: weights, KV and activations at every precision and parallel degree.
//!
//! Tensor-parallel ranks divide matrices by rows or columns and KV by whole heads (more ranks than KV heads: each keeps
//! one); vectors are on every rank. Pipeline stages divide layers; the first has the embedding, the last the output. All
//! shares round up, so that the figures are bounds.

use serde::{Deserialize, Serialize};

use super::{ModelShape, ProfileDetails, Weights};

/// Tokens whose KV is allocated together.
pub const BLOCK_TOKENS: u64 = 16;
/// The tensor-parallel degrees that a profile lists.
pub(crate) const DEGREES: [u64; 4] = [1, 2, 4, 8];

/// How weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As the files have them.
    Stored,
    /// 4 bytes each.
    F32,
    /// 2 bytes each: f16 or bf16.
    F16,
    /// Blocks of 32 bytes and a scale (`Q8_0`); vectors in f32.
    Int8,
    /// Blocks of 16 bytes and a scale (`Q4_0`); vectors in f32.
    Int4,
}

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvPrecision {
    /// 4 bytes an element.
    F32,
    /// 2 bytes: f16 or bf16.
    F16,
    /// 1 byte: fp8 or int8.
    Int8,
}

/// How many ranks share a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degrees {
    /// Ranks that share every layer.
    pub tensor: u64,
    /// Stages that share the layers.
    pub pipeline: u64,
}

/// One line of a profile's table: the fullest rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankNeeds {
    /// How weights are held.
    pub precision: Precision,
    /// How many ranks there are.
    pub degrees: Degrees,
    /// Weights of the fullest rank.
    pub weight_bytes: u64,
    /// KV of one token in f16.
    pub kv_bytes_per_token: u64,
    /// Peak of working memory for a step of [`STEP_TOKENS`] tokens that samples one.
    pub activation_bytes: u64,
}

/// Tokens of a step in tables; the native engine's limit.
pub const STEP_TOKENS: u64 = 512;

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 5] = [Self::Stored, Self::F32, Self::F16, Self::Int8, Self::Int4];

    /// The name in flags and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    fn matrix_bytes(self, weights: Weights) -> u64 {
        const BLOCK: u64 = 32;
        match self {
            Self::Stored => weights.bytes,
            Self::F32 => 4 * weights.elements,
            Self::F16 => 2 * weights.elements,
            Self::Int8 => 34 * weights.elements.div_ceil(BLOCK),
            Self::Int4 => 18 * weights.elements.div_ceil(BLOCK),
        }
    }

    fn vector_bytes(self, weights: Weights) -> u64 {
        match self {
            Self::Stored => weights.bytes,
            Self::F16 => 2 * weights.elements,
            Self::F32 | Self::Int8 | Self::Int4 => 4 * weights.elements,
        }
    }
}

impl KvPrecision {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }
}

impl Degrees {
    /// One rank.
    pub const ONE: Self = Self { tensor: 1, pipeline: 1 };

    /// All ranks together.
    pub fn ranks(self) -> u64 {
        self.tensor * self.pipeline
    }

    /// Whether a model can be divided so: whole heads and whole layers.
    pub(crate) fn divide(self, shape: &ModelShape) -> bool {
        let whole_heads = shape.heads.is_multiple_of(self.tensor);
        let whole_groups =
            shape.kv_heads.is_multiple_of(self.tensor) || self.tensor.is_multiple_of(shape.kv_heads);
        self.tensor > 0 && (1..=shape.layers).contains(&self.pipeline) && whole_heads && whole_groups
    }

    fn stage_layers(self, shape: &ModelShape) -> u64 {
        shape.layers.div_ceil(self.pipeline)
    }

    fn kv_heads(self, shape: &ModelShape) -> u64 {
        shape.kv_heads.div_ceil(self.tensor)
    }
}

impl ProfileDetails {
    /// Weights of the fullest rank.
    pub fn weight_bytes(&self, precision: Precision, degrees: Degrees) -> u64 {
        let (shape, parts) = (&self.shape, &self.parts);
        let of_stage = |bytes: u64| (bytes * degrees.stage_layers(shape)).div_ceil(shape.layers);
        let divided = |part: Weights| precision.matrix_bytes(part).div_ceil(degrees.tensor);
        let kv_bytes = precision.matrix_bytes(parts.kv_projections);
        let layers = of_stage(divided(parts.matrices))
            + of_stage((kv_bytes * degrees.kv_heads(shape)).div_ceil(shape.kv_heads))
            + of_stage(precision.vector_bytes(parts.vectors));
        let (embedding, output) = (divided(parts.embedding), divided(parts.output));
        if degrees.pipeline == 1 {
            return layers + embedding + output;
        }
        // A tied output is the embedding, which the last stage then needs a copy of.
        let last = if parts.output.elements == 0 { embedding } else { output };
        layers + embedding.max(last)
    }

    /// The table: every precision at every degree that divides the model.
    pub fn table(&self) -> Vec<RankNeeds> {
        let mut rows = Vec::new();
        for precision in Precision::ALL {
            for tensor in DEGREES {
                let degrees = Degrees { tensor, pipeline: 1 };
                if degrees.divide(&self.shape) {
                    rows.push(self.rank_needs(precision, degrees));
                }
            }
        }
        rows
    }

    /// One line of the table.
    pub(crate) fn rank_needs(&self, precision: Precision, degrees: Degrees) -> RankNeeds {
        RankNeeds {
            precision,
            degrees,
            weight_bytes: self.weight_bytes(precision, degrees),
            kv_bytes_per_token: self.shape.kv_bytes(1, KvPrecision::F16, degrees) / BLOCK_TOKENS,
            activation_bytes: self.shape.activation_bytes(STEP_TOKENS, 1, degrees),
        }
    }
}

impl ModelShape {
    /// KV of one sequence of `tokens` on the fullest rank, in whole blocks; layers with a window keep no more than it.
    pub fn kv_bytes(&self, tokens: u64, precision: KvPrecision, degrees: Degrees) -> u64 {
        let blocks = |tokens: u64| tokens.next_multiple_of(BLOCK_TOKENS);
        let windowed = self.window.map_or(0, |window| window.layers);
        let kept = self.window.map_or(0, |window| blocks(tokens.min(window.tokens)));
        let layer_tokens = (self.layers - windowed) * blocks(tokens) + windowed * kept;
        let of_stage = (layer_tokens * degrees.stage_layers(self)).div_ceil(self.layers);
        of_stage * self.kv_bytes_per_layer_token(precision, degrees.kv_heads(self))
    }

    /// Peak of working memory on one rank, in float32, for a step of `step_tokens` that samples `sequences` of them: the
    /// residual stream three times, queries and their result, keys and values, both halves of the feed-forward layer,
    /// and the logits, which every rank gathers.
    pub fn activation_bytes(&self, step_tokens: u64, sequences: u64, degrees: Degrees) -> u64 {
        const F32_BYTES: u64 = 4;
        let divided = 2 * self.heads * self.head_dim / degrees.tensor
            + 2 * degrees.kv_heads(self) * self.head_dim
            + 2 * self.ffn.div_ceil(degrees.tensor);
        F32_BYTES * (step_tokens * (3 * self.hidden + divided) + sequences * self.vocab)
    }
}
