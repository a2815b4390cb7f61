//! Files that appear whole or not at all, and stay: temporary, fsync, rename, fsync of the folder.
//!
//! Whoever writes a temporary or partial file holds its lock (`flock`), so that a file left behind by a killed process
//! is told from one in use without asking for process ids or times.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StorageError;

/// What names of temporary files begin with; nothing else in a Helios folder begins so.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// A file under a name of its own that is to get its final name once it is whole; locked until dropped.
#[derive(Debug)]
pub(crate) struct StagedFile {
    file: File,
    path: PathBuf,
    keep: bool,
}

impl StagedFile {
    /// Creates an empty file in `dir` that disappears when dropped.
    pub(crate) fn temporary(dir: &Path) -> Result<Self, StorageError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) if lock_at(&file, &path)? => return Ok(Self { file, path, keep: false }),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StorageError::io("create", &path, error)),
            }
        }
    }

    /// Opens or creates `path`, which stays when dropped; `None` while another writer holds it.
    pub(crate) fn resumable(path: &Path) -> Result<Option<Self>, StorageError> {
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            let file = file.map_err(|error| StorageError::io("open", path, error))?;
            if lock_at(&file, path)? {
                return Ok(Some(Self { file, path: path.to_owned(), keep: true }));
            }
            if is_file_at(&file, path) {
                return Ok(None);
            }
        }
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Where it is until it is persisted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the contents durable, then gives the file its final name, replacing what bears it.
    pub(crate) fn persist(mut self, target: &Path) -> Result<(), StorageError> {
        self.file.sync_all().map_err(|error| StorageError::io("flush", &self.path, error))?;
        fs::rename(&self.path, target).map_err(|error| StorageError::io("create", target, error))?;
        self.keep = true;
        sync_dir(target.parent().unwrap_or(Path::new("/")))
    }

    /// Deletes the file.
    pub(crate) fn discard(mut self) {
        self.keep = false;
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
    }
}

/// Locks a file just opened at `path`; false if someone else holds it, or replaced or removed it in between.
fn lock_at(file: &File, path: &Path) -> Result<bool, StorageError> {
    match file.try_lock() {
        Ok(()) => Ok(is_file_at(file, path)),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(StorageError::io("lock", path, error)),
    }
}

/// Whether `path` still leads to the open `file`.
pub(crate) fn is_file_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| StorageError::io("flush", dir, error))
}

/// Creates a folder and its parents; no error if it exists.
pub(crate) fn create_dir(dir: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(dir).map_err(|error| StorageError::io("create", dir, error))
}

/// Gives `path` the contents `bytes`, so that a reader sees the old file or the new one, before and after a crash.
///
/// # Errors
/// [`StorageError::StorageFull`] or [`StorageError::Io`]; the old file is then as it was.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let staged = StagedFile::temporary(path.parent().unwrap_or(Path::new("/")))?;
    staged.file().write_all(bytes).map_err(|error| StorageError::io("write", path, error))?;
    staged.persist(path)
}

/// Deletes the temporary files that killed writers left in `dir`; those in use stay. Returns how many.
///
/// # Errors
/// [`StorageError::Io`] if the folder cannot be read.
pub fn remove_stale_temporaries(dir: &Path) -> Result<usize, StorageError> {
    let mut removed = 0;
    for path in files_in(dir)? {
        let is_temporary = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()));
        if is_temporary && remove_unless_locked(&path)?.is_some() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// The paths of the entries of `dir`, in no order.
pub(crate) fn files_in(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let entries =
        fs::read_dir(dir).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    entries.map_err(|error| StorageError::io("list", dir, error))
}

/// Deletes a file that no writer holds; returns its size, or `None` if it is held or already gone.
pub(crate) fn remove_unless_locked(path: &Path) -> Result<Option<u64>, StorageError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(|error| StorageError::io("open", path, error))?,
    };
    if !lock_at(&file, path)? {
        return Ok(None);
    }
    let size = file.metadata().map_err(|error| StorageError::io("inspect", path, error))?.len();
    fs::remove_file(path).map_err(|error| StorageError::io("remove", path, error))?;
    Ok(Some(size))
}
