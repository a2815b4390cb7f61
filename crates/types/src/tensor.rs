//! Element formats of stored tensors and their block geometry.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// One row for each format: its name in manifests, and the elements and bytes of one block.
macro_rules! tensor_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $elements:literal in $bytes:literal;)*) => {
        /// How a tensor's elements are stored. Quantised formats store blocks of consecutive elements of a row.
        ///
        /// These are the formats that model files of today have, so that the size of any can be told; the native engine
        /// computes with some of them (`NATIVE_TENSOR_TYPES` of `helios-storage`). The layouts are those of
        /// [safetensors](https://docs.rs/safetensors/0.8/safetensors/tensor/enum.Dtype.html) and
        /// [ggml](https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum TensorType {
            $($(#[$doc])* $variant,)*
        }

        impl TensorType {
            /// Every format.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Elements in one block; 1 for plain formats.
            pub const fn block_elements(self) -> usize {
                match self {
                    $(Self::$variant => $elements,)*
                }
            }

            /// Bytes of one block.
            pub const fn block_bytes(self) -> usize {
                match self {
                    $(Self::$variant => $bytes,)*
                }
            }

            /// The format's name as manifests and people write it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

tensor_types! {
    /// IEEE 754 binary32, little-endian.
    F32 = "f32", 1 in 4;
    /// IEEE 754 binary16, little-endian.
    F16 = "f16", 1 in 2;
    /// bfloat16, little-endian.
    BF16 = "bf16", 1 in 2;
    /// f16 scale, 32 signed bytes: `x = d * q`.
    Q8_0 = "q8_0", 32 in 34;
    /// f16 scale, 16 bytes of two nibbles (low: elements 0-15, high: 16-31): `x = d * (q - 8)`.
    Q4_0 = "q4_0", 32 in 18;
    /// f16 scale, f16 minimum, 16 bytes of two nibbles: `x = d * q + m`.
    Q4_1 = "q4_1", 32 in 20;
    /// As `Q4_0` with a fifth bit for each element.
    Q5_0 = "q5_0", 32 in 22;
    /// As `Q4_1` with a fifth bit for each element.
    Q5_1 = "q5_1", 32 in 24;
    /// Super-block of ggml, some 2.6 bits an element.
    Q2K = "q2_k", 256 in 84;
    /// Super-block, some 3.4 bits.
    Q3K = "q3_k", 256 in 110;
    /// Super-block, 4.5 bits.
    Q4K = "q4_k", 256 in 144;
    /// Super-block, 5.5 bits.
    Q5K = "q5_k", 256 in 176;
    /// Super-block, some 6.6 bits.
    Q6K = "q6_k", 256 in 210;
    /// Super-block of values from a table, some 1.6 bits.
    Iq1S = "iq1_s", 256 in 50;
    /// Super-block of values from a table, 1.75 bits.
    Iq1M = "iq1_m", 256 in 56;
    /// Super-block of values from a table, some 2.1 bits.
    Iq2Xxs = "iq2_xxs", 256 in 66;
    /// Super-block of values from a table, some 2.3 bits.
    Iq2Xs = "iq2_xs", 256 in 74;
    /// Super-block of values from a table, some 2.6 bits.
    Iq2S = "iq2_s", 256 in 82;
    /// Super-block of values from a table, some 3.1 bits.
    Iq3Xxs = "iq3_xxs", 256 in 98;
    /// Super-block of values from a table, some 3.4 bits.
    Iq3S = "iq3_s", 256 in 110;
    /// f16 scale, nibbles that stand for unevenly spaced values.
    Iq4Nl = "iq4_nl", 32 in 18;
    /// Super-block of unevenly spaced values, 4.25 bits.
    Iq4Xs = "iq4_xs", 256 in 136;
    /// Ternary values, five in a byte.
    Tq1_0 = "tq1_0", 256 in 54;
    /// Ternary values, four in a byte.
    Tq2_0 = "tq2_0", 256 in 66;
    /// Signs with a scale.
    Q1_0 = "q1_0", 128 in 18;
    /// Microscaling: an exponent and nibbles of two exponent bits and one of mantissa.
    Mxfp4 = "mxfp4", 32 in 17;
    /// As `Mxfp4`, with four scales of eight bits.
    Nvfp4 = "nvfp4", 64 in 36;
    /// IEEE 754 binary64.
    F64 = "f64", 1 in 8;
    /// Two binary32: a complex number.
    C64 = "c64", 1 in 8;
    /// Float of 4 exponent and 3 mantissa bits, without infinities.
    F8E4M3 = "f8_e4m3", 1 in 1;
    /// Float of 5 exponent and 2 mantissa bits.
    F8E5M2 = "f8_e5m2", 1 in 1;
    /// As `F8E4M3` with another bias and no negative zero.
    F8E4M3Fnuz = "f8_e4m3fnuz", 1 in 1;
    /// As `F8E5M2` with another bias and no negative zero.
    F8E5M2Fnuz = "f8_e5m2fnuz", 1 in 1;
    /// An exponent alone: the scale of a block that is stored elsewhere.
    F8E8M0 = "f8_e8m0", 1 in 1;
    /// Float of 2 exponent and 3 mantissa bits, packed.
    F6E2M3 = "f6_e2m3", 4 in 3;
    /// Float of 3 exponent and 2 mantissa bits, packed.
    F6E3M2 = "f6_e3m2", 4 in 3;
    /// Float of 2 exponent bits and 1 mantissa bit, packed.
    F4 = "f4", 2 in 1;
    /// Signed byte.
    I8 = "i8", 1 in 1;
    /// Signed 16-bit integer.
    I16 = "i16", 1 in 2;
    /// Signed 32-bit integer.
    I32 = "i32", 1 in 4;
    /// Signed 64-bit integer.
    I64 = "i64", 1 in 8;
    /// Byte.
    U8 = "u8", 1 in 1;
    /// Unsigned 16-bit integer.
    U16 = "u16", 1 in 2;
    /// Unsigned 32-bit integer.
    U32 = "u32", 1 in 4;
    /// Unsigned 64-bit integer.
    U64 = "u64", 1 in 8;
    /// A truth value in a byte.
    Bool = "bool", 1 in 1;
}

impl TensorType {
    /// Bytes of `elements` elements, or `None` if they do not fill whole blocks or overflow.
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// Whether rows share blocks: elements narrower than a byte, packed without a look at rows.
    pub const fn packs_across_rows(self) -> bool {
        matches!(self, Self::F4 | Self::F6E2M3 | Self::F6E3M2)
    }

    /// Whether one element may be several weights: what quantisers that no format knows pack theirs into (GPTQ and AWQ in
    /// `I32`, bitsandbytes and MXFP4 in `U8`).
    pub const fn may_hold_several(self) -> bool {
        matches!(self, Self::U8 | Self::I16 | Self::U16 | Self::I32 | Self::U32 | Self::I64 | Self::U64)
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for TensorType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TensorType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        let found = Self::ALL.iter().find(|tensor_type| tensor_type.as_str() == name);
        found
            .copied()
            .ok_or_else(|| D::Error::custom(format_args!("this release knows no element type `{name}`")))
    }
}
