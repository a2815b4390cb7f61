//! The weights of a model by what parallel ranks do with them. Names decide, in both schemes: GGUF's and Hugging Face's.

use helios_storage::TensorInfo;
use serde::{Deserialize, Serialize};

/// Some of a model's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Number of weights.
    pub elements: u64,
    /// Bytes in the files.
    pub bytes: u64,
}

/// All weights of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightParts {
    /// The token embedding; tensor-parallel ranks divide its rows.
    pub embedding: Weights,
    /// The output projection; none where it is the embedding.
    pub output: Weights,
    /// Key and value projections of all layers; ranks divide them down to whole heads. With latent attention, those into
    /// the latents, which are one head.
    pub kv_projections: Weights,
    /// The other matrices of all layers; ranks divide them.
    pub matrices: Weights,
    /// Norms, biases and other vectors; every rank has them.
    pub vectors: Weights,
}

impl WeightParts {
    pub(super) fn new<'a>(tensors: impl Iterator<Item = &'a TensorInfo>) -> Self {
        let mut parts = Self::default();
        for tensor in tensors {
            let part = parts.part_of(tensor);
            part.elements += tensor.elements() as u64;
            part.bytes += tensor.range.len() as u64;
        }
        parts
    }

    fn part_of(&mut self, tensor: &TensorInfo) -> &mut Weights {
        let name = tensor.name.as_str();
        const KV_PROJECTIONS: [&str; 8] = [
            "k_proj",
            "v_proj",
            "attn_k",
            "attn_v",
            "kv_a_proj_with_mqa",
            "q_a_proj",
            "attn_kv_a_mqa",
            "attn_q_a",
        ];
        let has = |parts: &[&str]| name.split('.').any(|part| parts.contains(&part));
        if tensor.shape.len() < 2 {
            &mut self.vectors
        } else if has(&["embed_tokens", "token_embd"]) {
            &mut self.embedding
        } else if is_output(name) {
            &mut self.output
        } else if has(&KV_PROJECTIONS) {
            &mut self.kv_projections
        } else {
            &mut self.matrices
        }
    }
}

/// Whether an element of a matrix may be several weights.
pub(super) fn is_packed(tensor: &TensorInfo) -> bool {
    tensor.shape.len() > 1 && tensor.tensor_type.may_hold_several()
}

/// Whether a tensor belongs to the output projection.
pub(super) fn is_output(name: &str) -> bool {
    name.starts_with("lm_head.") || name.contains(".lm_head.") || name.starts_with("output.")
}

/// The layer that a tensor belongs to: its name up to the layer's number, or all of it.
pub(super) fn layer_of(name: &str) -> &str {
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
    use helios_types::TensorType;

    use super::{TensorInfo, WeightParts, layer_of};

    #[test]
    fn tensors_are_grouped_by_layer_in_both_schemes() {
        assert_eq!(layer_of("blk.10.attn_q.weight"), "blk.10");
        assert_eq!(layer_of("model.layers.1.mlp.up_proj.weight"), "model.layers.1");
        assert_eq!(layer_of("token_embd.weight"), "token_embd.weight");
    }

    #[test]
    fn every_tensor_has_its_part_in_both_schemes() {
        let tensor = |name: &str, shape: &[usize]| TensorInfo {
            name: name.to_owned(),
            tensor_type: TensorType::F32,
            shape: shape.to_vec(),
            file: 0,
            range: 0..4 * shape.iter().product::<usize>(),
        };
        let schemes = [
            ["model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.k_proj.weight"],
            ["token_embd.weight", "output.weight", "blk.0.attn_k.weight"],
        ];
        for [embedding, output, key] in schemes {
            let tensors = [
                tensor(embedding, &[7, 2]),
                tensor(output, &[7, 3]),
                tensor(key, &[5, 2]),
                tensor("blk.0.ffn_up.weight", &[11, 2]),
                tensor("output_norm.weight", &[13]),
            ];
            let parts = WeightParts::new(tensors.iter());
            let elements =
                [parts.embedding, parts.output, parts.kv_projections, parts.matrices, parts.vectors];
            assert_eq!(elements.map(|part| part.elements), [14, 21, 10, 22, 13]);
            assert_eq!(elements.map(|part| part.bytes), [56, 84, 40, 88, 52]);
        }
    }
}
