//! The scope of `accelerate estimate-memory` (accelerate 1.15, transformers 5.23): `AutoModel` built in float32.
//!
//! `AutoModel` has no head, so an output projection is left out, tied or not; and it has buffers, which no file holds:
//! the rotary frequencies twice for every kind of attention, and in Gemma the scale of the embedding. Other precisions
//! are that sum divided by 2, 4 and 8. `tests/fixtures/accelerate.json` holds what the real tool says.

use std::collections::BTreeMap;

use helios_storage::TensorInfo;
use helios_types::TensorType;
use serde::{Deserialize, Serialize};

use super::ModelShape;
use super::parallel::Precision;
use super::weights::{is_output, layer_of};

const F32_BYTES: u64 = 4;

/// What `accelerate estimate-memory` sums up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccelerateScope {
    /// Bytes in float32: parameters without an output projection, and buffers.
    pub total_bytes_f32: u64,
    /// Bytes in float32 of the largest decoder layer, or of the embedding if that is larger.
    pub largest_layer_bytes_f32: u64,
}

impl AccelerateScope {
    /// `None` for a family whose buffers are not known, and where a quantiser packed the weights or put scales beside
    /// them, which the tool does not look at. O(tensors).
    pub(super) fn new<'a>(
        shape: &ModelShape,
        tensors: impl Iterator<Item = &'a TensorInfo> + Clone,
    ) -> Option<Self> {
        let buffers = Buffers::of(shape)?;
        if tensors.clone().any(|tensor| !is_whole_weight(tensor.tensor_type)) {
            return None;
        }
        let mut by_layer: BTreeMap<&str, u64> = BTreeMap::new();
        for tensor in tensors.filter(|tensor| !is_output(&tensor.name) && !is_table(&tensor.name)) {
            *by_layer.entry(layer_of(&tensor.name)).or_default() += F32_BYTES * tensor.elements() as u64;
        }
        let parameters: u64 = by_layer.values().sum();
        for (layer, bytes) in &mut by_layer {
            *bytes += if is_embedding(layer) { buffers.embedding_bytes } else { 0 };
        }
        Some(Self {
            total_bytes_f32: parameters + buffers.embedding_bytes + buffers.rotary_bytes,
            largest_layer_bytes_f32: by_layer.into_values().max().unwrap_or(0).max(buffers.rotary_bytes),
        })
    }

    /// The tool's total for a precision, rounded up to a byte. It has no figure for weights as stored.
    pub fn total_bytes(&self, precision: Precision) -> Option<u64> {
        divisor(precision).map(|divisor| self.total_bytes_f32.div_ceil(divisor))
    }

    /// The tool's largest layer for a precision, rounded up to a byte.
    pub fn largest_layer_bytes(&self, precision: Precision) -> Option<u64> {
        divisor(precision).map(|divisor| self.largest_layer_bytes_f32.div_ceil(divisor))
    }
}

fn divisor(precision: Precision) -> Option<u64> {
    match precision {
        Precision::Stored => None,
        Precision::F32 => Some(1),
        Precision::F16 => Some(2),
        Precision::Int8 => Some(4),
        Precision::Int4 => Some(8),
    }
}

/// What `transformers` registers beside the parameters.
struct Buffers {
    embedding_bytes: u64,
    rotary_bytes: u64,
}

impl Buffers {
    fn of(shape: &ModelShape) -> Option<Self> {
        let (embedding_bytes, kinds) = match shape.architecture.as_str() {
            "llama" | "mistral" | "qwen2" | "qwen3" => (0, 1),
            "gemma3_text" => (F32_BYTES, shape.attention_kinds()),
            _ => return None,
        };
        // `inv_freq` and `original_inv_freq`, each of half a head.
        Some(Self { embedding_bytes, rotary_bytes: kinds * 2 * (shape.head_dim / 2) * F32_BYTES })
    }
}

/// Whether each element is a weight with all that it needs: a plain float, or in a block with its scale.
fn is_whole_weight(tensor_type: TensorType) -> bool {
    let plain = [TensorType::F64, TensorType::F32, TensorType::F16, TensorType::BF16];
    plain.contains(&tensor_type) || (tensor_type.block_elements() > 1 && !tensor_type.packs_across_rows())
}

fn is_embedding(layer: &str) -> bool {
    layer.split('.').any(|part| matches!(part, "embed_tokens" | "token_embd"))
}

/// Frequencies that some files carry as a tensor.
fn is_table(name: &str) -> bool {
    name.starts_with("rope_freqs.") || name.ends_with(".inv_freq")
}
