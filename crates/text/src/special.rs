//! The ids of a vocabulary that mean something to the machinery around a model.

use helios_types::TokenId;
use serde::{Deserialize, Serialize};

/// Special tokens of a model: one of the small derived blobs of a manifest (as JSON).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// Beginning of sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos: Option<TokenId>,
    /// Every token that ends generation: end of sequence, end of turn, end of message. The first is the main one.
    #[serde(default)]
    pub eos: Vec<TokenId>,
    /// Stands for what the vocabulary cannot express.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<TokenId>,
    /// Fills batches; never generated on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<TokenId>,
    /// Whether a plain prompt (no chat template) starts with `bos`.
    #[serde(default)]
    pub add_bos: bool,
}

impl SpecialTokens {
    /// The largest id named here.
    pub(crate) fn largest(&self) -> Option<TokenId> {
        self.bos.iter().chain(&self.eos).chain(&self.unknown).chain(&self.pad).copied().max()
    }
}
