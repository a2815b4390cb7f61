//! The dimensions that memory depends on, of any decoder-only family that keeps keys and values, whether or not the
//! native engine runs it.
//!
//! Multi-head latent attention (DeepSeek-V2 and its heirs, arXiv 2405.04434) is taken as engines run it that keep the
//! latent itself: one key-value head, as wide as the latent and the rotated part, of which the values are a part. An
//! engine that keeps what the heads make of the latent needs many times as much.

mod gguf;
mod hugging_face;

use serde::{Deserialize, Serialize};

use super::parallel::KvPrecision;
use crate::ModelError;

/// Largest number that is read at all; [`ModelShape::checked`] bounds those that are multiplied.
const DIMENSION_MAX: u64 = 1 << 24;

/// Dimensions of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelShape {
    /// The family, as `model_type` in Hugging Face's `config.json`.
    pub architecture: String,
    /// Decoder layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width of the feed-forward layer; with experts, of those together that one token uses.
    pub ffn: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Width of one head; with latent attention, of the latent and the rotated part.
    pub head_dim: u64,
    /// Elements that one key-value head keeps of a token, where they are not a key and a value of `head_dim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_head_elements: Option<u64>,
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
    /// Refuses numbers that no model has, so that the products of the others fit 64 bits; `subject` names the file that
    /// says them.
    fn checked(self, subject: &str) -> Result<Self, ModelError> {
        let limits = [
            ("layers", self.layers, 1 << 10),
            ("heads", self.heads, 1 << 10),
            ("heads for keys and values", self.kv_heads, self.heads),
            ("elements of a head", self.head_dim, 1 << 13),
            ("elements kept of a head", self.kv_head_elements.unwrap_or(1), 1 << 14),
            ("tokens of context", self.context_tokens, DIMENSION_MAX),
        ];
        match limits.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            None => Ok(self),
            Some((what, value, most)) => {
                Err(ModelError::invalid(subject, format!("it has {value} {what}, expected 1 to {most}")))
            }
        }
    }

    /// KV memory of one token in all layers, as long as no window is full.
    pub fn kv_bytes_per_token(&self, precision: KvPrecision) -> u64 {
        self.layers * self.kv_bytes_per_layer_token(precision, self.kv_heads)
    }

    /// Keys and values of one token in one layer, for that many heads.
    pub(super) fn kv_bytes_per_layer_token(&self, precision: KvPrecision, kv_heads: u64) -> u64 {
        const KEY_AND_VALUE: u64 = 2;
        kv_heads * self.kv_head_elements.unwrap_or(KEY_AND_VALUE * self.head_dim) * precision.bytes()
    }

    /// Kinds of attention among the layers: windowed, whole, or both.
    pub(super) fn attention_kinds(&self) -> u64 {
        match self.window {
            Some(window) if window.layers < self.layers => 2,
            _ => 1,
        }
    }
}
