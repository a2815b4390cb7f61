//! Manifests and tag histories as files of the store, read back into changes of the database.

use std::io;
use std::path::Path;
use std::sync::Arc;

use helios_metadata::{Change, TagEntry};
use helios_model::ModelError;
use helios_storage::{DurableFiles, StorageError};
use helios_types::{Digest, ModelRef};

use crate::registry::parse_manifest;
use crate::{RegistryError, files, tags};

/// Whether there is such a file.
pub(crate) fn exists(files: &DurableFiles, path: &Path) -> Result<bool, RegistryError> {
    match files.disk().status(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StorageError::Io { action: "inspect", path: path.to_owned(), source }.into()),
        Ok(_) => Ok(true),
    }
}

/// The manifest in a file of a store; `None` if the file's name is not a manifest's, or its bytes are not its name's.
pub(crate) fn manifest(
    files: &DurableFiles,
    path: &Path,
    store: &str,
) -> Result<Option<Change>, RegistryError> {
    let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
    let Some(digest) = stem.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()) else {
        return Ok(None);
    };
    match files::read(files, path).and_then(|bytes| parse_manifest(&digest, &bytes)) {
        Ok(manifest) => {
            let (manifest, store) = (Arc::new(manifest), store.to_owned());
            Ok(Some(Change::PutManifest { digest, manifest, store }))
        }
        Err(
            error @ (RegistryError::InvalidManifest { .. }
            | RegistryError::Model(ModelError::InvalidManifest { .. })),
        ) => {
            tracing::error!(path = %path.display(), %error, "a manifest is ignored");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The tag and the history in a file; `None` if the file is not one of a tag, or damaged.
pub(crate) fn tag(
    files: &DurableFiles,
    dir: &Path,
    path: &Path,
) -> Result<Option<(ModelRef, Vec<TagEntry>)>, RegistryError> {
    let Some(reference) = tags::reference_of(dir, path) else { return Ok(None) };
    let bytes = files::read(files, path)?;
    match serde_json::from_slice::<Vec<TagEntry>>(&bytes) {
        Ok(history) if !history.is_empty() => Ok(Some((reference, history))),
        Ok(_) => {
            tracing::error!(path = %path.display(), "a tag file is empty and ignored");
            Ok(None)
        }
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a tag file is malformed and ignored");
            Ok(None)
        }
    }
}
