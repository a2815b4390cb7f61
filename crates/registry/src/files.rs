//! The small files of a store, manifests and tag histories: list, read, remove. Written they are by
//! [`helios_storage::write_atomic`].

#![allow(clippy::disallowed_methods, reason = "manifests and tags are files; blobs stay with helios-storage")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use helios_storage::StorageError;
use tempfile::TempDir;

use crate::RegistryError;

/// Bytes of one small file; the largest manifests of today have under 100 KiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| StorageError::Io { action, path, source }.into()
}

/// Creates a folder and those above it that are missing, durably.
pub(crate) fn create_dir(path: &Path) -> Result<(), RegistryError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    create_dir(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(failed("create", path)).and_then(|()| sync_dir(parent)),
    }
}

fn sync_dir(path: &Path) -> Result<(), RegistryError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed("flush", path))
}

/// A file, to be read.
pub(crate) fn open(path: &Path) -> Result<File, RegistryError> {
    File::open(path).map_err(failed("open", path))
}

/// Bytes of a file.
pub(crate) fn size(path: &Path) -> Result<u64, RegistryError> {
    fs::metadata(path).map(|metadata| metadata.len()).map_err(failed("inspect", path))
}

/// A new folder in `dir` that is removed when dropped.
pub(crate) fn temporary_dir(dir: &Path) -> Result<TempDir, RegistryError> {
    fs::create_dir_all(dir)
        .and_then(|()| tempfile::tempdir_in(dir))
        .map_err(failed("create a folder in", dir))
}

/// Removes a folder with all that is in it. No error if it is not there.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), RegistryError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", dir)),
    }
}

/// The whole of a small file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let problem = format!("it is larger than {FILE_BYTES_MAX} bytes");
        return Err(RegistryError::InvalidManifest { subject: format!("`{}`", path.display()), problem });
    }
    Ok(bytes)
}

/// Deletes a file, durably. No error if it is not there.
pub(crate) fn remove(path: &Path) -> Result<(), RegistryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(failed("remove", path))?,
    }
    sync_dir(path.parent().unwrap_or(Path::new("/")))
}

/// The files in a folder, ordered by name; those in its subfolders too if `deep`.
pub(crate) fn list(dir: &Path, deep: bool) -> Result<Vec<PathBuf>, RegistryError> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
            let entry = entry.map_err(failed("list", &folder))?;
            match entry.file_type().map_err(failed("inspect", &folder))? {
                kind if kind.is_dir() && deep => folders.push(entry.path()),
                kind if kind.is_dir() => {}
                _ => files.push(entry.path()),
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}
