//! A blob that arrives in pieces: hashed as it is written, resumable until it is committed.

use std::sync::Arc;

use helios_types::Digest;

use crate::durable::StagedFile;
use crate::hashing::{self, BlobHasher};
use crate::layout::Layout;
use crate::tree::LEAF_BYTES;
use crate::{BlobInfo, StorageError, Tree};

/// Writes one blob. Dropped without a commit, what was written stays for a later writer of the same key.
#[derive(Debug)]
pub struct BlobWriter {
    staged: StagedFile,
    layout: Arc<Layout>,
    hasher: BlobHasher,
}

impl BlobWriter {
    /// Takes over a staged file with what it holds.
    pub(crate) fn resume(staged: StagedFile, layout: Arc<Layout>) -> Result<Self, StorageError> {
        let mut hasher = BlobHasher::default();
        hashing::for_each_chunk(staged.file(), |chunk| hasher.update(chunk))
            .map_err(|error| StorageError::io("read", staged.path(), error))?;
        Ok(Self { staged, layout, hasher })
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

    /// Appends `bytes` if `tree` vouches for them: for bytes from somebody who may lie. They must end where a leaf ends,
    /// or the blob; where the position is inside a leaf, the leaf's beginning is read back from the file.
    ///
    /// # Errors
    /// [`StorageError::TreeMismatch`]: nothing was written; what an earlier writer left may be what is wrong. As
    /// [`write`](Self::write).
    pub fn write_verified(&mut self, tree: &Tree, bytes: &[u8]) -> Result<(), StorageError> {
        let begun = self.len() % LEAF_BYTES;
        if begun == 0 {
            tree.verify(self.len(), bytes)?;
            return self.write(bytes);
        }
        let rest = ((LEAF_BYTES - begun) as usize).min(bytes.len());
        let leaf = [&self.read_back(begun)?, &bytes[..rest]].concat();
        tree.verify(self.len() - begun, &leaf)?;
        tree.verify(self.len() + rest as u64, &bytes[rest..])?;
        self.write(bytes)
    }

    /// The last `length` bytes that were written.
    fn read_back(&self, length: u64) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0; length as usize];
        let read = hashing::read_exact_at(self.staged.file(), &mut bytes, self.len() - length);
        read.map_err(|error| StorageError::io("read", self.staged.path(), error))?;
        Ok(bytes)
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
        let Self { staged, layout, hasher } = self;
        let (info, tree) = hasher.finish();
        match expected {
            Some(expected) if expected != info.digest => {
                staged.discard();
                Err(StorageError::DigestMismatch { expected, actual: info.digest })
            }
            _ => layout.settle(staged, &info, &tree).map(|()| info),
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
