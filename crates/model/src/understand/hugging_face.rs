//! What a folder in the Hugging Face form says about its model.

use std::collections::BTreeMap;

use helios_storage::{Blob, Checkpoint, ModelConfig, ShardIndex};
use helios_text::{HuggingFaceFiles, Tokenizer, TokenizerConfig};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Described, SourceFiles, Texts, if_supported, in_file, texts};
use crate::manifest::WeightFormat;
use crate::profile::ModelShape;
use crate::selection::INDEX_FILE;
use crate::{Lineage, ModelError};

const CONFIG_FILE: &str = "config.json";
const TOKENIZER_FILE: &str = "tokenizer.json";

pub(super) fn describe(files: &SourceFiles, source: &str) -> Result<Described, ModelError> {
    check(files, source)?;
    let config_json = files.required(CONFIG_FILE, source)?;
    let config = if_supported(ModelConfig::from_hugging_face(&config_json))?;
    let index = files.get(INDEX_FILE);
    let checkpoint = Checkpoint::from_safetensors(files.with_suffix(".safetensors"), index.as_deref())?;
    let tokenizer_config = tokenizer_config(files, &config_json, source);
    let chat_template = tokenizer_config.as_ref().ok().and_then(|config| config.chat_template.clone());
    let read_texts = tokenizer_config.and_then(|told| read_texts(files, &told, source));
    Ok(Described {
        format: WeightFormat::Safetensors,
        architecture: family(&config_json),
        shape: ModelShape::from_hugging_face(&config_json).ok(),
        texts: texts(config.as_ref(), read_texts)?,
        config,
        checkpoint,
        chat_template,
        // What the card says was found where the files were gathered.
        licence: None,
        lineage: Lineage::default(),
    })
}

/// Checks what can be told without the weights.
pub(super) fn check(files: &SourceFiles, source: &str) -> Result<(), ModelError> {
    let config = files.required(CONFIG_FILE, source)?;
    let tokenizer = files.required(TOKENIZER_FILE, source)?;
    for (name, json) in [(CONFIG_FILE, config.as_ref()), (TOKENIZER_FILE, tokenizer.as_ref())] {
        let parsed = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(json);
        parsed.map_err(|error| ModelError::invalid_manifest(format!("`{name}`"), error.to_string()))?;
    }
    if_supported(ModelConfig::from_hugging_face(&config))?;
    if let Some(index) = files.get(INDEX_FILE) {
        ShardIndex::parse(INDEX_FILE, &index)?;
    }
    Ok(())
}

/// The family that a configuration names, or the class that it is for.
fn family(config_json: &[u8]) -> String {
    let config: Value = serde_json::from_slice(config_json).unwrap_or_default();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let class = || text(config.get("architectures").and_then(|classes| classes.get(0)));
    text(config.get("model_type")).or_else(class).unwrap_or_else(|| "unknown".to_owned())
}

fn tokenizer_config(
    files: &SourceFiles,
    config_json: &[u8],
    source: &str,
) -> Result<TokenizerConfig, ModelError> {
    let small = ["tokenizer_config.json", "generation_config.json", "special_tokens_map.json"];
    let [tokenizer, generation, special] = small.map(|name| files.get(name));
    let template_file = files.get("chat_template.jinja");
    let chat_template = template_file.as_ref().map(|template: &Blob| {
        std::str::from_utf8(template)
            .map_err(|_| ModelError::invalid("`chat_template.jinja`", "it is not UTF-8"))
    });
    let small = HuggingFaceFiles {
        tokenizer_config: tokenizer.as_deref(),
        generation_config: generation.as_deref(),
        special_tokens_map: special.as_deref(),
        config: Some(config_json),
        chat_template: chat_template.transpose()?,
    };
    TokenizerConfig::read(&small).map_err(in_file(source))
}

fn read_texts(files: &SourceFiles, told: &TokenizerConfig, source: &str) -> Result<Texts, ModelError> {
    let json = files.required(TOKENIZER_FILE, source)?;
    let special_tokens = told.special_tokens(&json).map_err(in_file(TOKENIZER_FILE))?;
    let tokenizer = Tokenizer::from_json(&json, special_tokens.clone()).map_err(in_file(TOKENIZER_FILE))?;
    Ok(Texts { made_json: None, special_tokens, tokenizer })
}
