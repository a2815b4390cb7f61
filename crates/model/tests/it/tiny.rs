//! Tiny models: a GGUF file and a folder in the Hugging Face form, made byte by byte.

use std::fs;
use std::path::Path;

use helios_text::{GgufVocab, gguf_tokenizer_json};

const HIDDEN: usize = 32;
const FFN: usize = 48;
const CONTEXT: u32 = 64;

/// The vocabulary of the tiny models: every byte, and two control tokens.
pub(crate) fn vocab() -> GgufVocab {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut tokens: Vec<String> =
        (0..=255_u8).filter(printable).map(|byte| char::from(byte).to_string()).collect();
    let missing = 256 - tokens.len() as u32;
    tokens.extend((0..missing).filter_map(|i| char::from_u32(256 + i)).map(String::from));
    tokens.extend(["<|im_start|>".to_owned(), "<|im_end|>".to_owned()]);
    let mut token_types = vec![1; 256];
    token_types.extend([3, 3]);
    GgufVocab {
        model: "gpt2".to_owned(),
        pre: Some("smollm".to_owned()),
        tokens,
        token_types,
        bos: Some(256),
        eos: Some(257),
        ..GgufVocab::default()
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn text_field(out: &mut Vec<u8>, key: &str, value: &str) {
    text(out, key);
    out.extend(8_u32.to_le_bytes());
    text(out, value);
}

fn u32_field(out: &mut Vec<u8>, key: &str, value: u32) {
    text(out, key);
    out.extend(4_u32.to_le_bytes());
    out.extend(value.to_le_bytes());
}

fn shapes(vocab: usize) -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![("token_embd.weight".to_owned(), vec![vocab, HIDDEN])];
    for (name, shape) in [
        ("attn_norm", vec![HIDDEN]),
        ("attn_q", vec![HIDDEN, HIDDEN]),
        ("attn_k", vec![HIDDEN, HIDDEN]),
        ("attn_v", vec![HIDDEN, HIDDEN]),
        ("attn_output", vec![HIDDEN, HIDDEN]),
        ("ffn_norm", vec![HIDDEN]),
        ("ffn_gate", vec![FFN, HIDDEN]),
        ("ffn_up", vec![FFN, HIDDEN]),
        ("ffn_down", vec![HIDDEN, FFN]),
    ] {
        shapes.push((format!("blk.0.{name}.weight"), shape));
    }
    shapes.push(("output_norm.weight".to_owned(), vec![HIDDEN]));
    shapes
}

/// A GGUF file of the given architecture whose weights are all `fill`.
pub(crate) fn gguf_of(architecture: &str, fill: f32) -> Vec<u8> {
    gguf_with(architecture, fill, &[])
}

/// As [`gguf_of`], with more texts in the header.
pub(crate) fn gguf_with(architecture: &str, fill: f32, texts: &[(&str, &str)]) -> Vec<u8> {
    gguf_with_tensors(architecture, fill, texts, &[])
}

/// A GGUF file of that name with `elements` of weights that others have, too, if they have as many.
pub(crate) fn gguf_sharing(name: &str, elements: usize) -> Vec<u8> {
    gguf_with_tensors("llama", 1.0, &[("general.name", name)], &[("extra.weight".to_owned(), vec![elements])])
}

fn gguf_with_tensors(
    architecture: &str,
    fill: f32,
    texts: &[(&str, &str)],
    more: &[(String, Vec<usize>)],
) -> Vec<u8> {
    let vocab = vocab();
    let mut fields = Vec::new();
    texts.iter().for_each(|(key, value)| text_field(&mut fields, key, value));
    text_field(&mut fields, "general.architecture", architecture);
    text_field(&mut fields, "general.license", "apache-2.0");
    for (key, value) in [
        ("block_count", 1),
        ("embedding_length", HIDDEN as u32),
        ("feed_forward_length", FFN as u32),
        ("attention.head_count", 2),
        ("context_length", CONTEXT),
    ] {
        u32_field(&mut fields, &format!("{architecture}.{key}"), value);
    }
    u32_field(&mut fields, "tokenizer.ggml.bos_token_id", 256);
    u32_field(&mut fields, "tokenizer.ggml.eos_token_id", 257);
    text(&mut fields, &format!("{architecture}.attention.layer_norm_rms_epsilon"));
    fields.extend(6_u32.to_le_bytes());
    fields.extend(1e-5_f32.to_le_bytes());
    text_field(&mut fields, "tokenizer.ggml.model", "gpt2");
    text_field(&mut fields, "tokenizer.ggml.pre", "smollm");
    text_field(&mut fields, "tokenizer.chat_template", "{{ messages[0].content }}");
    text(&mut fields, "tokenizer.ggml.tokens");
    fields.extend([9_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat());
    fields.extend((vocab.tokens.len() as u64).to_le_bytes());
    vocab.tokens.iter().for_each(|token| text(&mut fields, token));
    text(&mut fields, "tokenizer.ggml.token_type");
    fields.extend([9_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat());
    fields.extend((vocab.token_types.len() as u64).to_le_bytes());
    vocab.token_types.iter().for_each(|kind| fields.extend(kind.to_le_bytes()));
    const FIELDS: u64 = 15;

    let shapes = [shapes(vocab.tokens.len()), more.to_vec()].concat();
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((shapes.len() as u64).to_le_bytes());
    file.extend((FIELDS + texts.len() as u64).to_le_bytes());
    file.extend(fields);
    let mut data = Vec::new();
    for (name, shape) in &shapes {
        text(&mut file, name);
        file.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|dim| file.extend((*dim as u64).to_le_bytes()));
        file.extend(0_u32.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        for _ in 0..shape.iter().product::<usize>() {
            data.extend(fill.to_le_bytes());
        }
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

/// A GGUF file that Helios can serve.
pub(crate) fn gguf(fill: f32) -> Vec<u8> {
    gguf_of("llama", fill)
}

/// Writes a folder in the Hugging Face form, the tensors in `shards` files.
pub(crate) fn hugging_face(dir: &Path, shards: usize) {
    fs::create_dir_all(dir).expect("a folder");
    let put = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("a file");
    let config = serde_json::json!({
        "model_type": "llama", "num_hidden_layers": 1, "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_attention_heads": 2, "vocab_size": 258, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "eos_token_id": 257,
    });
    put("config.json", config.to_string().as_bytes());
    put("tokenizer.json", &gguf_tokenizer_json(&vocab()).expect("a tokenizer"));
    let tokenizer = serde_json::json!({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"});
    put("tokenizer_config.json", tokenizer.to_string().as_bytes());
    put("README.md", b"not part of the model");
    let shapes = shapes(258);
    let per_shard = shapes.len().div_ceil(shards);
    let mut weight_map = serde_json::Map::new();
    for (index, tensors) in shapes.chunks(per_shard).enumerate() {
        let name = match shards {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", index + 1),
        };
        put(&name, &safetensors(tensors));
        weight_map.extend(tensors.iter().map(|(tensor, _)| (tensor.clone(), name.clone().into())));
    }
    if shards > 1 {
        put(
            "model.safetensors.index.json",
            serde_json::json!({"weight_map": weight_map}).to_string().as_bytes(),
        );
    }
}

fn safetensors(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + end, 0);
    file
}

/// A file of several pieces: a model, and bytes behind it that differ everywhere.
pub(crate) fn large_gguf(bytes: usize) -> Vec<u8> {
    let mut file = gguf(1.0);
    let mut state = 1_u64;
    file.resize_with(bytes, || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    file
}

/// The SHA-256 of a file, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
