//! Reading blobs again at leisure, to find what the disk has damaged before somebody needs it.
//!
//! Unlike every other read this one does not believe what was verified since boot. The caller sets the pace: each step
//! reads as much as it is allowed to. What is kept as a recipe is read part by part.

use std::sync::Arc;

use crate::disk::DiskFile;
use crate::hashing::CHUNK_BYTES;
use crate::tree::TreeHasher;
use crate::{BlobInfo, BlobStore, StorageError};

/// One blob that is being read again.
#[derive(Debug)]
pub struct BlobScrub {
    info: BlobInfo,
    /// What it lies in, in order.
    parts: Vec<ScrubPart>,
    is_recipe: bool,
    /// The part that is read, and where in it.
    part: usize,
    offset: u64,
    hasher: TreeHasher,
}

/// A range of a file; a whole blob is one that ends where its file does.
#[derive(Debug)]
pub(crate) struct ScrubPart {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) start: u64,
    pub(crate) end: u64,
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
    /// [`StorageError::BlobMissing`], [`StorageError::RecipeBroken`] or [`StorageError::Io`].
    pub fn scrub(&self, info: &BlobInfo) -> Result<BlobScrub, StorageError> {
        let recipe = if self.has_whole(&info.digest) { None } else { self.recipe_parts(info)? };
        let is_recipe = recipe.is_some();
        let parts = match recipe {
            Some(parts) => parts,
            None => {
                vec![ScrubPart { file: Arc::from(self.open_blob(&info.digest)?), start: 0, end: u64::MAX }]
            }
        };
        parts.iter().for_each(|part| drop_cached(&*part.file));
        Ok(BlobScrub { info: *info, parts, is_recipe, part: 0, offset: 0, hasher: TreeHasher::default() })
    }
}

impl BlobScrub {
    /// What the blob should be.
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// Reads on, about `budget_bytes` and at least one leaf.
    ///
    /// # Errors
    /// As [`BlobStore::open_file`]: a wrong file is in the quarantine afterwards.
    pub fn step(&mut self, store: &BlobStore, budget_bytes: u64) -> Result<ScrubStep, StorageError> {
        let before = self.hasher.size();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = self.read_next(store, &mut buffer)?;
            self.hasher.update(&buffer[..length]);
            let read = self.hasher.size() - before;
            if self.part == self.parts.len() || self.hasher.size() > self.info.size {
                return self.judge(store).map(|()| ScrubStep::Right(read));
            }
            if read >= budget_bytes {
                return Ok(ScrubStep::Read(read));
            }
        }
    }

    /// Bytes of the part that is read; none at its end.
    fn read_next(&mut self, store: &BlobStore, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let Some(part) = self.parts.get(self.part) else { return Ok(0) };
        let at = part.start + self.offset;
        let wanted = buffer.len().min(usize::try_from(part.end - at).unwrap_or(usize::MAX));
        let length = part.file.read_at(&mut buffer[..wanted], at);
        let length =
            length.map_err(|error| StorageError::io("read", &store.path(&self.info.digest), error))?;
        self.offset += length as u64;
        if length == 0 {
            (self.part, self.offset) = (self.part + 1, 0);
        }
        Ok(length)
    }

    fn judge(&self, store: &BlobStore) -> Result<(), StorageError> {
        self.parts.iter().for_each(|part| drop_cached(&*part.file));
        let tree = self.hasher.clone().finish();
        if (tree.size(), tree.root()) == (self.info.size, self.info.blake3) {
            return Ok(());
        }
        // Whoever is to blame, the whole file says so; and a disk that now reads it right is not to be trusted.
        if self.is_recipe {
            store.verify_recipe_again(&self.info)?;
        } else if let Some(part) = self.parts.first() {
            store.verify(&*part.file, &self.info)?;
        }
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
