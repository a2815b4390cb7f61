//! The configuration in the metadata of a GGUF file.

use crate::Gguf;

use super::ModelConfigError;
use super::{ARCHITECTURES, FieldNames, ModelConfig, NameScheme, RopeLayout, unsupported};

const FIELDS: FieldNames = FieldNames {
    layers: "llama.block_count",
    hidden: "llama.embedding_length",
    ffn: "llama.feed_forward_length",
    heads: "llama.attention.head_count",
    kv_heads: "llama.attention.head_count_kv",
    head_dim: "llama.attention.key_length",
    vocab: "token_embd.weight",
    context_tokens: "llama.context_length",
    rope_theta: "llama.rope.freq_base",
    norm_eps: "llama.attention.layer_norm_rms_epsilon",
};

const ROPE_DIMENSIONS: &str = "llama.rope.dimension_count";
const VALUE_LENGTH: &str = "llama.attention.value_length";
const EXPERTS: &str = "llama.expert_count";
const ROPE_SCALING: &str = "llama.rope.scaling.type";
const ROPE_THETA_DEFAULT: f32 = 10_000.0;

impl ModelConfig {
    /// Reads the metadata of a GGUF file; `file` is its name for errors.
    ///
    /// # Errors
    /// A missing key, a family or feature that is not implemented, or absurd numbers.
    pub fn from_gguf(file: &str, gguf: &Gguf) -> Result<Self, ModelConfigError> {
        let architecture = gguf.str("general.architecture")?;
        if architecture != "llama" {
            return Err(unsupported(file, "general.architecture", architecture, ARCHITECTURES));
        }
        let heads = size(gguf, FIELDS.heads)?;
        let hidden = size(gguf, FIELDS.hidden)?;
        let config = Self {
            architecture: architecture.to_owned(),
            layers: size(gguf, FIELDS.layers)?,
            hidden,
            ffn: size(gguf, FIELDS.ffn)?,
            heads,
            kv_heads: gguf.optional(FIELDS.kv_heads, size)?.unwrap_or(heads),
            head_dim: gguf.optional(FIELDS.head_dim, size)?.unwrap_or(hidden.checked_div(heads).unwrap_or(0)),
            vocab: embedding_rows(gguf),
            context_tokens: size(gguf, FIELDS.context_tokens)?,
            rope_theta: gguf.optional(FIELDS.rope_theta, Gguf::f32)?.unwrap_or(ROPE_THETA_DEFAULT),
            rope_layout: RopeLayout::Interleaved,
            norm_eps: gguf.f32(FIELDS.norm_eps)?,
            tied_embeddings: !gguf.tensors.iter().any(|tensor| tensor.name == "output.weight"),
            names: NameScheme::Gguf,
        };
        let config = config.validate(file, &FIELDS)?;
        refuse_unsupported(file, gguf, &config)?;
        Ok(config)
    }
}

/// Refuses every feature that would need other arithmetic.
fn refuse_unsupported(file: &str, gguf: &Gguf, config: &ModelConfig) -> Result<(), ModelConfigError> {
    let head_dim = config.head_dim;
    for key in [ROPE_DIMENSIONS, VALUE_LENGTH] {
        if let Some(value) = gguf.optional(key, size)?.filter(|&value| value != head_dim) {
            return Err(unsupported(file, key, value, &format!("the head's {head_dim}")));
        }
    }
    if let Some(experts) = gguf.optional(EXPERTS, size)?.filter(|&experts| experts != 0) {
        return Err(unsupported(file, EXPERTS, experts, "0"));
    }
    if let Some(scaling) = gguf.optional(ROPE_SCALING, Gguf::str)?.filter(|&scaling| scaling != "none") {
        return Err(unsupported(file, ROPE_SCALING, scaling, "none"));
    }
    Ok(())
}

fn size(gguf: &Gguf, key: &str) -> Result<usize, crate::StorageError> {
    Ok(gguf.u32(key)? as usize)
}

/// The vocabulary is what the embedding has rows for; 0 without one.
fn embedding_rows(gguf: &Gguf) -> usize {
    let embedding = gguf.tensors.iter().find(|tensor| tensor.name == FIELDS.vocab);
    embedding.and_then(|tensor| tensor.shape.first()).copied().unwrap_or(0)
}
