//! The safetensors form of a GGUF file: shards, and the small files that a Hugging Face folder has.
//!
//! Files that an earlier conversion put into the GGUF file come back as they were, if they still say what the file's own
//! keys say. Keys that no small file has a place for go into the `__metadata__` of each shard as `gguf.KEY`.

use std::collections::BTreeMap;

use helios_storage::{
    Gguf, GgufArray, GgufValue, ModelConfig, NameScheme, RopeLayout, SafetensorsHeader, TensorPlan,
};
use helios_text::{GgufVocab, HuggingFaceFiles, TokenizerConfig, gguf_tokenizer_json, gguf_vocab};
use helios_types::{TensorType, TokenId};
use serde_json::{Value, json};

use super::tensors::{self, Planned};
use super::{
    CARRIED_FILES, CARRIED_PREFIX, FormFile, Origin, TOKENIZER_KEY, TensorFile, WIDENED_BF16, WIDENED_F16,
};
use crate::ModelError;
use crate::selection::INDEX_FILE;
use crate::understand::gguf_file_vocab;

/// Small files by name.
type SmallFiles = BTreeMap<String, Vec<u8>>;

pub(super) fn files(origin: &Origin, shard_bytes_max: usize) -> Result<Vec<FormFile<'_>>, ModelError> {
    let gguf =
        origin.gguf.as_ref().ok_or_else(|| origin.refused("it is no GGUF file", "choose another form"))?;
    let narrow = widened(gguf)?;
    let planned = tensors::plan(origin, NameScheme::HuggingFace, &narrow)?;
    let file = &origin.manifest.required(crate::Role::Weights)?.path;
    let vocab = gguf_file_vocab(file, gguf)?;
    let small = match carried(gguf, &origin.config, &vocab)? {
        Some(files) => files,
        None => made(origin, gguf, &vocab, &planned)?,
    };
    let mut files: Vec<_> = small.into_iter().map(|(name, bytes)| FormFile::Small { name, bytes }).collect();
    files.extend(shards(gguf, planned, shard_bytes_max)?);
    Ok(files)
}

/// The vectors that the way here widened.
fn widened(gguf: &Gguf) -> Result<BTreeMap<String, TensorType>, ModelError> {
    let mut widened = BTreeMap::new();
    for (key, tensor_type) in [(WIDENED_BF16, TensorType::BF16), (WIDENED_F16, TensorType::F16)] {
        if let Some(names) = gguf.optional(key, Gguf::strings)? {
            widened.extend(names.iter().map(|name| (name.to_owned(), tensor_type)));
        }
    }
    Ok(widened)
}

fn shards<'a>(
    gguf: &Gguf,
    planned: Vec<Planned<'a>>,
    shard_bytes_max: usize,
) -> Result<Vec<FormFile<'a>>, ModelError> {
    let metadata = leftover_keys(gguf);
    let total_bytes: usize = planned.iter().map(bytes_of).sum();
    let shards = divide(planned, shard_bytes_max);
    let count = shards.len();
    let mut weight_map = serde_json::Map::new();
    let mut files = Vec::new();
    for (index, tensors) in shards.into_iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        let plans: Vec<TensorPlan> = tensors.iter().map(|tensor| tensor.plan.clone()).collect();
        let layout = SafetensorsHeader::layout(&name, &plans, &metadata)?;
        weight_map.extend(plans.into_iter().map(|plan| (plan.name, Value::from(name.clone()))));
        files.push(FormFile::Tensors(TensorFile { name, layout, tensors }));
    }
    if count > 1 {
        let index = json!({ "metadata": { "total_size": total_bytes }, "weight_map": weight_map });
        files.push(FormFile::Small { name: INDEX_FILE.to_owned(), bytes: index.to_string().into_bytes() });
    }
    Ok(files)
}

/// Bytes of a tensor as it is written.
fn bytes_of(tensor: &Planned<'_>) -> usize {
    tensor.plan.tensor_type.bytes_of(tensor.plan.shape.iter().product()).unwrap_or(0)
}

/// Tensors in order, a new shard where the next one would not fit.
fn divide(planned: Vec<Planned<'_>>, shard_bytes_max: usize) -> Vec<Vec<Planned<'_>>> {
    let mut shards = vec![Vec::new()];
    let mut used = 0;
    for tensor in planned {
        let bytes = bytes_of(&tensor);
        if used > 0 && used + bytes > shard_bytes_max {
            shards.push(Vec::new());
            used = 0;
        }
        used += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

/// The files of an earlier conversion, unless the keys say something else by now.
fn carried(gguf: &Gguf, config: &ModelConfig, vocab: &GgufVocab) -> Result<Option<SmallFiles>, ModelError> {
    let mut files = SmallFiles::new();
    for name in CARRIED_FILES {
        if let Some(text) = gguf.optional(&format!("{CARRIED_PREFIX}{name}"), Gguf::str)? {
            files.insert(name.to_owned(), text.as_bytes().to_vec());
        }
    }
    if let Some(text) = gguf.optional(TOKENIZER_KEY, Gguf::str)? {
        files.insert("tokenizer.json".to_owned(), text.as_bytes().to_vec());
    }
    let template = gguf.optional("tokenizer.chat_template", Gguf::str)?;
    Ok(says_the_same(&files, config, vocab, template).then_some(files))
}

fn says_the_same(
    files: &SmallFiles,
    config: &ModelConfig,
    vocab: &GgufVocab,
    template: Option<&str>,
) -> bool {
    let bytes = |name: &str| files.get(name).map(Vec::as_slice);
    let (Some(config_json), Some(tokenizer_json)) = (bytes("config.json"), bytes("tokenizer.json")) else {
        return false;
    };
    let small = HuggingFaceFiles {
        tokenizer_config: bytes("tokenizer_config.json"),
        generation_config: bytes("generation_config.json"),
        special_tokens_map: bytes("special_tokens_map.json"),
        config: Some(config_json),
        chat_template: bytes("chat_template.jinja").and_then(|text| str::from_utf8(text).ok()),
    };
    let Ok(other) = ModelConfig::from_hugging_face(config_json) else { return false };
    let other = ModelConfig { names: NameScheme::Gguf, rope_layout: RopeLayout::Interleaved, ..other };
    let Ok(tokenizer) = TokenizerConfig::read(&small) else { return false };
    let Ok(special) = tokenizer.special_tokens(tokenizer_json) else { return false };
    let Ok(other_vocab) = gguf_vocab(tokenizer_json, &special, config.vocab) else { return false };
    other == *config && other_vocab == *vocab && tokenizer.chat_template.as_deref() == template
}

/// The small files as the keys have them.
fn made(
    origin: &Origin,
    gguf: &Gguf,
    vocab: &GgufVocab,
    planned: &[Planned<'_>],
) -> Result<SmallFiles, ModelError> {
    let tokenizer_json = gguf_tokenizer_json(vocab)
        .map_err(|source| ModelError::Text { file: "tokenizer.ggml".to_owned(), source })?;
    let template = gguf.optional("tokenizer.chat_template", Gguf::str)?;
    let special = vocab.special_tokens();
    let documents = [
        ("config.json", config_json(&origin.config, vocab, planned)),
        ("generation_config.json", json!({ "bos_token_id": special.bos, "eos_token_id": special.eos })),
        ("tokenizer_config.json", tokenizer_config_json(vocab, template, origin.config.context_tokens)),
    ];
    let pretty = |value: &Value| format!("{value:#}\n").into_bytes();
    let mut files: SmallFiles =
        documents.iter().map(|(name, value)| ((*name).to_owned(), pretty(value))).collect();
    files.insert("tokenizer.json".to_owned(), tokenizer_json);
    Ok(files)
}

fn config_json(config: &ModelConfig, vocab: &GgufVocab, planned: &[Planned<'_>]) -> Value {
    let matrices = planned.iter().filter(|tensor| tensor.plan.shape.len() > 1);
    let dtype = match matrices.map(|tensor| tensor.plan.tensor_type).max() {
        Some(TensorType::F16) => "float16",
        Some(TensorType::BF16) => "bfloat16",
        _ => "float32",
    };
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": config.architecture, "torch_dtype": dtype,
        "num_hidden_layers": config.layers, "hidden_size": config.hidden, "intermediate_size": config.ffn,
        "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim, "vocab_size": config.vocab,
        "max_position_embeddings": config.context_tokens, "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps, "tie_word_embeddings": config.tied_embeddings,
        "hidden_act": "silu", "attention_bias": false, "mlp_bias": false,
        "bos_token_id": vocab.bos, "eos_token_id": vocab.eos,
    })
}

fn tokenizer_config_json(vocab: &GgufVocab, template: Option<&str>, context_tokens: usize) -> Value {
    let text = |id: Option<TokenId>| id.and_then(|id| vocab.tokens.get(id as usize));
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context_tokens,
        "add_bos_token": vocab.add_bos, "clean_up_tokenization_spaces": false,
    });
    for (key, id) in [
        ("bos_token", vocab.bos),
        ("eos_token", vocab.eos),
        ("unk_token", vocab.unknown),
        ("pad_token", vocab.pad),
    ] {
        if let Some(text) = text(id) {
            config[key] = text.as_str().into();
        }
    }
    if let Some(template) = template {
        config["chat_template"] = template.into();
    }
    config
}

/// Keys that stand in the small files, or that only describe the file that was.
fn is_said_elsewhere(key: &str) -> bool {
    const TOKENIZER_ARRAYS: [&str; 3] =
        ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"];
    TOKENIZER_ARRAYS.contains(&key)
        || [TOKENIZER_KEY, "tokenizer.chat_template", "general.file_type", "general.alignment"].contains(&key)
        || key.starts_with("helios.")
}

fn leftover_keys(gguf: &Gguf) -> BTreeMap<String, String> {
    let leftover = gguf.metadata.iter().filter(|(key, _)| !is_said_elsewhere(key));
    let leftover = leftover.map(|(key, value)| (format!("gguf.{key}"), value_text(value)));
    // Readers of the Hugging Face libraries refuse a file that does not say for which framework it was written.
    leftover.chain([("format".to_owned(), "pt".to_owned())]).collect()
}

fn value_text(value: &GgufValue) -> String {
    match value {
        GgufValue::String(text) => text.clone(),
        GgufValue::Bool(value) => value.to_string(),
        GgufValue::F32(value) => value.to_string(),
        GgufValue::F64(value) => value.to_string(),
        GgufValue::Array(array) => array_text(array),
        integer => integer.as_integer().unwrap_or_default().to_string(),
    }
}

/// An array as JSON.
fn array_text(array: &GgufArray) -> String {
    match array {
        GgufArray::U8(values) => format!("{values:?}"),
        GgufArray::I8(values) => format!("{values:?}"),
        GgufArray::U16(values) => format!("{values:?}"),
        GgufArray::I16(values) => format!("{values:?}"),
        GgufArray::U32(values) => format!("{values:?}"),
        GgufArray::I32(values) => format!("{values:?}"),
        GgufArray::U64(values) => format!("{values:?}"),
        GgufArray::I64(values) => format!("{values:?}"),
        GgufArray::F32(values) => format!("{values:?}"),
        GgufArray::F64(values) => format!("{values:?}"),
        GgufArray::Bool(values) => format!("{values:?}"),
        GgufArray::String(values) => json!(values.iter().collect::<Vec<_>>()).to_string(),
    }
}
