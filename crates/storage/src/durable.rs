//! Files that appear whole or not at all, and stay: temporary, fsync, rename, fsync of the folder.
//!
//! Whoever writes a temporary or partial file holds its lock (`flock`), so that a file left behind by a killed process
//! is told from one in use without asking for process ids or times.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StorageError;
use crate::disk::{Disk, DiskFile, OpenMode};

/// What names of temporary files begin with; nothing else in a Helios folder begins so.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// A file under a name of its own that is to get its final name once it is whole; locked until dropped.
#[derive(Debug)]
pub(crate) struct StagedFile {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    keep: bool,
}

impl StagedFile {
    /// Creates an empty file in `dir` that disappears when dropped.
    pub(crate) fn temporary(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, StorageError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
            match disk.open(&path, OpenMode::CreateNew) {
                Ok(file) if lock_at(&**disk, &*file, &path)? => {
                    return Ok(Self { disk: Arc::clone(disk), file, path, keep: false });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StorageError::io("create", &path, error)),
            }
        }
    }

    /// Opens or creates `path`, which stays when dropped; `None` while another writer holds it.
    pub(crate) fn resumable(disk: &Arc<dyn Disk>, path: &Path) -> Result<Option<Self>, StorageError> {
        loop {
            let file = disk.open(path, OpenMode::OpenOrCreate);
            let file = file.map_err(|error| StorageError::io("open", path, error))?;
            if lock_at(&**disk, &*file, path)? {
                return Ok(Some(Self { disk: Arc::clone(disk), file, path: path.to_owned(), keep: true }));
            }
            if is_file_at(&**disk, &*file, path) {
                return Ok(None);
            }
        }
    }

    /// The open file.
    pub(crate) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// Where it is until it is persisted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the contents durable, then gives the file its final name, replacing what bears it.
    ///
    /// A file whose fsync fails is deleted: the kernel may have forgotten what it could not write, and a second fsync
    /// would then succeed over bytes that are only in memory (Rebello et al., "Can Applications Recover from fsync
    /// Failures?", USENIX ATC 2020).
    pub(crate) fn persist(mut self, target: &Path) -> Result<(), StorageError> {
        if let Err(error) = self.file.sync() {
            self.keep = false;
            return Err(StorageError::io("flush", &self.path, error));
        }
        let disk = Arc::clone(&self.disk);
        self.give_name(target)?;
        sync_dir(&*disk, parent(target))
    }

    /// Gives the file its final name, replacing what bears it; a crash may lose any of it.
    pub(crate) fn give_name(mut self, target: &Path) -> Result<(), StorageError> {
        let renamed = self.disk.rename(&self.path, target);
        renamed.map_err(|error| StorageError::io("create", target, error))?;
        self.keep = true;
        Ok(())
    }

    /// Deletes the file.
    pub(crate) fn discard(mut self) {
        self.keep = false;
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.disk.remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
    }
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent.unwrap_or(Path::new("/")),
    }
}

/// Locks a file just opened at `path`; false if someone else holds it, or replaced or removed it in between.
pub(crate) fn lock_at(disk: &dyn Disk, file: &dyn DiskFile, path: &Path) -> Result<bool, StorageError> {
    match file.try_lock() {
        Ok(locked) => Ok(locked && is_file_at(disk, file, path)),
        Err(error) => Err(StorageError::io("lock", path, error)),
    }
}

/// Whether `path` still leads to the open `file`.
pub(crate) fn is_file_at(disk: &dyn Disk, file: &dyn DiskFile, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.status(), disk.status(path)) else { return false };
    open.is_same_file(&named)
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    disk.sync_dir(dir).map_err(|error| StorageError::io("flush", dir, error))
}

/// Whether there is a folder of that name.
pub(crate) fn is_dir(disk: &dyn Disk, path: &Path) -> bool {
    disk.status(path).is_ok_and(|status| status.is_dir)
}

/// Whether there is anything of that name.
pub(crate) fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, StorageError> {
    match disk.status(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StorageError::io("inspect", path, error)),
    }
}

/// Creates a folder and those above it that are missing, durably.
///
/// A folder that is there may have been made by a process that was killed before it synced the parent, so the parent
/// is synced in any case; what is above it was synced by that process, or the folder would not be there.
pub(crate) fn create_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    if is_dir(disk, dir) {
        return match disk.sync_dir(parent(dir)) {
            // Somebody else's folder, which this process neither reads nor changes.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result.map_err(|error| StorageError::io("flush", parent(dir), error)),
        };
    }
    // The root has nothing above it, also where its disk fails.
    if parent(dir) != dir {
        create_dir(disk, parent(dir))?;
    }
    match disk.create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result.map_err(|error| StorageError::io("create", dir, error))?,
    }
    sync_dir(disk, parent(dir))
}

/// Gives `path` the contents `bytes`, so that a reader sees the old file or the new one, before and after a crash.
pub(crate) fn write_atomic(disk: &Arc<dyn Disk>, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let staged = StagedFile::temporary(disk, parent(path))?;
    staged.file().write_all_at(bytes, 0).map_err(|error| StorageError::io("write", path, error))?;
    staged.persist(path)
}

/// Whether a file is one that somebody writes, or wrote until killed, under a name of its own.
pub(crate) fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()))
}

/// Deletes the temporary files that killed writers left in `dir`; those in use stay. Returns how many.
pub(crate) fn remove_stale_temporaries(disk: &dyn Disk, dir: &Path) -> Result<usize, StorageError> {
    let mut removed = 0;
    for path in files_in(disk, dir)? {
        if is_temporary(&path) && remove_unless_locked(disk, &path)?.is_some() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// The paths of the files in `dir`, in no order.
pub(crate) fn files_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let entries = disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    Ok(entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.path).collect())
}

/// Deletes a file that no writer holds; returns its size, or `None` if it is held or already gone.
pub(crate) fn remove_unless_locked(disk: &dyn Disk, path: &Path) -> Result<Option<u64>, StorageError> {
    let file = match disk.open(path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(|error| StorageError::io("open", path, error))?,
    };
    if !lock_at(disk, &*file, path)? {
        return Ok(None);
    }
    let size = file.status().map_err(|error| StorageError::io("inspect", path, error))?.size;
    disk.remove_file(path).map_err(|error| StorageError::io("remove", path, error))?;
    Ok(Some(size))
}
