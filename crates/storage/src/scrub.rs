//! Reading blobs again at leisure, to find what the disk has damaged before somebody needs it.
//!
//! Unlike every other read this one does not believe what was verified since boot. The caller sets the pace: each step
//! reads as much as it is allowed to.

use crate::disk::DiskFile;
use crate::hashing::CHUNK_BYTES;
use crate::tree::TreeHasher;
use crate::{BlobInfo, BlobStore, StorageError};

/// One blob that is being read again.
#[derive(Debug)]
pub struct BlobScrub {
    info: BlobInfo,
    file: Box<dyn DiskFile>,
    hasher: TreeHasher,
}

/// What a step of a scrub did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubStep {
    /// It read that many bytes; there are more.
    Read(u64),
    /// It read the last bytes, that many, and the blob is right.
    Right(u64),
}

impl BlobStore {
    /// Begins to read a blob again. What the page cache holds of it is dropped where the system lets it, so that the
    /// disk is asked; pages that somebody has mapped stay.
    ///
    /// # Errors
    /// [`StorageError::BlobMissing`] or [`StorageError::Io`].
    pub fn scrub(&self, info: &BlobInfo) -> Result<BlobScrub, StorageError> {
        let file = self.open_blob(&info.digest)?;
        drop_cached(&*file);
        Ok(BlobScrub { info: *info, file, hasher: TreeHasher::default() })
    }
}

impl BlobScrub {
    /// Reads on, about `budget_bytes` and at least one leaf.
    ///
    /// # Errors
    /// As [`BlobStore::get`]: a wrong file is in the quarantine afterwards.
    pub fn step(&mut self, store: &BlobStore, budget_bytes: u64) -> Result<ScrubStep, StorageError> {
        let before = self.hasher.size();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = self.file.read_at(&mut buffer, self.hasher.size());
            let length =
                length.map_err(|error| StorageError::io("read", &store.path(&self.info.digest), error))?;
            self.hasher.update(&buffer[..length]);
            let read = self.hasher.size() - before;
            if length == 0 || self.hasher.size() > self.info.size {
                return self.judge(store).map(|()| ScrubStep::Right(read));
            }
            if read >= budget_bytes {
                return Ok(ScrubStep::Read(read));
            }
        }
    }

    fn judge(&self, store: &BlobStore) -> Result<(), StorageError> {
        drop_cached(&*self.file);
        let tree = self.hasher.clone().finish();
        if (tree.size(), tree.root()) == (self.info.size, self.info.blake3) {
            return Ok(());
        }
        // Whoever is to blame, the whole file says so; and a disk that now reads it right is not to be trusted.
        store.verify(&*self.file, &self.info)?;
        let problem = "it was read wrong once and right a second time".to_owned();
        Err(StorageError::BlobMismatch { digest: self.info.digest, problem })
    }
}

/// Lets the system forget the pages of a file that nobody has mapped.
fn drop_cached(file: &dyn DiskFile) {
    if let Some(file) = file.system_file() {
        // Only advice: where it is refused, the scrub sees the cache instead of the disk.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
}
