//! What the files of a model say: headers are read, checked, and turned into small derived files.

mod gguf;
mod hugging_face;

use std::collections::BTreeMap;

use helios_storage::{Blob, Checkpoint, ModelConfig};
use helios_text::{SpecialTokens, TextError, Tokenizer};
use helios_types::TensorType;

pub(crate) use gguf::vocab as gguf_file_vocab;

use crate::manifest::{DERIVED, ModelFacts, Role, WeightFormat};
use crate::profile::MemoryProfile;
use crate::{Lineage, ModelError, token_table};

/// What is known of files that are a model.
#[derive(Debug)]
pub struct Understood {
    /// What is to be kept beside the files.
    pub derived: Vec<DerivedFile>,
    /// What people ask about the model.
    pub facts: ModelFacts,
    /// What it needs of memory.
    pub profile: MemoryProfile,
    /// Where it comes from, as far as the files themselves say.
    pub lineage: Lineage,
}

/// A small file that is made from the others.
#[derive(Debug)]
pub struct DerivedFile {
    /// What it is for.
    pub role: Role,
    /// Its name in the model, below [`DERIVED`].
    pub path: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// What the files say about the model.
struct Described {
    format: WeightFormat,
    config: ModelConfig,
    checkpoint: Checkpoint,
    tokenizer_json: TokenizerJson,
    special_tokens: SpecialTokens,
    chat_template: Option<String>,
    licence: Option<String>,
    lineage: Lineage,
}

/// Where `tokenizer.json` is.
enum TokenizerJson {
    /// Among the files.
    File(Blob),
    /// Made from a GGUF file.
    Derived(Vec<u8>),
}

/// The files of a model, mapped, by name.
struct SourceFiles(BTreeMap<String, Blob>);

/// Reads the files of a model, mapped and by name: one GGUF file, or those of a folder in the Hugging Face form.
/// `licence` is what is said beside them, `source` names them in errors. Blocks.
///
/// # Errors
/// [`ModelError`] that names the file and what is wrong with it.
pub fn understand(
    files: BTreeMap<String, Blob>,
    licence: Option<String>,
    source: &str,
) -> Result<Understood, ModelError> {
    let files = SourceFiles(files);
    let described = match files.0.first_key_value() {
        Some((name, blob)) if files.0.len() == 1 && name.ends_with(".gguf") => {
            gguf::describe(name, blob.clone())?
        }
        _ => hugging_face::describe(&files, source)?,
    };
    let derived = derive(&described)?;
    let profile = MemoryProfile::new((&described.config).into(), described.checkpoint.tensors());
    let facts = ModelFacts {
        architecture: described.config.architecture.clone(),
        parameters: described.checkpoint.tensors().map(|tensor| tensor.elements() as u64).sum(),
        context_tokens: described.config.context_tokens as u64,
        licence: licence.or(described.licence),
        source: source.to_owned(),
        quantisation: most_bytes(&profile.weight_bytes_by_type)
            .ok_or_else(|| ModelError::invalid(source, "it has no tensors"))?,
        format: described.format,
    };
    Ok(Understood { derived, facts, profile, lineage: described.lineage })
}

impl SourceFiles {
    fn get(&self, name: &str) -> Option<&Blob> {
        self.0.get(name)
    }

    fn required(&self, name: &str, source: &str) -> Result<Blob, ModelError> {
        let blob = self.get(name).cloned();
        blob.ok_or_else(|| ModelError::invalid(source, format!("it has no `{name}`")))
    }

    fn with_suffix(&self, suffix: &str) -> Vec<(String, Blob)> {
        let fitting = self.0.iter().filter(|(name, _)| name.ends_with(suffix));
        fitting.map(|(name, blob)| (name.clone(), blob.clone())).collect()
    }
}

/// Makes the derived files.
fn derive(described: &Described) -> Result<Vec<DerivedFile>, ModelError> {
    let json = match &described.tokenizer_json {
        TokenizerJson::File(blob) => blob,
        TokenizerJson::Derived(bytes) => bytes.as_slice(),
    };
    let tokenizer =
        Tokenizer::from_json(json, described.special_tokens.clone()).map_err(in_file("tokenizer.json"))?;
    if tokenizer.vocab_len() > described.config.vocab {
        let problem =
            format!("{} tokens for a vocabulary of {}", tokenizer.vocab_len(), described.config.vocab);
        return Err(ModelError::invalid("`tokenizer.json`", problem));
    }
    let mut files = Vec::new();
    let mut add = |role, name: &str, bytes: Vec<u8>| {
        files.push(DerivedFile { role, path: format!("{DERIVED}/{name}"), bytes });
    };
    if let TokenizerJson::Derived(bytes) = &described.tokenizer_json {
        add(Role::Tokenizer, "tokenizer.json", bytes.clone());
    }
    add(Role::SpecialTokens, "special_tokens.json", json_bytes(&described.special_tokens)?);
    if let Some(template) = &described.chat_template {
        add(Role::ChatTemplate, "chat_template.jinja", template.clone().into_bytes());
    }
    add(Role::Config, "model_config.json", json_bytes(&described.config)?);
    add(Role::TokenBytes, "token_bytes.bin", token_table::encode(&tokenizer)?);
    Ok(files)
}

fn json_bytes(value: &impl serde::Serialize) -> Result<Vec<u8>, ModelError> {
    serde_json::to_vec(value).map_err(|error| ModelError::Internal {
        problem: format!("a derived file cannot be written: {error}"),
    })
}

fn in_file(file: &str) -> impl FnOnce(TextError) -> ModelError {
    let file = file.to_owned();
    move |source| ModelError::Text { file, source }
}

/// The element type with the most bytes.
fn most_bytes(by_type: &BTreeMap<TensorType, u64>) -> Option<TensorType> {
    by_type.iter().max_by_key(|(_, bytes)| **bytes).map(|(tensor_type, _)| *tensor_type)
}
