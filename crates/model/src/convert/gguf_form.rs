//! The GGUF form of a safetensors checkpoint: one file with keys for what the small files say, and those files too.

use std::collections::BTreeMap;

use helios_storage::{Gguf, GgufArray, GgufValue, ModelConfig, NameScheme, StringArray, TensorPlan};
use helios_text::{GgufVocab, SpecialTokens, gguf_vocab};
use helios_types::TensorType;

use super::tensors::{self, Planned};
use super::{
    CARRIED_FILES, CARRIED_PREFIX, FormFile, Origin, TOKENIZER_KEY, TensorFile, WIDENED_BF16, WIDENED_F16,
};
use crate::{ModelError, Role};

type Metadata = BTreeMap<String, GgufValue>;

/// Name of the file in the model.
const FILE: &str = "model.gguf";

pub(super) fn files(origin: &Origin) -> Result<Vec<FormFile<'_>>, ModelError> {
    let narrow = BTreeMap::new();
    let planned = tensors::plan(origin, NameScheme::Gguf, &narrow)?;
    let mut metadata = general_keys(origin, &planned);
    config_keys(&mut metadata, &origin.config);
    tokenizer_keys(&mut metadata, origin)?;
    carried_keys(&mut metadata, origin)?;
    widened_keys(&mut metadata, &planned)?;
    let plans: Vec<TensorPlan> = planned.iter().map(|tensor| tensor.plan.clone()).collect();
    let layout = Gguf::layout(FILE, &metadata, &plans)?;
    Ok(vec![FormFile::Tensors(TensorFile { name: FILE.to_owned(), layout, tensors: planned })])
}

fn general_keys(origin: &Origin, planned: &[Planned<'_>]) -> Metadata {
    let facts = origin.manifest.metadata.as_ref();
    let mut keys = Metadata::new();
    put_text(&mut keys, "general.architecture", &origin.config.architecture);
    put_text(&mut keys, "general.name", &origin.reference.to_string());
    if let Some(licence) = facts.and_then(|facts| facts.licence.as_ref()) {
        put_text(&mut keys, "general.license", licence);
    }
    let matrices = planned.iter().filter(|tensor| tensor.plan.shape.len() > 1);
    let most = matrices.map(|tensor| tensor.plan.tensor_type).max();
    // `llama_ftype` of llama.cpp.
    let file_type = match most {
        Some(TensorType::F16) => 1,
        Some(TensorType::BF16) => 32,
        _ => 0,
    };
    keys.insert("general.file_type".to_owned(), GgufValue::U32(file_type));
    keys
}

fn config_keys(keys: &mut Metadata, config: &ModelConfig) {
    for (key, value) in [
        ("block_count", config.layers),
        ("embedding_length", config.hidden),
        ("feed_forward_length", config.ffn),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("context_length", config.context_tokens),
        ("vocab_size", config.vocab),
    ] {
        // The configuration's own bounds are far below 32 bits.
        keys.insert(format!("{}.{key}", config.architecture), GgufValue::U32(value as u32));
    }
    for (key, value) in
        [("rope.freq_base", config.rope_theta), ("attention.layer_norm_rms_epsilon", config.norm_eps)]
    {
        keys.insert(format!("{}.{key}", config.architecture), GgufValue::F32(value));
    }
}

fn tokenizer_keys(keys: &mut Metadata, origin: &Origin) -> Result<(), ModelError> {
    let manifest = &origin.manifest;
    let blob =
        |role: Role| -> Result<_, ModelError> { Ok(origin.blobs.get(&manifest.required(role)?.blob)?) };
    let tokenizer_json = blob(Role::Tokenizer)?;
    let special: SpecialTokens = serde_json::from_slice(&blob(Role::SpecialTokens)?)
        .map_err(|error| ModelError::invalid("`special_tokens.json`", error.to_string()))?;
    let vocab = gguf_vocab(&tokenizer_json, &special, origin.config.vocab)
        .map_err(|source| ModelError::Text { file: "tokenizer.json".to_owned(), source })?;
    vocab_keys(keys, &vocab)?;
    put_text(keys, TOKENIZER_KEY, as_text("tokenizer.json", &tokenizer_json)?);
    if manifest.file(Role::ChatTemplate).is_some() {
        put_text(
            keys,
            "tokenizer.chat_template",
            as_text("chat_template.jinja", &blob(Role::ChatTemplate)?)?,
        );
    }
    Ok(())
}

fn vocab_keys(keys: &mut Metadata, vocab: &GgufVocab) -> Result<(), ModelError> {
    put_text(keys, "tokenizer.ggml.model", &vocab.model);
    put_text(keys, "tokenizer.ggml.pre", vocab.pre.as_deref().unwrap_or_default());
    put_texts(keys, "tokenizer.ggml.tokens", vocab.tokens.iter().map(String::as_str))?;
    put_texts(keys, "tokenizer.ggml.merges", vocab.merges.iter().map(String::as_str))?;
    let types = vocab.token_types.iter().map(|&kind| kind as i32).collect();
    keys.insert("tokenizer.ggml.token_type".to_owned(), GgufValue::Array(GgufArray::I32(types)));
    keys.insert("tokenizer.ggml.add_bos_token".to_owned(), GgufValue::Bool(vocab.add_bos));
    for (name, id) in [
        ("bos", vocab.bos),
        ("eos", vocab.eos),
        ("eot", vocab.eot),
        ("eom", vocab.eom),
        ("unknown", vocab.unknown),
        ("padding", vocab.pad),
    ] {
        if let Some(id) = id {
            keys.insert(format!("tokenizer.ggml.{name}_token_id"), GgufValue::U32(id));
        }
    }
    Ok(())
}

/// The small files as they are, so that the way back gives them again.
fn carried_keys(keys: &mut Metadata, origin: &Origin) -> Result<(), ModelError> {
    for name in CARRIED_FILES {
        if let Some(bytes) = origin.original(name)? {
            put_text(keys, &format!("{CARRIED_PREFIX}{name}"), as_text(name, &bytes)?);
        }
    }
    Ok(())
}

fn widened_keys(keys: &mut Metadata, planned: &[Planned<'_>]) -> Result<(), ModelError> {
    for (key, tensor_type) in [(WIDENED_BF16, TensorType::BF16), (WIDENED_F16, TensorType::F16)] {
        let widened = planned.iter().filter(|tensor| tensor.widened_from() == Some(tensor_type));
        let names: Vec<&str> = widened.map(|tensor| tensor.plan.name.as_str()).collect();
        if !names.is_empty() {
            put_texts(keys, key, names)?;
        }
    }
    Ok(())
}

fn as_text<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, ModelError> {
    str::from_utf8(bytes).map_err(|_| ModelError::invalid(format!("`{file}`"), "it is not UTF-8"))
}

fn put_text(keys: &mut Metadata, key: &str, text: &str) {
    keys.insert(key.to_owned(), GgufValue::String(text.to_owned()));
}

fn put_texts<'a>(
    keys: &mut Metadata,
    key: &str,
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<(), ModelError> {
    let packed = StringArray::pack(texts)
        .ok_or_else(|| ModelError::invalid(format!("`{key}`"), "it is over 4 GiB"))?;
    keys.insert(key.to_owned(), GgufValue::Array(GgufArray::String(packed)));
    Ok(())
}
