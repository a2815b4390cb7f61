//! `file:` sources: a GGUF file or a folder in the Hugging Face form.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use helios_model::lineage::{ADAPTER_FILE, CARD_BYTES_MAX, CARD_FILE, Card, adapter};
use helios_model::model_files;
use helios_storage::{DurableFiles, StorageError};

use super::{Context, Gathered, GatheredFile, is_first_shard};
use crate::blocking::blocking;
use crate::progress::Phase;
use crate::{RegistryError, import};

pub(super) async fn gather(context: &Context, path: &Path) -> Result<Gathered, RegistryError> {
    let (intake, reporter, path) = (Arc::clone(&context.intake), context.reporter.clone(), path.to_owned());
    let files = context.registry.files().clone();
    let subject = format!("`{}`", path.display());
    blocking(move || {
        let mut gathered = about(&files, &path)?;
        for (name, path) in model_files(&files, &path)? {
            if is_first_shard(&name, &gathered.files) {
                import::check_small(&intake, &gathered.files, &subject)?;
            }
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
