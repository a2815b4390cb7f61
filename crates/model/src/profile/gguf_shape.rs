//! The dimensions in the metadata of a GGUF file, of any family that names them as the specification says.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, "LLM".

use helios_storage::{Gguf, GgufArray, GgufValue};

use super::ModelShape;
use super::shape::DIMENSION_MAX;
use crate::ModelError;

/// Whose rows are the vocabulary.
const EMBEDDING: &str = "token_embd.weight";

impl ModelShape {
    /// Reads the header of a GGUF file; `file` is its name for errors. Of what differs between layers, the largest counts.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] naming the key that is missing or absurd.
    pub fn from_gguf(file: &str, gguf: &Gguf) -> Result<Self, ModelError> {
        let architecture = gguf.str("general.architecture")?.to_owned();
        let optional = |name: &str| largest(gguf.metadata.get(&format!("{architecture}.{name}"))?);
        let required = |name: &str| match optional(name) {
            Some(value) if (1..=DIMENSION_MAX).contains(&value) => Ok(value),
            _ => Err(ModelError::invalid(
                format!("`{file}`"),
                format!("`{architecture}.{name}` is missing or absurd"),
            )),
        };
        let (hidden, heads) = (required("embedding_length")?, required("attention.head_count")?);
        let embedding = gguf.tensors.iter().find(|tensor| tensor.name == EMBEDDING);
        let vocab = embedding.and_then(|tensor| tensor.shape.first()).copied().unwrap_or(0) as u64;
        let shape = Self {
            layers: required("block_count")?,
            hidden,
            ffn: required("feed_forward_length")?,
            heads,
            kv_heads: optional("attention.head_count_kv").unwrap_or(heads),
            head_dim: optional("attention.key_length").unwrap_or(hidden / heads),
            vocab,
            context_tokens: required("context_length")?,
            window: None,
            architecture,
        };
        let sane = [shape.kv_heads, shape.head_dim, shape.vocab];
        if sane.iter().any(|value| !(1..=DIMENSION_MAX).contains(value)) || shape.kv_heads > shape.heads {
            let (kv_heads, head_dim) = (shape.kv_heads, shape.head_dim);
            let problem =
                format!("{kv_heads} key-value heads of {head_dim} for {heads} heads, {vocab} tokens");
            return Err(ModelError::invalid(format!("`{file}`"), problem));
        }
        Ok(shape)
    }
}

/// A number, or the largest of an array with one for each layer.
fn largest(value: &GgufValue) -> Option<u64> {
    match value {
        GgufValue::Array(GgufArray::I32(values)) => u64::try_from(*values.iter().max()?).ok(),
        GgufValue::Array(GgufArray::U32(values)) => values.iter().max().map(|&value| value.into()),
        single => single.as_integer()?.try_into().ok(),
    }
}
