//! What the files of a model say: headers are read, checked, and turned into small derived files.
//!
//! Any family is taken whose headers can be read: the registry serves engines of every kind. What only the native engine
//! needs is derived for the models that it runs.

mod gguf;
mod hugging_face;

use std::collections::BTreeMap;

use helios_storage::{Blob, Checkpoint, FileBytes, ModelConfig, NATIVE_TENSOR_TYPES};
use helios_text::{SpecialTokens, TextError, Tokenizer};
use helios_types::TensorType;

pub(crate) use gguf::vocab as gguf_file_vocab;

use crate::manifest::{DERIVED, ModelFacts, Role, WeightFormat};
use crate::profile::{MemoryProfile, ModelShape};
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
    architecture: String,
    /// Its dimensions, of a family that has them.
    shape: Option<ModelShape>,
    /// What the native engine needs to run it, if it does.
    config: Option<ModelConfig>,
    checkpoint: Checkpoint,
    texts: Option<Texts>,
    chat_template: Option<String>,
    licence: Option<String>,
    lineage: Lineage,
}

/// A tokenizer that Helios can read.
struct Texts {
    /// `tokenizer.json`, where it is not among the files.
    made_json: Option<Vec<u8>>,
    special_tokens: SpecialTokens,
    tokenizer: Tokenizer,
}

/// The files of a model by name. Weights may lie in several blobs and are never copied.
struct SourceFiles(BTreeMap<String, FileBytes>);

/// Reads the files of a model by name: one GGUF file, or those of a folder in the Hugging Face form. `licence` is what is
/// said beside them, `source` names them in errors. Blocks.
///
/// # Errors
/// [`ModelError`] that names the file and what is wrong with it; one [that is unsupported](ModelError::is_unsupported) if
/// the files may be right, and their headers are of a kind that Helios does not read.
pub fn understand(
    files: BTreeMap<String, FileBytes>,
    licence: Option<String>,
    source: &str,
) -> Result<Understood, ModelError> {
    let files = SourceFiles(files);
    let described = match files.0.first_key_value() {
        Some((name, file)) if files.0.len() == 1 && name.ends_with(".gguf") => {
            gguf::describe(name, file.clone())?
        }
        _ => hugging_face::describe(&files, source)?,
    };
    let derived = derive(&described)?;
    let context_tokens = described.shape.as_ref().map_or(0, |shape| shape.context_tokens);
    let profile = MemoryProfile::new(described.shape, described.checkpoint.tensors());
    let facts = ModelFacts {
        architecture: described.architecture,
        parameters: match profile.is_packed() {
            true => 0,
            false => described.checkpoint.tensors().map(|tensor| tensor.elements() as u64).sum(),
        },
        context_tokens,
        licence: licence.or(described.licence),
        source: source.to_owned(),
        quantisation: most_bytes(&profile.weight_bytes_by_type)
            .ok_or_else(|| ModelError::invalid(source, "it has no tensors"))?,
        format: described.format,
    };
    Ok(Understood { derived, facts, profile, lineage: described.lineage })
}

/// Checks the small files of a folder in the Hugging Face form, so that weights that nothing can be made of are not fetched.
///
/// # Errors
/// As [`understand`], as far as these files say.
pub fn check_small_files(files: BTreeMap<String, FileBytes>, source: &str) -> Result<(), ModelError> {
    hugging_face::check(&SourceFiles(files), source)
}

impl SourceFiles {
    /// A small file.
    fn get(&self, name: &str) -> Option<Blob> {
        self.0.get(name).map(FileBytes::to_blob)
    }

    fn required(&self, name: &str, source: &str) -> Result<Blob, ModelError> {
        self.get(name).ok_or_else(|| ModelError::invalid(source, format!("it has no `{name}`")))
    }

    fn with_suffix(&self, suffix: &str) -> Vec<(String, FileBytes)> {
        let fitting = self.0.iter().filter(|(name, _)| name.ends_with(suffix));
        fitting.map(|(name, file)| (name.clone(), file.clone())).collect()
    }
}

/// What a file says, or nothing if that may be right and is not for the native engine.
fn if_supported<T, E: Into<ModelError>>(read: Result<T, E>) -> Result<Option<T>, ModelError> {
    match read.map_err(Into::into) {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.is_unsupported() => {
            tracing::info!(%error, "a model is kept that the native engine does not run");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A tokenizer, as [`if_supported`]; of a family that the native engine does not run, any that Helios cannot read counts
/// as unsupported.
fn texts(config: Option<&ModelConfig>, read: Result<Texts, ModelError>) -> Result<Option<Texts>, ModelError> {
    let Some(config) = config else {
        return Ok(read.inspect_err(|error| tracing::info!(%error, "a tokenizer is only kept")).ok());
    };
    let texts = if_supported(read)?;
    match texts.as_ref().map(|texts| texts.tokenizer.vocab_len()).filter(|&tokens| tokens > config.vocab) {
        Some(tokens) => {
            let problem = format!("{tokens} tokens for a vocabulary of {}", config.vocab);
            Err(ModelError::invalid("`tokenizer.json`", problem))
        }
        None => Ok(texts),
    }
}

/// Makes the derived files: those that proxies need, if the tokenizer can be read, and then what the native engine needs, if
/// it runs the model.
fn derive(described: &Described) -> Result<Vec<DerivedFile>, ModelError> {
    let mut files = Vec::new();
    let mut add = |role, name: &str, bytes: Vec<u8>| {
        files.push(DerivedFile { role, path: format!("{DERIVED}/{name}"), bytes });
    };
    if let Some(texts) = &described.texts {
        if let Some(json) = &texts.made_json {
            add(Role::Tokenizer, "tokenizer.json", json.clone());
        }
        add(Role::SpecialTokens, "special_tokens.json", json_bytes(&texts.special_tokens)?);
    }
    if let Some(template) = &described.chat_template {
        add(Role::ChatTemplate, "chat_template.jinja", template.clone().into_bytes());
    }
    if let Some(texts) = &described.texts {
        if let Some(config) = described.config.as_ref().filter(|_| stored_natively(&described.checkpoint)) {
            add(Role::Config, "model_config.json", json_bytes(config)?);
        }
        add(Role::TokenBytes, "token_bytes.bin", token_table::encode(&texts.tokenizer)?);
    }
    Ok(files)
}

/// Whether the native engine computes with every element type.
fn stored_natively(checkpoint: &Checkpoint) -> bool {
    let foreign = checkpoint.tensors().find(|tensor| !NATIVE_TENSOR_TYPES.contains(&tensor.tensor_type));
    if let Some(tensor) = foreign {
        let (tensor, stored_as) = (&tensor.name, tensor.tensor_type.as_str());
        tracing::info!(tensor, stored_as, "a model is kept that the native engine does not run");
    }
    foreign.is_none()
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
