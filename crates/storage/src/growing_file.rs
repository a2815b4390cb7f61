//! A large file outside the store that is written from its beginning to its end, perhaps in several attempts, and gets
//! its name when it is whole.
//!
//! Until then it has another name beside it, which stays when the writer goes away. What an earlier writer left is only
//! a claim: whoever goes on behind it reads it first.

use std::io;
use std::path::{Path, PathBuf};

use crate::durable::StagedFile;
use crate::{DurableFiles, StorageError};

/// A file that grows; locked until dropped.
#[derive(Debug)]
pub struct GrowingFile {
    staged: StagedFile,
    target: PathBuf,
}

impl DurableFiles {
    /// Begins `target`, or goes on with what is at `partial`, in the same folder; `None` while another writer has that.
    ///
    /// # Errors
    /// [`StorageError::StorageFull`] or [`StorageError::Io`].
    pub fn grow(&self, partial: &Path, target: &Path) -> Result<Option<GrowingFile>, StorageError> {
        let staged = StagedFile::resumable(self.disk(), partial)?;
        Ok(staged.map(|staged| GrowingFile { staged, target: target.to_owned() }))
    }
}

impl GrowingFile {
    /// Bytes that are there.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn size(&self) -> Result<u64, StorageError> {
        let status = self.staged.file().status();
        Ok(status.map_err(|error| self.failed("inspect", error))?.size)
    }

    /// Reads from `offset` as much as one call gives; 0 at the end.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.staged.file().read_at(buffer, offset).map_err(|error| self.failed("read", error))
    }

    /// Writes `bytes` from `offset` on.
    ///
    /// # Errors
    /// [`StorageError::StorageFull`] or [`StorageError::Io`]; any part may then be written.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        self.staged.file().write_all_at(bytes, offset).map_err(|error| self.failed("write", error))
    }

    /// Cuts the file behind `size` bytes.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn truncate(&self, size: u64) -> Result<(), StorageError> {
        self.staged.file().set_len(size).map_err(|error| self.failed("truncate", error))
    }

    /// Makes the contents durable, then gives the file its name, replacing what bears it.
    ///
    /// # Errors
    /// [`StorageError::StorageFull`] or [`StorageError::Io`]; after an fsync that failed the file is gone, for nobody
    /// knows what the kernel forgot of it.
    pub fn finish(self) -> Result<(), StorageError> {
        self.staged.persist(&self.target)
    }

    fn failed(&self, action: &'static str, error: io::Error) -> StorageError {
        StorageError::io(action, self.staged.path(), error)
    }
}
