//! The folders of a store and how a blob enters them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_types::Digest;

use crate::disk::Disk;
use crate::durable::{self, StagedFile};
use crate::{BlobInfo, StorageError, Tree};

/// Where the parts of a store are.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) blobs: PathBuf,
    pub(crate) partial: PathBuf,
    pub(crate) quarantine: PathBuf,
    pub(crate) trees: PathBuf,
    /// Journals of what was verified.
    pub(crate) verified: PathBuf,
}

impl Layout {
    /// The store in `root`: its folders are created, durable, and free of what killed writers left there that cannot
    /// be resumed.
    pub(crate) fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<Arc<Self>, StorageError> {
        let layout = Self {
            disk,
            blobs: root.join("blobs/sha256"),
            partial: root.join("partial"),
            quarantine: root.join("quarantine"),
            trees: root.join("trees"),
            verified: root.join("verified"),
        };
        let disk = &*layout.disk;
        let blobs_above = durable::parent(&layout.blobs);
        let kinds = [&layout.blobs, &layout.partial, &layout.quarantine, &layout.trees, &layout.verified];
        for dir in [root, blobs_above].into_iter().chain(kinds.map(PathBuf::as_path)) {
            durable::create_dir(disk, dir)?;
        }
        // A process that was killed between a rename and its fsync left blobs that this one relies on.
        durable::sync_dir(disk, &layout.blobs)?;
        durable::remove_stale_temporaries(disk, &layout.partial)?;
        Ok(Arc::new(layout))
    }

    /// Where a blob is, or would be.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Where a blob's tree is, or would be.
    pub(crate) fn tree(&self, digest: &Digest) -> PathBuf {
        self.trees.join(digest.hex())
    }

    /// Makes a whole blob durable under its name, its tree beside it.
    pub(crate) fn settle(
        &self,
        staged: StagedFile,
        info: &BlobInfo,
        tree: &Tree,
    ) -> Result<(), StorageError> {
        staged.persist(&self.blob(&info.digest))?;
        self.keep_tree(&info.digest, tree);
        Ok(())
    }

    /// Writes a tree beside its blob. It is not fsynced and may fail: a tree that is lost or torn does not merge to the
    /// root, and is built again.
    pub(crate) fn keep_tree(&self, digest: &Digest, tree: &Tree) {
        let bytes = tree.to_bytes();
        if bytes.is_empty() {
            return;
        }
        let path = self.tree(digest);
        let written = StagedFile::temporary(&self.disk, &self.partial).and_then(|staged| {
            staged.file().write_all_at(&bytes, 0).map_err(|error| StorageError::io("write", &path, error))?;
            staged.give_name(&path)
        });
        if let Err(error) = written {
            tracing::warn!(%digest, %error, "a tree could not be written and will be built again");
        }
    }

    /// As [`keep_tree`](Self::keep_tree), unless a file of the right length is there.
    pub(crate) fn keep_tree_if_lost(&self, digest: &Digest, tree: &Tree) {
        let size = self.disk.status(&self.tree(digest)).map_or(0, |status| status.size);
        if size != Tree::bytes_of(tree.size()) {
            self.keep_tree(digest, tree);
        }
    }
}
