//! Ranges of blobs, verified by the leaves they touch.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{DiskFile, OpenMode};
use crate::hashing::{self, for_each_chunk};
use crate::tree::TreeHasher;
use crate::{BlobInfo, BlobStore, StorageError, Tree};

impl BlobStore {
    /// The tree of a blob: from memory, from the file beside the blob, or, where that is lost or wrong, built again by
    /// reading the blob: then O(size).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn tree(&self, info: &BlobInfo) -> Result<Arc<Tree>, StorageError> {
        if let Some(tree) = self.trees().get(info) {
            return Ok(tree);
        }
        let tree = Arc::new(match self.read_tree(info) {
            Some(tree) => tree,
            None => self.rebuild_tree(info)?,
        });
        self.trees().insert(info.digest, &tree);
        Ok(tree)
    }

    /// The tree from the file beside the blob, if it is there and the blob's.
    fn read_tree(&self, info: &BlobInfo) -> Option<Tree> {
        let size = Tree::bytes_of(info.size);
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        if size > 0 {
            let file = self.disk().open(&self.layout().tree(&info.digest), OpenMode::Read).ok()?;
            hashing::read_exact_at(&*file, &mut bytes, 0).ok()?;
        }
        Tree::from_bytes(info.blake3, info.size, &bytes).ok()
    }

    fn rebuild_tree(&self, info: &BlobInfo) -> Result<Tree, StorageError> {
        let tree = match self.tree_of_whole(info) {
            Err(StorageError::BlobMissing { .. }) if self.has_recipe(&info.digest) => {
                self.tree_of_recipe(info)
            }
            tree => tree,
        }?;
        self.layout().keep_tree(&info.digest, &tree);
        Ok(tree)
    }

    fn tree_of_whole(&self, info: &BlobInfo) -> Result<Tree, StorageError> {
        let file = self.open_blob(&info.digest)?;
        let status = file.status().map_err(|error| self.io("inspect", info, error))?;
        let tree = self.verify(&*file, info)?;
        self.note_verified(&*file, status, info);
        Ok(tree)
    }

    /// Reads a range of a blob. If the file was not verified as a whole since it last changed, the leaves that the range
    /// touches are verified, and no others: O(range) once the tree is in memory.
    ///
    /// # Errors
    /// [`StorageError::InvalidRange`]; else as [`get`](Self::get): a file that is not the blob is found out by the first
    /// range that touches a wrong leaf.
    pub fn read_range(&self, info: &BlobInfo, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let Range { start, end } = range;
        if start > end || end > info.size {
            return Err(StorageError::InvalidRange { digest: info.digest, start, end, size: info.size });
        }
        match self.read_range_of_whole(info, range) {
            // It may have become a recipe at any time.
            Err(StorageError::BlobMissing { .. }) if self.has_recipe(&info.digest) => {
                self.read_recipe(info, start as usize..end as usize)
            }
            result => result,
        }
    }

    fn read_range_of_whole(&self, info: &BlobInfo, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let Range { start, end } = range;
        let file = self.open_blob(&info.digest)?;
        let status = file.status().map_err(|error| self.io("inspect", info, error))?;
        if self.is_verified(status, info) {
            return self.read(&*file, info, range);
        }
        let tree = self.tree(info)?;
        let aligned = tree.align(&range);
        let right = status.size == info.size;
        let bytes = if right { self.read(&*file, info, aligned.clone())? } else { Vec::new() };
        if !right || tree.verify(aligned.start, &bytes).is_err() {
            // Whoever is to blame, the whole file says so.
            self.verify(&*file, info)?;
            let problem = format!("bytes {start} to {end} changed while they were read");
            return Err(StorageError::BlobMismatch { digest: info.digest, problem });
        }
        let skipped = (start - aligned.start) as usize;
        Ok(bytes[skipped..skipped + (end - start) as usize].to_vec())
    }

    /// Reads a range of what is kept as a recipe, which is verified as a whole.
    fn read_recipe(&self, info: &BlobInfo, range: Range<usize>) -> Result<Vec<u8>, StorageError> {
        let file = self.open_file(info)?;
        Ok(file.pieces(range).flat_map(|(blob, range)| blob[range].iter().copied()).collect())
    }

    fn read(&self, file: &dyn DiskFile, info: &BlobInfo, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = hashing::read_exact_at(file, &mut bytes, range.start);
        read.map_err(|error| self.io("read", info, error))?;
        Ok(bytes)
    }

    fn io(&self, action: &'static str, info: &BlobInfo, error: io::Error) -> StorageError {
        StorageError::io(action, &self.path(&info.digest), error)
    }
}

/// The tree of a whole file.
pub(crate) fn tree_of(file: &dyn DiskFile) -> io::Result<Tree> {
    let mut hasher = TreeHasher::default();
    for_each_chunk(file, |chunk| hasher.update(chunk))?;
    Ok(hasher.finish())
}
