//! From a model's files to its manifest: headers are read, checked, and turned into small derived files, so that a
//! proxy never needs weights and a worker never needs a tokenizer.

pub(crate) mod gguf;
mod hugging_face;

use std::collections::BTreeMap;

use helios_storage::{Blob, BlobInfo, Checkpoint, ModelConfig};
use helios_text::{SpecialTokens, TextError, Tokenizer};
use helios_types::{Classify, ErrorCode, TensorType};

use crate::fetch::{Gathered, GatheredFile, select};
use crate::lineage::{ADAPTER_FILE, CARD_BYTES_MAX, CARD_FILE, Card, adapter};
use crate::manifest::{FileEntry, MANIFEST_SCHEMA, ModelFacts, Role, WeightFormat};
use crate::pins::Intake;
use crate::profile::MemoryProfile;
use crate::{Lineage, Manifest, RegistryError, token_table};

/// Folder of derived files in a manifest; no source has it.
pub const DERIVED: &str = "helios";

/// Whether a name is in the folder of what Helios makes itself.
pub fn is_derived(path: &str) -> bool {
    path.split('/').next() == Some(DERIVED)
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

/// What is known of files that are a model.
struct Understood {
    derived: Vec<FileEntry>,
    facts: ModelFacts,
    profile: MemoryProfile,
    lineage: Lineage,
}

/// Reads the files of a model, stores what is derived from them, and describes all of it. Blocks.
pub(crate) fn manifest(intake: &Intake, gathered: Gathered, source: &str) -> Result<Manifest, RegistryError> {
    let files = SourceFiles::open(intake, &gathered.files)?;
    let understood = understand(intake, &gathered.files, &files, gathered.licence, source)?;
    Ok(described(gathered.files.iter().map(entry).collect(), Ok(understood), gathered.lineage))
}

/// As [`manifest`], of files that may be no model or have one among them: a repository, an artifact. Blocks.
pub(crate) fn manifest_of_any(
    intake: &Intake,
    mut files: Vec<GatheredFile>,
    source: &str,
) -> Result<Manifest, RegistryError> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let chosen = select(source, &names).unwrap_or_default();
    let chosen: Vec<GatheredFile> =
        files.iter().filter(|file| chosen.contains(&file.path.as_str())).cloned().collect();
    let opened = SourceFiles::open(intake, &chosen)?;
    let (licence, lineage) = cards(intake, &files)?;
    let understood = match understand(intake, &chosen, &opened, licence.clone(), source) {
        Ok(understood) => Ok(understood),
        Err(error) if matches!(error.code(), ErrorCode::InvalidRequest | ErrorCode::Corrupt) => {
            tracing::info!(source, reason = %error, "files are kept that are no model");
            Err(licence)
        }
        Err(error) => return Err(error),
    };
    let is_chosen = |path: &str| chosen.iter().any(|file| file.path == path);
    let entries = files.iter().map(|file| match is_chosen(&file.path) {
        true => entry(file),
        false => FileEntry { role: Role::Original, path: file.path.clone(), blob: file.blob },
    });
    Ok(described(entries.collect(), understood, lineage))
}

/// Licence and lineage, as the small files for it among the others say.
fn cards(intake: &Intake, files: &[GatheredFile]) -> Result<(Option<String>, Lineage), RegistryError> {
    let mut about = (None, Lineage::default());
    for file in files.iter().filter(|file| file.blob.size <= CARD_BYTES_MAX) {
        match file.path.as_str() {
            CARD_FILE => {
                let card = Card::of_readme(&intake.blobs().get(&file.blob)?);
                about = (card.licence(), about.1.or(card.lineage()));
            }
            ADAPTER_FILE => about.1 = about.1.or(adapter(&intake.blobs().get(&file.blob)?)),
            _ => {}
        }
    }
    Ok(about)
}

/// The manifest of files that are understood, or of others with the licence that they have.
fn described(
    mut files: Vec<FileEntry>,
    understood: Result<Understood, Option<String>>,
    lineage: Lineage,
) -> Manifest {
    let (metadata, profile, lineage) = match understood {
        Ok(Understood { derived, facts, profile, lineage: told }) => {
            files.extend(derived);
            (Some(facts), Some(profile), lineage.or(told))
        }
        Err(licence) => (None, None, Lineage { licence, ..lineage }),
    };
    Manifest { schema: MANIFEST_SCHEMA, files, metadata, profile, lineage: lineage.if_known() }
}

fn understand(
    intake: &Intake,
    gathered: &[GatheredFile],
    files: &SourceFiles,
    licence: Option<String>,
    source: &str,
) -> Result<Understood, RegistryError> {
    let described = match gathered {
        [file] if file.path.ends_with(".gguf") => {
            gguf::describe(&file.path, files.required(&file.path, source)?)?
        }
        _ => hugging_face::describe(files, source)?,
    };
    let derived = derive(intake, &described)?;
    let profile = MemoryProfile::new((&described.config).into(), described.checkpoint.tensors());
    let facts = ModelFacts {
        architecture: described.config.architecture.clone(),
        parameters: described.checkpoint.tensors().map(|tensor| tensor.elements() as u64).sum(),
        context_tokens: described.config.context_tokens as u64,
        licence: licence.or(described.licence),
        source: source.to_owned(),
        quantisation: most_bytes(&profile.weight_bytes_by_type)
            .ok_or_else(|| RegistryError::invalid_model(source, "it has no tensors"))?,
        format: described.format,
    };
    Ok(Understood { derived, facts, profile, lineage: described.lineage })
}

impl SourceFiles {
    fn open(intake: &Intake, files: &[GatheredFile]) -> Result<Self, RegistryError> {
        let open = |file: &GatheredFile| Ok((file.path.clone(), intake.blobs().get(&file.blob)?));
        files.iter().map(open).collect::<Result<_, RegistryError>>().map(Self)
    }

    fn get(&self, name: &str) -> Option<&Blob> {
        self.0.get(name)
    }

    fn required(&self, name: &str, source: &str) -> Result<Blob, RegistryError> {
        let blob = self.get(name).cloned();
        blob.ok_or_else(|| RegistryError::invalid_model(source, format!("it has no `{name}`")))
    }

    fn with_suffix(&self, suffix: &str) -> Vec<(String, Blob)> {
        let fitting = self.0.iter().filter(|(name, _)| name.ends_with(suffix));
        fitting.map(|(name, blob)| (name.clone(), blob.clone())).collect()
    }
}

fn entry(file: &GatheredFile) -> FileEntry {
    let role = match file.path.as_str() {
        "tokenizer.json" => Role::Tokenizer,
        crate::fetch::INDEX_FILE => Role::WeightsIndex,
        path if path.ends_with(".gguf") || path.ends_with(".safetensors") => Role::Weights,
        _ => Role::Original,
    };
    FileEntry { role, path: file.path.clone(), blob: file.blob }
}

/// Stores the derived files.
fn derive(intake: &Intake, described: &Described) -> Result<Vec<FileEntry>, RegistryError> {
    let json = match &described.tokenizer_json {
        TokenizerJson::File(blob) => blob,
        TokenizerJson::Derived(bytes) => bytes.as_slice(),
    };
    let tokenizer =
        Tokenizer::from_json(json, described.special_tokens.clone()).map_err(in_file("tokenizer.json"))?;
    if tokenizer.vocab_len() > described.config.vocab {
        let problem =
            format!("{} tokens for a vocabulary of {}", tokenizer.vocab_len(), described.config.vocab);
        return Err(RegistryError::invalid_model("`tokenizer.json`", problem));
    }
    let mut entries = Vec::new();
    let mut add = |role, name: &str, bytes: &[u8]| -> Result<(), RegistryError> {
        let blob: BlobInfo = intake.put(bytes)?;
        entries.push(FileEntry { role, path: format!("{DERIVED}/{name}"), blob });
        Ok(())
    };
    if let TokenizerJson::Derived(bytes) = &described.tokenizer_json {
        add(Role::Tokenizer, "tokenizer.json", bytes)?;
    }
    add(Role::SpecialTokens, "special_tokens.json", &json_bytes(&described.special_tokens)?)?;
    if let Some(template) = &described.chat_template {
        add(Role::ChatTemplate, "chat_template.jinja", template.as_bytes())?;
    }
    add(Role::Config, "model_config.json", &json_bytes(&described.config)?)?;
    add(Role::TokenBytes, "token_bytes.bin", &token_table::encode(&tokenizer)?)?;
    Ok(entries)
}

fn json_bytes(value: &impl serde::Serialize) -> Result<Vec<u8>, RegistryError> {
    serde_json::to_vec(value).map_err(|error| RegistryError::Internal {
        problem: format!("a derived file cannot be written: {error}"),
    })
}

fn in_file(file: &str) -> impl FnOnce(TextError) -> RegistryError {
    let file = file.to_owned();
    move |source| RegistryError::Text { file, source }
}

/// The element type with the most bytes.
fn most_bytes(by_type: &BTreeMap<TensorType, u64>) -> Option<TensorType> {
    by_type.iter().max_by_key(|(_, bytes)| **bytes).map(|(tensor_type, _)| *tensor_type)
}
