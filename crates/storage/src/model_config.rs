//! What a decoder is built from: the numbers and conventions of one model, read from either kind of model file.
//!
//! Reading refuses what the decoder does not implement instead of computing something else: every field that would
//! change the arithmetic is looked at.

mod gguf;
mod hugging_face;

use std::ops::RangeInclusive;

use helios_types::{Classify, ErrorCode, TensorType};
use serde::{Deserialize, Serialize};

use crate::StorageError;

/// The architectures that the decoder implements.
const ARCHITECTURES: &str = "llama";

/// The element types that the decoder computes with.
pub const NATIVE_TENSOR_TYPES: [TensorType; 6] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q8_0,
    TensorType::Q4_0,
    TensorType::Q4_1,
];

/// The KV cache stores heads in vectors of this many elements.
const HEAD_DIM_STEP: usize = 16;

/// Shape and conventions of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The family, such as `llama`.
    pub architecture: String,
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Longest sequence the model was made for.
    pub context_tokens: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Which elements of a head rotate together.
    pub rope_layout: RopeLayout,
    /// Added to the mean square in norms.
    pub norm_eps: f32,
    /// Whether the output projection is the embedding.
    pub tied_embeddings: bool,
    /// How tensors are named.
    pub names: NameScheme,
}

/// Which elements of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeLayout {
    /// Elements `2i` and `2i + 1`: GGUF files of the llama family, whose projections are permuted for it.
    Interleaved,
    /// Elements `i` and `i + head_dim / 2`: Hugging Face checkpoints.
    HalfSplit,
}

/// How a checkpoint names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameScheme {
    /// `blk.0.attn_q.weight`.
    Gguf,
    /// `model.layers.0.self_attn.q_proj.weight`.
    HuggingFace,
}

impl ModelConfig {
    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together, and of all value heads.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// KV memory of one token: keys and values of every layer in f16.
    pub fn kv_bytes_per_token(&self) -> usize {
        const KEY_AND_VALUE: usize = 2;
        const F16_BYTES: usize = 2;
        self.layers * KEY_AND_VALUE * self.kv_width() * F16_BYTES
    }

    /// Peak of working memory for a step of `step_tokens` tokens that samples up to `sequences_max` of them, above
    /// weights and KV: the stream and its norm, queries and their result, keys, values, both halves of the feed-forward
    /// layer and their product, and the logits.
    pub fn activation_bytes(&self, step_tokens: usize, sequences_max: usize) -> usize {
        let per_token = 2 * self.hidden + 2 * self.query_width() + 2 * self.kv_width() + 3 * self.ffn;
        size_of::<f32>() * (step_tokens * per_token + sequences_max * self.vocab)
    }

    /// Refuses numbers that no model of the family can have. `fields` gives each number the name it has in `file`.
    fn validate(self, file: &str, fields: &FieldNames) -> Result<Self, ModelConfigError> {
        let ranges: [(usize, &'static str, RangeInclusive<usize>); 8] = [
            (self.layers, fields.layers, 1..=1024),
            (self.hidden, fields.hidden, 1..=1 << 17),
            (self.ffn, fields.ffn, 1..=1 << 20),
            (self.heads, fields.heads, 1..=1024),
            (self.kv_heads, fields.kv_heads, 1..=1024),
            (self.head_dim, fields.head_dim, 1..=1024),
            (self.vocab, fields.vocab, 1..=1 << 22),
            (self.context_tokens, fields.context_tokens, 1..=1 << 24),
        ];
        let bad = |field: &str, problem: String| {
            Err(ModelConfigError::Invalid { file: file.to_owned(), field: field.to_owned(), problem })
        };
        for (value, field, range) in ranges {
            if !range.contains(&value) {
                return bad(field, format!("is {value}, expected {} to {}", range.start(), range.end()));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return bad(
                fields.heads,
                format!("is {}, no multiple of {} key-value heads", self.heads, self.kv_heads),
            );
        }
        if !self.head_dim.is_multiple_of(HEAD_DIM_STEP) {
            return bad(fields.head_dim, format!("is {}, no multiple of {HEAD_DIM_STEP}", self.head_dim));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return bad(fields.rope_theta, format!("is {}, expected a number above 0", self.rope_theta));
        }
        if !(0.0..1.0).contains(&self.norm_eps) {
            return bad(fields.norm_eps, format!("is {}, expected at least 0 and below 1", self.norm_eps));
        }
        Ok(self)
    }
}

/// Why no decoder can be built from a file.
#[derive(Debug, thiserror::Error)]
pub enum ModelConfigError {
    /// The model's architecture or one of its features is not implemented.
    #[error("{file}: `{field}` is `{value}`, which is not supported\nhint: supported is {supported}")]
    Unsupported {
        /// The file that asks for it.
        file: String,
        /// The field that asks for it.
        field: String,
        /// What it asks for.
        value: String,
        /// What would be accepted.
        supported: String,
    },
    /// A field is missing or makes no sense.
    #[error("{file}: `{field}` {problem}")]
    Invalid {
        /// The file the field is in.
        file: String,
        /// The field's name as the file writes it.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file breaks its format.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Classify for ModelConfigError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Unsupported { .. } => ErrorCode::InvalidRequest,
            Self::Invalid { .. } => ErrorCode::Corrupt,
            Self::Storage(error) => error.code(),
        }
    }
}

/// The names that one kind of file gives to the numbers of a [`ModelConfig`].
struct FieldNames {
    layers: &'static str,
    hidden: &'static str,
    ffn: &'static str,
    heads: &'static str,
    kv_heads: &'static str,
    head_dim: &'static str,
    vocab: &'static str,
    context_tokens: &'static str,
    rope_theta: &'static str,
    norm_eps: &'static str,
}

fn unsupported(file: &str, field: &str, value: impl ToString, supported: &str) -> ModelConfigError {
    ModelConfigError::Unsupported {
        file: file.to_owned(),
        field: field.to_owned(),
        value: value.to_string(),
        supported: supported.to_owned(),
    }
}
