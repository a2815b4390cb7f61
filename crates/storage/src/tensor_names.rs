//! What the two kinds of checkpoint call the tensors of a decoder.

use crate::NameScheme;

/// The names of one scheme; those of a layer without the layer's prefix.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are the tensors of a decoder")]
pub struct TensorNames {
    pub embedding: &'static str,
    pub output_norm: &'static str,
    pub output: &'static str,
    /// What stands before `.LAYER.`.
    pub layer_prefix: &'static str,
    pub attention_norm: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub ffn_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    /// Ends of names that may be there and change nothing: frequencies that follow from the configuration, or the
    /// second copy of a tied output.
    pub harmless: &'static [&'static str],
}

const GGUF: TensorNames = TensorNames {
    embedding: "token_embd.weight",
    output_norm: "output_norm.weight",
    output: "output.weight",
    layer_prefix: "blk",
    attention_norm: "attn_norm.weight",
    query: "attn_q.weight",
    key: "attn_k.weight",
    value: "attn_v.weight",
    attention_output: "attn_output.weight",
    ffn_norm: "ffn_norm.weight",
    gate: "ffn_gate.weight",
    up: "ffn_up.weight",
    down: "ffn_down.weight",
    harmless: &[],
};

const HUGGING_FACE: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    output_norm: "model.norm.weight",
    output: "lm_head.weight",
    layer_prefix: "model.layers",
    attention_norm: "input_layernorm.weight",
    query: "self_attn.q_proj.weight",
    key: "self_attn.k_proj.weight",
    value: "self_attn.v_proj.weight",
    attention_output: "self_attn.o_proj.weight",
    ffn_norm: "post_attention_layernorm.weight",
    gate: "mlp.gate_proj.weight",
    up: "mlp.up_proj.weight",
    down: "mlp.down_proj.weight",
    harmless: &["rotary_emb.inv_freq", "lm_head.weight"],
};

impl TensorNames {
    /// The names of a scheme.
    pub const fn of(scheme: NameScheme) -> &'static Self {
        match scheme {
            NameScheme::Gguf => &GGUF,
            NameScheme::HuggingFace => &HUGGING_FACE,
        }
    }

    /// The full name of a layer's tensor.
    pub fn in_layer(&self, layer: usize, suffix: &str) -> String {
        format!("{}.{layer}.{suffix}", self.layer_prefix)
    }
}
