//! Small files and folders of a store, on any disk: written whole, durable when a call returns.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, OpenMode};
use crate::hashing::read_exact_at;
use crate::{RealDisk, StorageError, durable};

/// The files of one disk. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DurableFiles(Arc<dyn Disk>);

impl Default for DurableFiles {
    fn default() -> Self {
        Self::new(Arc::new(RealDisk))
    }
}

impl DurableFiles {
    /// The files of `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.0
    }

    /// Whether there is a folder of that name.
    pub fn is_dir(&self, path: &Path) -> bool {
        durable::is_dir(&*self.0, path)
    }

    /// Creates a folder and those above it that are missing, durably.
    ///
    /// # Errors
    /// [`StorageError::StorageFull`] or [`StorageError::Io`].
    pub fn create_dir(&self, dir: &Path) -> Result<(), StorageError> {
        durable::create_dir(&*self.0, dir)
    }

    /// Makes the names in a folder durable, whoever made them.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn sync_dir(&self, dir: &Path) -> Result<(), StorageError> {
        durable::sync_dir(&*self.0, dir)
    }

    /// Gives `path` the contents `bytes`, so that a reader sees the old file or the new one, before and after a crash.
    ///
    /// # Errors
    /// [`StorageError::StorageFull`] or [`StorageError::Io`]; a reader then sees the old file, or the new one if only
    /// the last fsync failed.
    pub fn write_atomic(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        durable::write_atomic(&self.0, path, bytes)
    }

    /// The whole of a file that must not be longer than `bytes_max`.
    ///
    /// # Errors
    /// [`StorageError::Io`]: of kind [`io::ErrorKind::FileTooLarge`] if it is longer.
    pub fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        let failed = |action| move |source| StorageError::Io { action, path: path.to_owned(), source };
        let file = self.0.open(path, OpenMode::Read).map_err(failed("open"))?;
        let size = file.status().map_err(failed("inspect"))?.size;
        if size > bytes_max {
            let problem = format!("it has {size} bytes, more than the {bytes_max} it may have");
            return Err(failed("read")(io::Error::new(io::ErrorKind::FileTooLarge, problem)));
        }
        let mut bytes = vec![0; size as usize];
        read_exact_at(&*file, &mut bytes, 0).map_err(failed("read"))?;
        Ok(bytes)
    }

    /// Bytes `range` of a file, all of them.
    ///
    /// # Errors
    /// [`StorageError::Io`]: of kind [`io::ErrorKind::UnexpectedEof`] if it is shorter.
    pub fn read_range(&self, path: &Path, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let failed = |action| move |source| StorageError::Io { action, path: path.to_owned(), source };
        let file = self.0.open(path, OpenMode::Read).map_err(failed("open"))?;
        let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
        read_exact_at(&*file, &mut bytes, range.start).map_err(failed("read"))?;
        Ok(bytes)
    }

    /// Bytes of a file.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn size(&self, path: &Path) -> Result<u64, StorageError> {
        let status = self.0.status(path).map_err(|error| StorageError::io("inspect", path, error))?;
        Ok(status.size)
    }

    /// Deletes a file, durably. No error if it is not there.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove(&self, path: &Path) -> Result<(), StorageError> {
        match self.0.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(|error| StorageError::io("remove", path, error))?,
        }
        self.sync_dir(durable::parent(path))
    }

    /// Deletes a folder with all that is in it. No error if it is not there.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove_dir(&self, dir: &Path) -> Result<(), StorageError> {
        match self.0.remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|error| StorageError::io("remove", dir, error)),
        }
    }

    /// The files in a folder, ordered by name; those in its subfolders too if `deep`.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn list(&self, dir: &Path, deep: bool) -> Result<Vec<PathBuf>, StorageError> {
        let mut files = Vec::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = self.0.list(&folder).map_err(|error| StorageError::io("list", &folder, error))?;
            for entry in entries {
                match entry.is_dir {
                    true if deep => folders.push(entry.path),
                    true => {}
                    false => files.push(entry.path),
                }
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// Deletes the temporary files that killed writers left in `dir`; those in use stay. Returns how many.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the folder cannot be read.
    pub fn remove_stale_temporaries(&self, dir: &Path) -> Result<usize, StorageError> {
        durable::remove_stale_temporaries(&*self.0, dir)
    }
}

/// [`DurableFiles::write_atomic`] on the real disk.
///
/// # Errors
/// As there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    DurableFiles::default().write_atomic(path, bytes)
}

/// [`DurableFiles::remove_stale_temporaries`] on the real disk.
///
/// # Errors
/// As there.
pub fn remove_stale_temporaries(dir: &Path) -> Result<usize, StorageError> {
    DurableFiles::default().remove_stale_temporaries(dir)
}
