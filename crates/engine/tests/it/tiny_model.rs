//! Tiny models with random weights, as GGUF and safetensors bytes and as the plain numbers in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use helios_engine::{Model, RopeLayout};
use helios_storage::Blob;
use helios_types::TensorType;

use crate::quantise::store;

pub(crate) const LAYERS: usize = 2;
pub(crate) const HIDDEN: usize = 64;
pub(crate) const FFN: usize = 96;
pub(crate) const HEADS: usize = 4;
pub(crate) const KV_HEADS: usize = 2;
pub(crate) const HEAD_DIM: usize = 16;
pub(crate) const VOCAB: usize = 64;
pub(crate) const CONTEXT: usize = 512;
pub(crate) const THETA: f32 = 10_000.0;
pub(crate) const EPS: f32 = 1e-5;
/// KV memory of one block of 16 tokens.
pub(crate) const BLOCK_BYTES: usize = LAYERS * 2 * KV_HEADS * HEAD_DIM * 2 * 16;

/// A tensor's shape, stored form and the values that a reader gets.
pub(crate) struct Stored {
    pub(crate) shape: Vec<usize>,
    pub(crate) tensor_type: TensorType,
    pub(crate) bytes: Vec<u8>,
    pub(crate) values: Vec<f32>,
}

/// A model by the names of its tensors.
pub(crate) struct TinyModel {
    pub(crate) rope_layout: RopeLayout,
    pub(crate) tied: bool,
    pub(crate) tensors: BTreeMap<String, Stored>,
}

/// A stream of numbers for weights and prompts (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Uniform in -1 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    pub(crate) fn tokens(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| (self.next() % VOCAB as u64) as u32).collect()
    }
}

/// The names of a layer's tensors, in the order of [`LAYER_SHAPES`].
const GGUF_LAYER: [&str; 9] =
    ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"];
const HF_LAYER: [&str; 9] = [
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
const LAYER_SHAPES: [&[usize]; 9] = [
    &[HIDDEN],
    &[HEADS * HEAD_DIM, HIDDEN],
    &[KV_HEADS * HEAD_DIM, HIDDEN],
    &[KV_HEADS * HEAD_DIM, HIDDEN],
    &[HIDDEN, HEADS * HEAD_DIM],
    &[HIDDEN],
    &[FFN, HIDDEN],
    &[FFN, HIDDEN],
    &[HIDDEN, FFN],
];

impl TinyModel {
    /// GGUF names; matrices in `matrices`, norms in F32.
    pub(crate) fn gguf(matrices: TensorType, tied: bool) -> Self {
        let top = ["token_embd.weight", "output_norm.weight", "output.weight"];
        let layer = |layer: usize, part: usize| format!("blk.{layer}.{}.weight", GGUF_LAYER[part]);
        Self::random(RopeLayout::Interleaved, tied, matrices, TensorType::F32, top, &layer)
    }

    /// Hugging Face names; everything in one format.
    pub(crate) fn hugging_face(all: TensorType, tied: bool) -> Self {
        let top = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"];
        let layer = |layer: usize, part: usize| format!("model.layers.{layer}.{}.weight", HF_LAYER[part]);
        Self::random(RopeLayout::HalfSplit, tied, all, all, top, &layer)
    }

    fn random(
        rope_layout: RopeLayout,
        tied: bool,
        matrices: TensorType,
        norms: TensorType,
        [embedding, output_norm, output]: [&str; 3],
        layer_name: &dyn Fn(usize, usize) -> String,
    ) -> Self {
        let mut random = Random(0x4E61);
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize]| {
            let tensor_type = if shape.len() == 1 { norms } else { matrices };
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| weight(&mut random, shape)).collect();
            let (bytes, values) = store(tensor_type, &values);
            tensors.insert(name, Stored { shape: shape.to_vec(), tensor_type, bytes, values });
        };
        add(embedding.to_owned(), &[VOCAB, HIDDEN]);
        add(output_norm.to_owned(), &[HIDDEN]);
        if !tied {
            add(output.to_owned(), &[VOCAB, HIDDEN]);
        }
        for layer in 0..LAYERS {
            LAYER_SHAPES.iter().enumerate().for_each(|(part, shape)| add(layer_name(layer, part), shape));
        }
        Self { rope_layout, tied, tensors }
    }

    /// The values of the tensor whose name ends like this, of a layer or of the whole model.
    pub(crate) fn values(&self, gguf: &str, hugging_face: &str) -> &[f32] {
        let name = if self.rope_layout == RopeLayout::Interleaved { gguf } else { hugging_face };
        &self.tensors[name].values
    }

    /// The values of part `part` of a layer.
    pub(crate) fn layer_values(&self, layer: usize, part: usize) -> &[f32] {
        let gguf = format!("blk.{layer}.{}.weight", GGUF_LAYER[part]);
        let hugging_face = format!("model.layers.{layer}.{}.weight", HF_LAYER[part]);
        self.values(&gguf, &hugging_face)
    }

    /// The model as the engine opens it.
    pub(crate) fn open(&self) -> Arc<Model> {
        let model = match self.rope_layout {
            RopeLayout::Interleaved => Model::from_gguf("tiny.gguf", Blob::from_vec(self.gguf_bytes(&[]))),
            RopeLayout::HalfSplit => {
                let file = ("model.safetensors".to_owned(), Blob::from_vec(safetensors_bytes(&self.tensors)));
                Model::from_safetensors(self.config_json().to_string().as_bytes(), vec![file], None)
            }
        };
        Arc::new(model.expect("the tiny model opens"))
    }

    /// A `config.json` for the model.
    pub(crate) fn config_json(&self) -> serde_json::Value {
        serde_json::json!({
            "model_type": "llama", "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN,
            "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
            "max_position_embeddings": CONTEXT, "rope_theta": THETA, "rms_norm_eps": EPS,
            "tie_word_embeddings": self.tied, "hidden_act": "silu", "rope_scaling": null,
        })
    }

    /// The model as a GGUF file, with some metadata replaced or added.
    pub(crate) fn gguf_bytes(&self, changes: &[(&str, GgufField)]) -> Vec<u8> {
        let mut metadata = BTreeMap::from([
            ("general.architecture", GgufField::Text("llama")),
            ("llama.block_count", GgufField::U32(LAYERS as u32)),
            ("llama.embedding_length", GgufField::U32(HIDDEN as u32)),
            ("llama.feed_forward_length", GgufField::U32(FFN as u32)),
            ("llama.attention.head_count", GgufField::U32(HEADS as u32)),
            ("llama.attention.head_count_kv", GgufField::U32(KV_HEADS as u32)),
            ("llama.context_length", GgufField::U32(CONTEXT as u32)),
            ("llama.rope.freq_base", GgufField::F32(THETA)),
            ("llama.attention.layer_norm_rms_epsilon", GgufField::F32(EPS)),
        ]);
        metadata.extend(changes.iter().copied());
        write_gguf(&metadata, &self.tensors)
    }
}

/// Matrices keep the width of what flows through them; norms are near 1.
fn weight(random: &mut Random, shape: &[usize]) -> f32 {
    match shape {
        [_] => 1.0 + 0.3 * random.unit(),
        _ => 3.0 * random.unit() / (shape[1] as f32).sqrt(),
    }
}

#[derive(Clone, Copy)]
pub(crate) enum GgufField {
    U32(u32),
    F32(f32),
    Text(&'static str),
}

fn write_gguf(metadata: &BTreeMap<&str, GgufField>, tensors: &BTreeMap<String, Stored>) -> Vec<u8> {
    const ALIGNMENT: usize = 32;
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, field) in metadata {
        write_text(&mut out, key);
        match field {
            GgufField::U32(value) => out.extend([4_u32, *value].map(u32::to_le_bytes).concat()),
            GgufField::F32(value) => out.extend([6_u32.to_le_bytes(), value.to_le_bytes()].concat()),
            GgufField::Text(text) => {
                out.extend(8_u32.to_le_bytes());
                write_text(&mut out, text);
            }
        }
    }
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        write_text(&mut out, name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&dim| out.extend((dim as u64).to_le_bytes()));
        out.extend(gguf_type(tensor.tensor_type).to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        data.extend(&tensor.bytes);
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out.extend(data);
    out
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn gguf_type(tensor_type: TensorType) -> u32 {
    match tensor_type {
        TensorType::F32 => 0,
        TensorType::F16 => 1,
        TensorType::Q4_0 => 2,
        TensorType::Q4_1 => 3,
        TensorType::Q8_0 => 8,
        TensorType::BF16 => 30,
        other => panic!("no tiny model has {other}"),
    }
}

/// A safetensors file.
pub(crate) fn safetensors_bytes(tensors: &BTreeMap<String, Stored>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, tensor) in tensors {
        let start = data.len();
        data.extend(&tensor.bytes);
        let dtype = tensor.tensor_type.as_str().to_uppercase();
        let entry =
            serde_json::json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [(header.len() as u64).to_le_bytes().to_vec(), header, data].concat()
}
