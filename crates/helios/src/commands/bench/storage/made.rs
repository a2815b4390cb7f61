//! A model in the Hugging Face form whose weights do not compress: what is pulled, downloaded and deduplicated.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use helios_storage::probe;
use serde_json::{Map, Value, json};

/// Projections of a layer, and how large each is beside the others.
const PROJECTIONS: [(&str, u64); 7] = [
    ("self_attn.q_proj", 1),
    ("self_attn.k_proj", 1),
    ("self_attn.v_proj", 1),
    ("self_attn.o_proj", 1),
    ("mlp.gate_proj", 3),
    ("mlp.up_proj", 3),
    ("mlp.down_proj", 3),
];

/// One tensor of 16 bits an element; equal seeds are equal bytes.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) elements: u64,
    pub(super) seed: u64,
}

/// Tensors of a model of about `bytes` in `layers` layers.
pub(super) fn tensors(bytes: u64, layers: u64) -> Vec<Tensor> {
    let units: u64 = PROJECTIONS.iter().map(|(_, units)| units).sum();
    let elements = (bytes / layers / units / 2).max(1);
    let layer = |layer: u64| {
        PROJECTIONS.iter().zip(0..).map(move |((name, units), index)| Tensor {
            name: format!("model.layers.{layer}.{name}.weight"),
            elements: elements * units,
            seed: layer * 100 + index,
        })
    };
    (0..layers).flat_map(layer).collect()
}

/// Writes the model into `folder`, its tensors in order in `shards` files.
pub(super) fn write(folder: &Path, tensors: &[Tensor], shards: usize) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    put(folder, "config.json", &config())?;
    put(folder, "tokenizer.json", &tokenizer())?;
    put(folder, "tokenizer_config.json", &json!({"bos_token": "<|begin|>", "eos_token": "<|end|>"}))?;
    let mut places = Map::new();
    for (index, tensors) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
        let name = format!("model-{:05}-of-{shards:05}.safetensors", index + 1);
        let file = OpenOptions::new().write(true).create_new(true).open(folder.join(&name))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        write_safetensors(&mut file, tensors)?;
        file.into_inner()?.sync_all()?;
        places.extend(tensors.iter().map(|tensor| (tensor.name.clone(), Value::from(name.clone()))));
    }
    put(folder, "model.safetensors.index.json", &json!({"metadata": {}, "weight_map": places}))
}

/// Writes one file of safetensors.
pub(super) fn write_safetensors(file: &mut dyn Write, tensors: &[Tensor]) -> anyhow::Result<()> {
    let mut header = Map::new();
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += 2 * tensor.elements;
        let entry = json!({"dtype": "BF16", "shape": [tensor.elements], "data_offsets": [start, end]});
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for tensor in tensors {
        probe::write_noise(file, 2 * tensor.elements, tensor.seed)?;
    }
    Ok(())
}

fn put(folder: &Path, name: &str, value: &Value) -> anyhow::Result<()> {
    helios_storage::write_atomic(&folder.join(name), value.to_string().as_bytes())
        .with_context(|| format!("cannot write {name}"))
}

fn config() -> Value {
    json!({
        "model_type": "llama", "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 2, "vocab_size": 258, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "eos_token_id": 257,
    })
}

/// A tokenizer whose tokens are the 256 bytes, written as byte-level tokenizers do, and two special ones.
fn tokenizer() -> Value {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut tokens: Vec<char> = (0..=255_u8).filter(printable).map(char::from).collect();
    let missing = 256 - tokens.len() as u32;
    tokens.extend((0..missing).filter_map(|index| char::from_u32(256 + index)));
    let vocab: Map<String, Value> =
        tokens.iter().zip(0..).map(|(token, id)| (token.to_string(), Value::from(id))).collect();
    let special = |(id, text): (u32, &str)| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special((256, "<|begin|>")), special((257, "<|end|>"))],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocab, "merges": []},
    })
}

#[cfg(test)]
mod tests {
    use super::tensors;

    #[test]
    fn tensors_have_about_the_bytes_asked_for_and_seeds_of_their_own() {
        let tensors = tensors(13 * 4 * 2000, 4);
        assert_eq!(tensors.iter().map(|tensor| 2 * tensor.elements).sum::<u64>(), 13 * 4 * 2000);
        let mut seeds: Vec<u64> = tensors.iter().map(|tensor| tensor.seed).collect();
        seeds.dedup();
        assert_eq!(seeds.len(), 28);
    }
}
