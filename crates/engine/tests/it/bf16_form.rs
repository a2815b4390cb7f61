//! A GGUF checkpoint as a Hugging Face one in bf16: other names, other types, the rotated rows in their other order.

use std::collections::BTreeMap;

use half::bf16;
use helios_engine::ModelConfig;
use helios_kernels::{Format, WeightMatrix};
use helios_storage::{Checkpoint, TensorView};
use helios_types::TensorType;

/// The `config.json` of the model.
pub(crate) fn config_json(config: &ModelConfig) -> serde_json::Value {
    serde_json::json!({
        "model_type": "llama", "num_hidden_layers": config.layers, "hidden_size": config.hidden,
        "intermediate_size": config.ffn, "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads, "vocab_size": config.vocab,
        "max_position_embeddings": config.context_tokens, "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps, "tie_word_embeddings": config.tied_embeddings,
    })
}

/// A tensor under its Hugging Face name.
pub(crate) struct Bf16Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) tensor_type: TensorType,
    pub(crate) bytes: Vec<u8>,
}

/// Every tensor of a GGUF checkpoint: matrices in bf16, norms in F32.
pub(crate) fn tensors<'a>(
    config: &'a ModelConfig,
    checkpoint: &'a Checkpoint,
) -> impl Iterator<Item = Bf16Tensor> + 'a {
    checkpoint.tensors().map(|info| as_hugging_face(config, checkpoint.tensor(&info.name).unwrap()))
}

fn as_hugging_face(config: &ModelConfig, tensor: TensorView<'_>) -> Bf16Tensor {
    let shape = tensor.info.shape.clone();
    let name = hugging_face_name(&tensor.info.name);
    if shape.len() == 1 {
        return Bf16Tensor { name, shape, tensor_type: TensorType::F32, bytes: tensor.bytes.to_vec() };
    }
    let format = match tensor.info.tensor_type {
        TensorType::Q8_0 => Format::Q8_0,
        TensorType::Q4_1 => Format::Q4_1,
        other => panic!("{} is {other}", tensor.info.name),
    };
    let matrix = WeightMatrix::new(format, shape[0], shape[1], tensor.bytes).unwrap();
    let rotated = name.contains("q_proj") || name.contains("k_proj");
    let mut row = vec![0.0; shape[1]];
    let mut bytes = Vec::with_capacity(2 * shape[0] * shape[1]);
    for index in 0..shape[0] {
        matrix
            .dequantise_row(if rotated { interleaved_row(config.head_dim, index) } else { index }, &mut row);
        bytes.extend(row.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()));
    }
    Bf16Tensor { name, shape, tensor_type: TensorType::BF16, bytes }
}

/// Where GGUF keeps the row that a Hugging Face file has at `row`: the halves of each head are interleaved.
fn interleaved_row(head_dim: usize, row: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * pair + half
}

fn hugging_face_name(gguf: &str) -> String {
    let names = BTreeMap::from([
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ]);
    let parts: Vec<&str> = gguf.split('.').collect();
    match parts[..] {
        ["blk", layer, part, "weight"] => format!("model.layers.{layer}.{}.weight", names[part]),
        [part, "weight"] => format!("{}.weight", names[part]),
        _ => panic!("unknown tensor {gguf}"),
    }
}
