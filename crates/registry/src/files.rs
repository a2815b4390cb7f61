//! What the registry does with files beside [`DurableFiles`]: a bound on the small ones, and folders for what other
//! programs write and read, which are on the real disk.

#![allow(clippy::disallowed_methods, reason = "pip writes its wheels into a folder of the file system")]

use std::fs::File;
use std::io;
use std::path::Path;

use helios_storage::{DurableFiles, StorageError};
use tempfile::TempDir;

use crate::RegistryError;

/// Bytes of one small file; the largest manifests of today have under 100 KiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| StorageError::io(action, &path, source).into()
}

/// The whole of a small file: a manifest or a tag's history.
pub(crate) fn read(files: &DurableFiles, path: &Path) -> Result<Vec<u8>, RegistryError> {
    match files.read(path, FILE_BYTES_MAX) {
        Err(StorageError::Io { path, source, .. }) if source.kind() == io::ErrorKind::FileTooLarge => {
            let subject = format!("`{}`", path.display());
            Err(RegistryError::InvalidManifest { subject, problem: source.to_string() })
        }
        result => Ok(result?),
    }
}

/// Deletes a file without waiting until that is durable. No error if it is not there.
pub(crate) fn remove_unsynced(files: &DurableFiles, path: &Path) -> Result<(), RegistryError> {
    match files.disk().remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    }
}

/// Gives a file another name in its folder, durably.
pub(crate) fn rename(files: &DurableFiles, from: &Path, to: &Path) -> Result<(), RegistryError> {
    files.disk().rename(from, to).map_err(failed("rename", from))?;
    Ok(files.sync_dir(to.parent().unwrap_or(Path::new("/")))?)
}

/// A file, to be read.
pub(crate) fn open(path: &Path) -> Result<File, RegistryError> {
    File::open(path).map_err(failed("open", path))
}

/// A new folder in `dir` that is removed when dropped.
pub(crate) fn temporary_dir(dir: &Path) -> Result<TempDir, RegistryError> {
    std::fs::create_dir_all(dir)
        .and_then(|()| tempfile::tempdir_in(dir))
        .map_err(failed("create a folder in", dir))
}
