//! The dimensions that memory depends on, of any decoder-only family, whether or not the native engine runs it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parallel::KvPrecision;
use crate::ModelError;

/// Largest plausible dimension: products of three of them fit 64 bits.
pub(super) const DIMENSION_MAX: u64 = 1 << 24;

/// Dimensions of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelShape {
    /// The family, as `model_type` in Hugging Face's `config.json`.
    pub architecture: String,
    /// Decoder layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width of the feed-forward layer.
    pub ffn: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Width of one head.
    pub head_dim: u64,
    /// Entries of the vocabulary.
    pub vocab: u64,
    /// Longest sequence the model was made for.
    pub context_tokens: u64,
    /// Layers that keep a part of the sequence only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<AttentionWindow>,
}

/// Sliding-window attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttentionWindow {
    /// Layers that have it.
    pub layers: u64,
    /// Tokens that they look back.
    pub tokens: u64,
}

impl ModelShape {
    /// Reads a Hugging Face `config.json`. A field that is missing has the default of the family's class.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] naming the field that is missing or absurd.
    pub fn from_hugging_face(json: &[u8]) -> Result<Self, ModelError> {
        let invalid = |problem: String| ModelError::invalid("`config.json`", problem);
        let config: Value = serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?;
        let optional = |field: &str| config.get(field).and_then(Value::as_u64);
        let required = |field: &str| match optional(field) {
            Some(value) if (1..=DIMENSION_MAX).contains(&value) => Ok(value),
            Some(value) => Err(invalid(format!("`{field}` is {value}, expected 1 to {DIMENSION_MAX}"))),
            None => Err(invalid(format!("`{field}` is missing"))),
        };
        let architecture = config.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (hidden, heads) = (required("hidden_size")?, required("num_attention_heads")?);
        let shape = Self {
            layers: required("num_hidden_layers")?,
            hidden,
            ffn: required("intermediate_size")?,
            heads,
            kv_heads: optional("num_key_value_heads").unwrap_or(heads),
            head_dim: optional("head_dim").unwrap_or(default_head_dim(&architecture, hidden, heads)),
            vocab: required("vocab_size")?,
            context_tokens: optional("max_position_embeddings").unwrap_or(CONTEXT_DEFAULT),
            window: None,
            architecture,
        };
        let window = window(&config, &shape);
        let sane = [shape.kv_heads, shape.head_dim, shape.context_tokens];
        if sane.iter().any(|value| !(1..=DIMENSION_MAX).contains(value)) || shape.kv_heads > shape.heads {
            let (kv_heads, head_dim) = (shape.kv_heads, shape.head_dim);
            return Err(invalid(format!("{kv_heads} key-value heads of {head_dim} for {heads} heads")));
        }
        Ok(Self { window, ..shape })
    }

    /// KV memory of one token in all layers, as long as no window is full.
    pub fn kv_bytes_per_token(&self, precision: KvPrecision) -> u64 {
        self.layers * self.kv_bytes_per_layer_token(precision, self.kv_heads)
    }

    /// Keys and values of one token in one layer, for that many heads.
    pub(super) fn kv_bytes_per_layer_token(&self, precision: KvPrecision, kv_heads: u64) -> u64 {
        const KEY_AND_VALUE: u64 = 2;
        KEY_AND_VALUE * kv_heads * self.head_dim * precision.bytes()
    }

    /// Kinds of attention among the layers: windowed, whole, or both.
    pub(super) fn attention_kinds(&self) -> u64 {
        match self.window {
            Some(window) if window.layers < self.layers => 2,
            _ => 1,
        }
    }
}

const CONTEXT_DEFAULT: u64 = 2048;

fn default_head_dim(architecture: &str, hidden: u64, heads: u64) -> u64 {
    match architecture {
        "qwen3" => 128,
        "gemma3_text" => 256,
        _ => hidden / heads,
    }
}

/// Which layers have a window: as listed, or by Gemma's pattern of one whole layer in every six.
fn window(config: &Value, shape: &ModelShape) -> Option<AttentionWindow> {
    const PATTERN_DEFAULT: u64 = 6;
    let tokens = config.get("sliding_window").and_then(Value::as_u64)?;
    if config.get("use_sliding_window").and_then(Value::as_bool) == Some(false) {
        return None;
    }
    let listed = config
        .get("layer_types")
        .and_then(Value::as_array)
        .map(|types| types.iter().filter(|kind| kind.as_str() == Some("sliding_attention")).count() as u64);
    let layers = match (listed, shape.architecture.as_str()) {
        (Some(layers), _) => layers.min(shape.layers),
        (None, "gemma3_text") => {
            let pattern = config.get("sliding_window_pattern").and_then(Value::as_u64);
            shape.layers - shape.layers / pattern.unwrap_or(PATTERN_DEFAULT).max(1)
        }
        (None, "mistral") => shape.layers,
        (None, _) => 0,
    };
    (layers > 0).then_some(AttentionWindow { layers, tokens })
}
