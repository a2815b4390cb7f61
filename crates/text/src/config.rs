//! What the files beside a Hugging Face `tokenizer.json` say about special tokens and the chat template.

use std::collections::HashMap;

use helios_types::TokenId;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{SpecialTokens, TextError};

/// The contents of a Hugging Face model directory's small files; those that are absent are `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct HuggingFaceFiles<'a> {
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `generation_config.json`.
    pub generation_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a [u8]>,
    /// `config.json`.
    pub config: Option<&'a [u8]>,
    /// `chat_template.jinja`, which goes before the template inside `tokenizer_config.json`.
    pub chat_template: Option<&'a str>,
}

/// What those files say, with special tokens still by text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Text of the beginning-of-sequence token.
    pub bos: Option<String>,
    /// Text of the end-of-sequence token.
    pub eos: Option<String>,
    /// Text of the unknown token.
    pub unknown: Option<String>,
    /// Text of the padding token.
    pub pad: Option<String>,
    /// Ids that end generation, from `generation_config.json`, else `config.json`.
    pub eos_ids: Vec<TokenId>,
    /// Whether plain prompts start with `bos`; `None` where the files do not say.
    pub add_bos: Option<bool>,
    /// Source of the chat template.
    pub chat_template: Option<String>,
}

impl TokenizerConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TextError::InvalidConfig`] naming the file.
    pub fn read(files: &HuggingFaceFiles<'_>) -> Result<Self, TextError> {
        let config: TokenizerConfigFile = parse("tokenizer_config.json", files.tokenizer_config)?;
        let map: SpecialTokensFile = parse("special_tokens_map.json", files.special_tokens_map)?;
        let generation: EosFile = parse("generation_config.json", files.generation_config)?;
        let model: EosFile = parse("config.json", files.config)?;
        let first =
            |one: Option<TokenText>, other: Option<TokenText>| one.or(other).map(TokenText::into_string);
        let own_template = files.chat_template.map(str::to_owned);
        Ok(Self {
            bos: first(config.special.bos_token, map.bos_token),
            eos: first(config.special.eos_token, map.eos_token),
            unknown: first(config.special.unk_token, map.unk_token),
            pad: first(config.special.pad_token, map.pad_token),
            eos_ids: generation.eos_token_id.or(model.eos_token_id).map(Ids::into_vec).unwrap_or_default(),
            add_bos: config.add_bos_token,
            chat_template: own_template
                .or_else(|| config.chat_template.and_then(TemplateField::default_source)),
        })
    }

    /// Looks the special tokens up in `tokenizer.json`. The end-of-sequence token of the tokenizer comes first among
    /// the ids that end generation.
    ///
    /// # Errors
    /// [`TextError::InvalidTokenizer`], and [`TextError::UnknownSpecialToken`] for a text that is not in it. A padding
    /// or unknown token that is not in it is left out: nothing needs it.
    pub fn special_tokens(&self, tokenizer_json: &[u8]) -> Result<SpecialTokens, TextError> {
        let vocabulary = Vocabulary::read(tokenizer_json)?;
        let bos = vocabulary.find("bos_token", self.bos.as_deref())?;
        let mut eos: Vec<TokenId> = vocabulary.find("eos_token", self.eos.as_deref())?.into_iter().collect();
        for id in &self.eos_ids {
            if !eos.contains(id) {
                eos.push(*id);
            }
        }
        let lookup =
            |text: &Option<String>| text.as_deref().and_then(|text| vocabulary.ids.get(text).copied());
        let add_bos = bos.is_some() && self.add_bos.unwrap_or(vocabulary.adds_bos);
        Ok(SpecialTokens { bos, eos, unknown: lookup(&self.unknown), pad: lookup(&self.pad), add_bos })
    }
}

/// The parts of `tokenizer.json` that map texts to ids.
struct Vocabulary {
    ids: HashMap<String, TokenId>,
    /// Whether its post-processor is a template, which is how a tokenizer puts a token in front of every text.
    adds_bos: bool,
}

impl Vocabulary {
    fn read(tokenizer_json: &[u8]) -> Result<Self, TextError> {
        let invalid = |error: serde_json::Error| TextError::InvalidTokenizer { reason: error.to_string() };
        let document: TokenizerFile = serde_json::from_slice(tokenizer_json).map_err(invalid)?;
        let mut ids = match document.model.vocab {
            VocabField::ById(map) => map,
            VocabField::ByPosition(list) => list.into_iter().map(|(text, _)| text).zip(0..).collect(),
        };
        ids.extend(document.added_tokens.into_iter().map(|token| (token.content, token.id)));
        Ok(Self {
            ids,
            adds_bos: document.post_processor.is_some_and(|step| step.kind == "TemplateProcessing"),
        })
    }

    fn find(&self, field: &'static str, text: Option<&str>) -> Result<Option<TokenId>, TextError> {
        let Some(text) = text else { return Ok(None) };
        let unknown = || TextError::UnknownSpecialToken { field, token: text.to_owned() };
        self.ids.get(text).copied().map(Some).ok_or_else(unknown)
    }
}

fn parse<T: DeserializeOwned + Default>(file: &'static str, json: Option<&[u8]>) -> Result<T, TextError> {
    let Some(json) = json else { return Ok(T::default()) };
    serde_json::from_slice(json).map_err(|error| TextError::InvalidConfig { file, reason: error.to_string() })
}

#[derive(Default, Deserialize)]
struct TokenizerConfigFile {
    #[serde(flatten)]
    special: SpecialTokensFile,
    add_bos_token: Option<bool>,
    chat_template: Option<TemplateField>,
}

#[derive(Default, Deserialize)]
struct SpecialTokensFile {
    bos_token: Option<TokenText>,
    eos_token: Option<TokenText>,
    unk_token: Option<TokenText>,
    pad_token: Option<TokenText>,
}

/// A special token: its text, or an object with it.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenText {
    Plain(String),
    Object { content: String },
}

impl TokenText {
    fn into_string(self) -> String {
        match self {
            Self::Plain(text) | Self::Object { content: text } => text,
        }
    }
}

#[derive(Default, Deserialize)]
struct EosFile {
    eos_token_id: Option<Ids>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(TokenId),
    Many(Vec<TokenId>),
}

impl Ids {
    fn into_vec(self) -> Vec<TokenId> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// One template, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum TemplateField {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl TemplateField {
    fn default_source(self) -> Option<String> {
        match self {
            Self::One(source) => Some(source),
            Self::Named(templates) => templates
                .into_iter()
                .find(|template| template.name == "default")
                .map(|template| template.template),
        }
    }
}

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: ModelField,
    post_processor: Option<StepKind>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: TokenId,
    content: String,
}

#[derive(Deserialize)]
struct ModelField {
    vocab: VocabField,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum VocabField {
    ById(HashMap<String, TokenId>),
    ByPosition(Vec<(String, f64)>),
}

#[derive(Deserialize)]
struct StepKind {
    #[serde(rename = "type")]
    kind: String,
}

#[cfg(test)]
mod tests {
    use super::{HuggingFaceFiles, TokenizerConfig};
    use crate::SpecialTokens;

    const TOKENIZER: &[u8] =
        br#"{"added_tokens": [{"id": 2, "content": "<|im_end|>"}, {"id": 3, "content": "<s>"}],
        "model": {"vocab": {"a": 0, "b": 1, "<|im_end|>": 2}}}"#;

    fn read(config: &[u8]) -> TokenizerConfig {
        let files = HuggingFaceFiles {
            tokenizer_config: Some(config),
            generation_config: Some(br#"{"eos_token_id": [1, 2]}"#),
            special_tokens_map: Some(br#"{"bos_token": "<s>", "eos_token": "b"}"#),
            ..HuggingFaceFiles::default()
        };
        TokenizerConfig::read(&files).expect("configuration")
    }

    #[test]
    fn files_add_up() {
        let config = read(
            br#"{"eos_token": {"content": "<|im_end|>"}, "add_bos_token": true, "pad_token": "absent",
                "chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]}"#,
        );
        assert_eq!(config.chat_template.as_deref(), Some("D"));
        let expected =
            SpecialTokens { bos: Some(3), eos: vec![2, 1], add_bos: true, ..SpecialTokens::default() };
        assert_eq!(config.special_tokens(TOKENIZER).expect("known tokens"), expected);
    }

    #[test]
    fn an_end_token_outside_the_vocabulary_is_refused() {
        let error = read(br#"{"eos_token": "</s>"}"#).special_tokens(TOKENIZER).expect_err("unknown");
        assert_eq!(error.to_string(), "special token \"</s>\" of eos_token is not in the vocabulary");
    }
}
