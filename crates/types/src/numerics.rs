//! The name of an arithmetic: what must be equal for tokens to be equal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names (weight format, packed-layout version, KV type, kernel family).
///
/// Two engines of one numerics id give the same tokens for the same request, bit by bit; KV blocks and streams move
/// freely only between those.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NumericsId(String);

impl NumericsId {
    /// Joins the four parts: `q4_1/v1/f16/f32-lanes16`.
    pub fn new(weights: &str, layout_version: u32, kv: &str, kernels: &str) -> Self {
        Self(format!("{weights}/v{layout_version}/{kv}/{kernels}"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for NumericsId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for NumericsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
