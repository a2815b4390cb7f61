//! From a model's files to its manifest: they are read and understood, and what is derived from them is stored, so that a
//! proxy never needs weights and a worker never needs a tokenizer.

use std::collections::BTreeMap;

use helios_model::lineage::{ADAPTER_FILE, CARD_BYTES_MAX, CARD_FILE, Card, adapter};
use helios_model::{
    DerivedFile, FileEntry, INDEX_FILE, Lineage, MANIFEST_SCHEMA, Manifest, ModelError, Role, Understood,
    check_small_files, select, understand,
};
use helios_storage::FileBytes;
use helios_types::{Classify, ErrorCode};

use crate::RegistryError;
use crate::fetch::{Gathered, GatheredFile};
use crate::pins::Intake;

/// What becomes of files that are no model, or a malformed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoModel {
    /// They are an error, as where a model was asked for.
    Refused,
    /// They are kept as they are: a repository or an artifact may hold anything.
    Kept,
}

/// Reads the files of a model of any family, stores what is derived from them, and describes all of them. A model whose
/// headers Helios does not read is kept as it is. Blocks.
///
/// # Errors
/// [`RegistryError::Model`] for files that are no model, if those are refused; [`RegistryError::Storage`].
pub(crate) fn manifest(
    intake: &Intake,
    gathered: Gathered,
    source: &str,
    no_model: NoModel,
) -> Result<Manifest, RegistryError> {
    let Gathered { files, licence, lineage } = gathered;
    let (card, told) = cards(intake, &files)?;
    let (licence, lineage) = (licence.or(card), lineage.or(told));
    let chosen = match (chosen(&files, source), no_model) {
        (Err(_), NoModel::Kept) => Vec::new(),
        (chosen, _) => chosen?,
    };
    let understood = match understand(open(intake, &chosen)?, licence.clone(), source) {
        Ok(understood) => Ok(understood),
        Err(error) if is_kept(&error, no_model) => {
            tracing::info!(source, reason = %error, "files are kept that Helios does not understand");
            Err(licence)
        }
        Err(error) => return Err(error.into()),
    };
    let is_chosen = |path: &str| chosen.iter().any(|file| file.path == path);
    let entries = files.iter().map(|file| match is_chosen(&file.path) {
        true => entry(file),
        false => FileEntry { role: Role::Original, path: file.path.clone(), blob: file.blob },
    });
    described(intake, entries.collect(), understood, lineage)
}

/// Checks the small files of a model before its weights are fetched. Blocks.
///
/// # Errors
/// As [`manifest`], where what is no model is refused.
pub(crate) fn check_small(
    intake: &Intake,
    files: &[GatheredFile],
    source: &str,
) -> Result<(), RegistryError> {
    Ok(check_small_files(open(intake, files)?, source)?)
}

/// The files that make the model.
fn chosen(files: &[GatheredFile], source: &str) -> Result<Vec<GatheredFile>, ModelError> {
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let chosen = select(source, &names)?;
    Ok(files.iter().filter(|file| chosen.contains(&file.path.as_str())).cloned().collect())
}

fn is_kept(error: &ModelError, no_model: NoModel) -> bool {
    match no_model {
        NoModel::Refused => error.is_unsupported(),
        NoModel::Kept => matches!(error.code(), ErrorCode::InvalidRequest | ErrorCode::Corrupt),
    }
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
    intake: &Intake,
    mut files: Vec<FileEntry>,
    understood: Result<Understood, Option<String>>,
    lineage: Lineage,
) -> Result<Manifest, RegistryError> {
    let (metadata, profile, lineage) = match understood {
        Ok(Understood { derived, facts, profile, lineage: told }) => {
            for file in derived {
                files.push(stored(intake, file)?);
            }
            (Some(facts), Some(profile), lineage.or(told))
        }
        Err(licence) => (None, None, Lineage { licence, ..lineage }),
    };
    Ok(Manifest { schema: MANIFEST_SCHEMA, files, metadata, profile, lineage: lineage.if_known() })
}

/// Opens the files, of any size: none is copied, wherever its bytes lie.
fn open(intake: &Intake, files: &[GatheredFile]) -> Result<BTreeMap<String, FileBytes>, RegistryError> {
    let open = |file: &GatheredFile| Ok((file.path.clone(), intake.blobs().open_file(&file.blob)?));
    files.iter().map(open).collect()
}

fn entry(file: &GatheredFile) -> FileEntry {
    let role = match file.path.as_str() {
        "tokenizer.json" => Role::Tokenizer,
        INDEX_FILE => Role::WeightsIndex,
        path if path.ends_with(".gguf") || path.ends_with(".safetensors") => Role::Weights,
        _ => Role::Original,
    };
    FileEntry { role, path: file.path.clone(), blob: file.blob }
}

fn stored(intake: &Intake, file: DerivedFile) -> Result<FileEntry, RegistryError> {
    let DerivedFile { role, path, bytes } = file;
    Ok(FileEntry { role, path, blob: intake.put(&bytes)? })
}
