//! From a model's files to its manifest: they are read and understood, and what is derived from them is stored, so that a
//! proxy never needs weights and a worker never needs a tokenizer.

use std::collections::BTreeMap;

use helios_model::lineage::{ADAPTER_FILE, CARD_BYTES_MAX, CARD_FILE, Card, adapter};
use helios_model::{
    DerivedFile, FileEntry, INDEX_FILE, Lineage, MANIFEST_SCHEMA, Manifest, Role, Understood, select,
    understand,
};
use helios_storage::Blob;
use helios_types::{Classify, ErrorCode};

use crate::RegistryError;
use crate::fetch::{Gathered, GatheredFile};
use crate::pins::Intake;

/// Reads the files of a model, stores what is derived from them, and describes all of it. Blocks.
pub(crate) fn manifest(intake: &Intake, gathered: Gathered, source: &str) -> Result<Manifest, RegistryError> {
    let understood = understand(open(intake, &gathered.files)?, gathered.licence, source)?;
    let files = gathered.files.iter().map(entry).collect();
    described(intake, files, Ok(understood), gathered.lineage)
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
    let opened = open(intake, &chosen)?;
    let (licence, lineage) = cards(intake, &files)?;
    let understood = match understand(opened, licence.clone(), source) {
        Ok(understood) => Ok(understood),
        Err(error) if matches!(error.code(), ErrorCode::InvalidRequest | ErrorCode::Corrupt) => {
            tracing::info!(source, reason = %error, "files are kept that are no model");
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

fn open(intake: &Intake, files: &[GatheredFile]) -> Result<BTreeMap<String, Blob>, RegistryError> {
    let open = |file: &GatheredFile| Ok((file.path.clone(), intake.blobs().get(&file.blob)?));
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
