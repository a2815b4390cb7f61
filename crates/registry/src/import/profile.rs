//! The memory profile: sums over headers, no tensor is read.

use std::collections::BTreeMap;

use helios_storage::{Checkpoint, ModelConfig};

use crate::manifest::MemoryProfile;

/// What the model needs of memory. O(tensors).
pub(super) fn memory(config: &ModelConfig, checkpoint: &Checkpoint) -> MemoryProfile {
    let mut by_type = BTreeMap::new();
    let mut by_layer: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        let bytes = tensor.range.len() as u64;
        *by_type.entry(tensor.tensor_type).or_default() += bytes;
        *by_layer.entry(layer_of(&tensor.name)).or_default() += bytes;
    }
    MemoryProfile {
        weight_bytes: by_type.values().sum(),
        weight_bytes_by_type: by_type,
        largest_layer_bytes: by_layer.into_values().max().unwrap_or(0),
        kv_bytes_per_token: config.kv_bytes_per_token() as u64,
    }
}

/// The layer that a tensor belongs to: its name up to the layer's number, or all of it.
fn layer_of(name: &str) -> &str {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            return &name[..end];
        }
        end += 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::layer_of;

    #[test]
    fn tensors_are_grouped_by_layer_in_both_schemes() {
        assert_eq!(layer_of("blk.10.attn_q.weight"), "blk.10");
        assert_eq!(layer_of("model.layers.1.mlp.up_proj.weight"), "model.layers.1");
        assert_eq!(layer_of("token_embd.weight"), "token_embd.weight");
    }
}
