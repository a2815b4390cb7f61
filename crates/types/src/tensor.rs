//! Element formats of stored tensors and their block geometry.

use serde::{Deserialize, Serialize};

/// How a tensor's elements are stored. Quantised formats store blocks of 32 consecutive elements of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorType {
    /// IEEE 754 binary32, little-endian.
    F32,
    /// IEEE 754 binary16, little-endian.
    F16,
    /// bfloat16, little-endian.
    #[serde(rename = "bf16")]
    BF16,
    /// f16 scale, 32 signed bytes: `x = d * q`.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// f16 scale, 16 bytes of two nibbles (low: elements 0-15, high: 16-31): `x = d * (q - 8)`.
    #[serde(rename = "q4_0")]
    Q4_0,
    /// f16 scale, f16 minimum, 16 bytes of two nibbles: `x = d * q + m`.
    #[serde(rename = "q4_1")]
    Q4_1,
}

impl TensorType {
    /// Every format.
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::BF16, Self::Q8_0, Self::Q4_0, Self::Q4_1];

    /// Elements in one block; 1 for plain formats.
    pub const fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
        }
    }

    /// Bytes of `elements` elements, or `None` if they do not fill whole blocks or overflow.
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// The format's name as manifests and people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
        }
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
