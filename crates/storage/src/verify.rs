//! Is a file the blob it is named after? And if not, who is to blame?

use std::io;

use crate::disk::{DiskFile, FileStatus};
use crate::hashing::{self, BlobHasher};
use crate::ranges::tree_of;
use crate::tree::TreeHasher;
use crate::{BlobInfo, BlobStore, StorageError, Tree, durable, load};

impl BlobStore {
    /// Reads the file, for who will map it next, and compares it with `info`. A failing disk is an error, not a signal: a
    /// window of a map is filled before it is touched.
    pub(crate) fn verify(&self, file: &dyn DiskFile, info: &BlobInfo) -> Result<Tree, StorageError> {
        let path = self.path(&info.digest);
        let tree = mapped_tree_of(file).map_err(|error| StorageError::io("read", &path, error))?;
        if (tree.size(), tree.root()) == (info.size, info.blake3) {
            return Ok(tree);
        }
        let hex = |root| blake3::Hash::from_bytes(root).to_hex();
        let problem = if tree.size() == info.size {
            format!("BLAKE3 root is {}, expected {}", hex(tree.root()), hex(info.blake3))
        } else {
            format!("{} bytes, expected {}", tree.size(), info.size)
        };
        Err(self.refuse(file, info, problem))
    }

    /// Blames the file, and moves it away, or the description, if the file's SHA-256 is right: a wrong manifest must not
    /// cost other models their blob.
    fn refuse(&self, file: &dyn DiskFile, info: &BlobInfo, problem: String) -> StorageError {
        let (layout, digest) = (self.layout(), info.digest);
        let path = layout.blob(&digest);
        let mut hasher = BlobHasher::default();
        if let Err(error) = hashing::for_each_chunk(file, |chunk| hasher.update(chunk)) {
            return StorageError::io("read", &path, error);
        }
        if hasher.finish().0.digest == digest {
            return StorageError::BlobMismatch { digest, problem };
        }
        self.verified().forget(&digest);
        let quarantine = layout.quarantine.join(digest.hex());
        if durable::is_file_at(&*layout.disk, file, &path)
            && let Err(error) = layout.disk.rename(&path, &quarantine)
        {
            return StorageError::io("move", &path, error);
        }
        tracing::error!(%digest, problem, quarantine = %quarantine.display(), "a corrupt blob was moved to the quarantine");
        StorageError::BlobCorrupt { digest, problem, quarantine }
    }

    /// Whether the file in this state was found to be `info`.
    pub(crate) fn is_verified(&self, status: FileStatus, info: &BlobInfo) -> bool {
        self.verified().covers(status, info)
    }

    /// Remembers that the file, which was in this state before it was read, is `info`; unless it changed meanwhile.
    pub(crate) fn note_verified(&self, file: &dyn DiskFile, before: FileStatus, info: &BlobInfo) {
        if file.status().is_ok_and(|now| now == before) {
            self.verified().insert(before, info);
        }
    }
}

/// The tree of a whole file, which is in memory afterwards if it fits.
fn mapped_tree_of(file: &dyn DiskFile) -> io::Result<Tree> {
    let mut hasher = TreeHasher::default();
    if load::for_each_chunk_mapped(file, |chunk| hasher.update(chunk))? {
        return Ok(hasher.finish());
    }
    tree_of(file)
}
