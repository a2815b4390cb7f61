//! `file:` sources: a GGUF file or a folder in the Hugging Face form.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_storage::{DurableFiles, StorageError};

use super::selection::{is_pickle, refuse_pickle, select};
use super::{Context, Gathered, GatheredFile};
use crate::RegistryError;
use crate::blocking::blocking;
use crate::lineage::{ADAPTER_FILE, CARD_BYTES_MAX, CARD_FILE, Card, adapter};
use crate::progress::Phase;

pub(super) async fn gather(context: &Context, path: &Path) -> Result<Gathered, RegistryError> {
    let (intake, reporter, path) = (Arc::clone(&context.intake), context.reporter.clone(), path.to_owned());
    let files = context.registry.files().clone();
    blocking(move || {
        let mut gathered = about(&files, &path)?;
        for (name, path) in model_files(&files, &path)? {
            let total = files.size(&path)?;
            let mut report = |done| reporter.file(Phase::Copying, &name, done, Some(total));
            let blob = intake.import_file(&path, &mut report)?;
            gathered.files.push(GatheredFile { path: name, blob });
        }
        Ok(gathered)
    })
    .await
}

/// What a folder says of its files, in files that are not among them.
fn about(files: &DurableFiles, path: &Path) -> Result<Gathered, RegistryError> {
    let mut gathered = Gathered::default();
    if !files.is_dir(path) {
        return Ok(gathered);
    }
    if let Some(card) = small_file(files, &path.join(CARD_FILE))? {
        let card = Card::of_readme(&card);
        (gathered.licence, gathered.lineage) = (card.licence(), card.lineage());
    }
    if let Some(config) = small_file(files, &path.join(ADAPTER_FILE))? {
        gathered.lineage = gathered.lineage.or(adapter(&config));
    }
    Ok(gathered)
}

/// A file that may be missing, and is of no use if it is huge.
fn small_file(files: &DurableFiles, path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    match files.read(path, CARD_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StorageError::Io { source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::FileTooLarge) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The model's files, by name in the model.
pub(crate) fn model_files(
    files: &DurableFiles,
    path: &Path,
) -> Result<Vec<(String, PathBuf)>, RegistryError> {
    let subject = format!("`{}`", path.display());
    let name_of = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    if !files.is_dir(path) {
        let name =
            name_of(path).ok_or_else(|| RegistryError::invalid_model(&subject, "its name is not UTF-8"))?;
        if is_pickle(&name) {
            return Err(refuse_pickle(&subject, &name));
        }
        if !name.ends_with(".gguf") {
            return Err(RegistryError::invalid_model(subject, "it is neither a folder nor a .gguf file"));
        }
        return Ok(vec![(name, path.to_owned())]);
    }
    let names: Vec<String> = files.list(path, false)?.iter().filter_map(|path| name_of(path)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let selected = select(&subject, &names)?;
    Ok(selected.into_iter().map(|name| (name.to_owned(), path.join(name))).collect())
}
