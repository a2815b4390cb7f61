//! The folders of a store and how a blob enters them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_types::Digest;

use crate::disk::Disk;
use crate::durable::{self, StagedFile};
use crate::verified::VerifiedFiles;
use crate::{BlobInfo, StorageError, Tree};

/// Bytes from which a blob that was hashed as it was written counts as verified. Smaller ones cost nothing to read
/// again, and a change within the same tick of the file system's clock as the blob's last write would not be seen.
const SEEN_BYTES_MIN: u64 = 1 << 20;

/// Where the parts of a store are.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) blobs: PathBuf,
    pub(crate) partial: PathBuf,
    pub(crate) quarantine: PathBuf,
    pub(crate) trees: PathBuf,
    /// What was verified since the system started.
    pub(crate) verified: VerifiedFiles,
}

impl Layout {
    /// The store in `root`: its folders are created, durable, and free of what killed writers left there that cannot
    /// be resumed.
    pub(crate) fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<Arc<Self>, StorageError> {
        let blobs = root.join("blobs/sha256");
        let folder = |name| root.join(name);
        let (partial, quarantine, trees, journals) =
            (folder("partial"), folder("quarantine"), folder("trees"), folder("verified"));
        let kinds = [&blobs, &partial, &quarantine, &trees, &journals].map(PathBuf::as_path);
        for dir in [root, durable::parent(&blobs)].into_iter().chain(kinds) {
            durable::create_dir(&*disk, dir)?;
        }
        // A process that was killed between a rename and its fsync left blobs that this one relies on.
        durable::sync_dir(&*disk, &blobs)?;
        durable::remove_stale_temporaries(&*disk, &partial)?;
        let verified = VerifiedFiles::open(&disk, &journals)?;
        Ok(Arc::new(Self { disk, blobs, partial, quarantine, trees, verified }))
    }

    /// Where a blob is, or would be.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Where a blob's tree is, or would be.
    pub(crate) fn tree(&self, digest: &Digest) -> PathBuf {
        self.trees.join(digest.hex())
    }

    /// Makes a whole blob, hashed as it was written, durable under its name, its tree beside it.
    pub(crate) fn settle(
        &self,
        staged: StagedFile,
        info: &BlobInfo,
        tree: &Tree,
    ) -> Result<(), StorageError> {
        let path = self.blob(&info.digest);
        let written = staged.file().status();
        staged.persist(&path)?;
        self.keep_tree(&info.digest, tree);
        if let (Ok(written), Ok(named)) = (written, self.disk.status(&path))
            && info.size >= SEEN_BYTES_MIN
            && named.is_same_contents(&written)
        {
            self.verified.insert(named, info);
        }
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
