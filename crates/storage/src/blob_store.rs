//! The content-addressed store: `blobs/sha256/HEX` for whole blobs, `partial/KEY` for what is still coming,
//! `quarantine/HEX` for files that turned out wrong, `trees/HEX` for the BLAKE3 trees that ranges are verified with,
//! `verified/BOOT` for what was verified since the system started, `recipes/HEX.json` for files that lie in others.
//!
//! Any number of processes may write and read one store at the same time: names appear whole, by rename, and equal
//! names mean equal bytes.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_types::Digest;

use crate::disk::{Disk, DiskFile, OpenMode, RealDisk};
use crate::durable::{self, StagedFile};
use crate::hashing::{self, BlobHasher, CHUNK_BYTES};
use crate::layout::Layout;
use crate::tree_cache::TreeCache;
use crate::verified::VerifiedFiles;
use crate::{Blob, BlobInfo, BlobWriter, StorageError, Tree};

/// A folder of blobs.
#[derive(Debug)]
pub struct BlobStore {
    layout: Arc<Layout>,
    trees: TreeCache,
}

impl BlobStore {
    /// Opens the store in `root`, creating its folders, and deletes what killed writers left that cannot be resumed.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`].
    pub fn open(root: &Path) -> Result<Self, StorageError> {
        Self::open_on(Arc::new(RealDisk), root)
    }

    /// As [`open`](Self::open), on any disk.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, StorageError> {
        let layout = Layout::open(disk, root)?;
        Ok(Self { layout, trees: TreeCache::default() })
    }

    /// The disk that holds it.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.layout.disk
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn verified(&self) -> &VerifiedFiles {
        &self.layout.verified
    }

    pub(crate) fn trees(&self) -> &TreeCache {
        &self.trees
    }

    /// Whether a blob of that name is there, whole or as a recipe; says nothing about its bytes.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.has_whole(digest) || self.has_recipe(digest)
    }

    /// Whether a whole blob of that name is there, which recipes may refer to.
    pub fn has_whole(&self, digest: &Digest) -> bool {
        self.disk().status(&self.path(digest)).is_ok_and(|status| !status.is_dir)
    }

    /// Where the whole blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.layout.blob(digest)
    }

    /// Whether [`get`](Self::get) would hand the blob out without reading it.
    pub(crate) fn needs_no_read(&self, info: &BlobInfo) -> bool {
        let status = self.disk().status(&self.path(&info.digest));
        status.is_ok_and(|status| self.is_verified(status, info))
    }

    /// Bytes that a writer of the key left, if there was one.
    pub(crate) fn partial_bytes(&self, key: &str) -> Option<u64> {
        let status = is_key(key).then(|| self.disk().status(&self.layout.partial.join(key)));
        status?.ok().map(|status| status.size)
    }

    /// Maps a blob. The first time since the system started, and whenever the file has changed, it is read in full and
    /// compared with `info`: O(size). What is kept as a recipe is put together in memory: files of any size are better
    /// opened by [`open_file`](Self::open_file).
    ///
    /// # Errors
    /// [`StorageError::BlobMissing`]; [`StorageError::BlobCorrupt`] if the file is not the blob it is named after, which
    /// then is moved to the quarantine; [`StorageError::BlobMismatch`] if only `info` is wrong; [`StorageError::Io`].
    pub fn get(&self, info: &BlobInfo) -> Result<Blob, StorageError> {
        self.open_file(info).map(|file| file.to_blob())
    }

    /// Maps a whole blob.
    pub(crate) fn get_whole(&self, info: &BlobInfo) -> Result<Blob, StorageError> {
        let path = self.path(&info.digest);
        let failed = |action| {
            let path = &path;
            move |error| StorageError::io(action, path, error)
        };
        let file = self.open_blob(&info.digest)?;
        let status = file.status().map_err(failed("inspect"))?;
        if !self.is_verified(status, info) {
            let tree = self.verify(&*file, info)?;
            self.layout.keep_tree_if_lost(&info.digest, &tree);
            self.note_verified(&*file, status, info);
        }
        file.map().map_err(failed("map"))
    }

    /// The file of a blob, to be read.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Box<dyn DiskFile>, StorageError> {
        let path = self.path(digest);
        match self.disk().open(&path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StorageError::BlobMissing { digest: *digest })
            }
            result => result.map_err(|error| StorageError::io("open", &path, error)),
        }
    }

    /// Stores a small blob whole.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`]; nothing is left behind.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobInfo, StorageError> {
        let staged = StagedFile::temporary(self.disk(), &self.layout.partial)?;
        staged
            .file()
            .write_all_at(bytes, 0)
            .map_err(|error| StorageError::io("write", staged.path(), error))?;
        let mut hasher = BlobHasher::default();
        hasher.update(bytes);
        let (info, tree) = hasher.finish();
        self.layout.settle(staged, &info, &tree)?;
        Ok(info)
    }

    /// Begins a blob that arrives in pieces, or resumes the one begun under the same key by reading what is there:
    /// O(bytes there). While another writer has the key, the new one begins afresh and cannot be resumed.
    ///
    /// # Errors
    /// [`StorageError::InvalidKey`], [`StorageError::Io`] or [`StorageError::StorageFull`].
    pub fn writer(&self, key: &str) -> Result<BlobWriter, StorageError> {
        if !is_key(key) {
            return Err(StorageError::InvalidKey { key: crate::format::shorten(key) });
        }
        let staged = match StagedFile::resumable(self.disk(), &self.layout.partial.join(key))? {
            Some(staged) => staged,
            None => StagedFile::temporary(self.disk(), &self.layout.partial)?,
        };
        BlobWriter::resume(staged, Arc::clone(&self.layout))
    }

    /// Begins a blob that arrives in pieces and cannot be resumed: a writer that is dropped leaves nothing behind.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`].
    pub fn temporary_writer(&self) -> Result<BlobWriter, StorageError> {
        BlobWriter::resume(
            StagedFile::temporary(self.disk(), &self.layout.partial)?,
            Arc::clone(&self.layout),
        )
    }

    /// Copies a file into the store (sharing its extents where the file system can) and hashes the copy in the same
    /// pass. `progress` gets the bytes done so far.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`]; nothing is left behind.
    pub fn import_file(&self, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<BlobInfo, StorageError> {
        let source = self.disk().open(path, OpenMode::Read);
        let source = source.map_err(|error| StorageError::io("open", path, error))?;
        let staged = StagedFile::temporary(self.disk(), &self.layout.partial)?;
        let (info, tree) = if shares_extents(&*source, staged.file()) {
            hash_with_progress(&staged, progress)?
        } else {
            copy_with_progress(&*source, path, &staged, progress)?
        };
        self.layout.settle(staged, &info, &tree)?;
        Ok(info)
    }

    /// Every whole blob with its size in bytes, ordered by digest. Others may be kept as recipes ([`recipes`](Self::recipes)).
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, StorageError> {
        let mut blobs = Vec::new();
        for path in durable::files_in(&**self.disk(), &self.layout.blobs)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            match self.disk().status(&path) {
                Ok(status) => blobs.push((digest, status.size)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StorageError::io("inspect", &path, error)),
            }
        }
        blobs.sort_unstable();
        Ok(blobs)
    }

    /// Deletes a blob's name, and its tree, and returns its size, 0 if it was not there. Whoever has it mapped keeps reading it.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove(&self, digest: &Digest) -> Result<u64, StorageError> {
        self.layout.verified.forget(digest);
        // Not fsynced: a blob that comes back after a crash is found by the next collection. The tree goes last and
        // may stay: without its blob it is a leftover.
        let size = self.remove_file(&self.path(digest))? + self.remove_recipe(digest)?;
        self.remove_file(&self.layout.tree(digest))?;
        Ok(size)
    }

    /// Deletes a file and returns its size, 0 if it was not there.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<u64, StorageError> {
        let status = self.disk().status(path);
        match status.and_then(|status| self.disk().remove_file(path).map(|()| status.size)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            result => result.map_err(|error| StorageError::io("remove", path, error)),
        }
    }

    /// Deletes the partial blobs that no writer holds, the quarantine, and trees without a blob or a recipe; returns the bytes
    /// freed.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove_leftovers(&self) -> Result<u64, StorageError> {
        let mut freed = 0;
        for dir in [&self.layout.partial, &self.layout.quarantine] {
            for path in durable::files_in(&**self.disk(), dir)? {
                freed += durable::remove_unless_locked(&**self.disk(), &path)?.unwrap_or(0);
            }
        }
        let recipes: HashSet<PathBuf> =
            self.recipes()?.iter().map(|digest| self.layout.tree(digest)).collect();
        for path in durable::files_in(&**self.disk(), &self.layout.trees)? {
            let blob = self.layout.blobs.join(path.file_name().unwrap_or_default());
            if !recipes.contains(&path) && !durable::exists(&**self.disk(), &blob)? {
                freed += self.remove_file(&path)?;
            }
        }
        Ok(freed)
    }
}

/// Whether a key is safe as a file name and cannot be mistaken for a temporary file.
fn is_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=200).contains(&key.len()) && !key.starts_with('.') && key.bytes().all(plain)
}

/// Hashes what a staged file already holds.
fn hash_with_progress(
    staged: &StagedFile,
    progress: &mut dyn FnMut(u64),
) -> Result<(BlobInfo, Tree), StorageError> {
    let mut hasher = BlobHasher::default();
    let read = hashing::for_each_chunk(staged.file(), |chunk| {
        hasher.update(chunk);
        progress(hasher.size());
    });
    read.map_err(|error| StorageError::io("read", staged.path(), error))?;
    Ok(hasher.finish())
}

/// Lets `copy` share the extents of `source`; false where the file system cannot.
fn shares_extents(source: &dyn DiskFile, copy: &dyn DiskFile) -> bool {
    let (Some(source), Some(copy)) = (source.system_file(), copy.system_file()) else { return false };
    rustix::fs::ioctl_ficlone(copy, source).is_ok()
}

/// Copies `source` into a staged file; what is hashed is what is written.
fn copy_with_progress(
    source: &dyn DiskFile,
    source_path: &Path,
    staged: &StagedFile,
    progress: &mut dyn FnMut(u64),
) -> Result<(BlobInfo, Tree), StorageError> {
    let mut hasher = BlobHasher::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = source.read_at(&mut buffer, hasher.size());
        let length = length.map_err(|error| StorageError::io("read", source_path, error))?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        let chunk = &buffer[..length];
        let written = staged.file().write_all_at(chunk, hasher.size());
        written.map_err(|error| StorageError::io("write", staged.path(), error))?;
        hasher.update(chunk);
        progress(hasher.size());
    }
}
