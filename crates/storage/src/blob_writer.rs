//! A blob that arrives in pieces: hashed as it is written, resumable until it is committed.

use std::path::PathBuf;

use helios_types::Digest;

use crate::durable::StagedFile;
use crate::hashing::{self, BlobHasher};
use crate::{BlobInfo, StorageError};

/// Writes one blob. Dropped without a commit, what was written stays for a later writer of the same key.
#[derive(Debug)]
pub struct BlobWriter {
    staged: StagedFile,
    blobs: PathBuf,
    hasher: BlobHasher,
}

impl BlobWriter {
    /// Takes over a staged file with what it holds.
    pub(crate) fn resume(staged: StagedFile, blobs: PathBuf) -> Result<Self, StorageError> {
        let mut hasher = BlobHasher::default();
        hashing::for_each_chunk(staged.file(), |chunk| hasher.update(chunk))
            .map_err(|error| StorageError::io("read", staged.path(), error))?;
        Ok(Self { staged, blobs, hasher })
    }

    /// Bytes written so far, those of an earlier writer included.
    #[expect(clippy::len_without_is_empty, reason = "a position, not a collection")]
    pub fn len(&self) -> u64 {
        self.hasher.size()
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`StorageError::StorageFull`] or [`StorageError::Io`]; the position is then unchanged and the same bytes may be
    /// written again.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let written = self.staged.file().write_all_at(bytes, self.len());
        written.map_err(|error| StorageError::io("write", self.staged.path(), error))?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Forgets everything written, for a source that cannot continue where it stopped.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn restart(&mut self) -> Result<(), StorageError> {
        self.hasher = BlobHasher::default();
        self.truncate()
    }

    /// Makes the blob durable and gives it its name.
    ///
    /// # Errors
    /// [`StorageError::DigestMismatch`] if it is not the expected one, or an fsync that fails, which discard it;
    /// another [`StorageError::StorageFull`] or [`StorageError::Io`] keeps it for a later writer.
    pub fn commit(self, expected: Option<Digest>) -> Result<BlobInfo, StorageError> {
        // A write that failed half-way may have left bytes behind the position.
        self.truncate()?;
        let Self { staged, blobs, hasher } = self;
        let info = hasher.finish();
        match expected {
            Some(expected) if expected != info.digest => {
                staged.discard();
                Err(StorageError::DigestMismatch { expected, actual: info.digest })
            }
            _ => staged.persist(&blobs.join(info.digest.hex())).map(|()| info),
        }
    }

    /// Deletes what was written.
    pub fn discard(self) {
        self.staged.discard();
    }

    /// Cuts the file at the position.
    fn truncate(&self) -> Result<(), StorageError> {
        let cut = self.staged.file().set_len(self.len());
        cut.map_err(|error| StorageError::io("truncate", self.staged.path(), error))
    }
}
