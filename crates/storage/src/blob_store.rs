//! The content-addressed store: `blobs/sha256/HEX` for whole blobs, `partial/KEY` for what is still coming,
//! `quarantine/HEX` for files that turned out wrong.
//!
//! Any number of processes may write and read one store at the same time: names appear whole, by rename, and equal
//! names mean equal bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_types::Digest;

use crate::disk::{Disk, DiskFile, OpenMode, RealDisk};
use crate::durable::{self, StagedFile};
use crate::hashing::{self, BlobHasher, CHUNK_BYTES};
use crate::verified::VerifiedFiles;
use crate::{Blob, BlobInfo, BlobWriter, StorageError};

/// A folder of blobs.
#[derive(Debug)]
pub struct BlobStore {
    disk: Arc<dyn Disk>,
    blobs: PathBuf,
    partial: PathBuf,
    quarantine: PathBuf,
    verified: VerifiedFiles,
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
        let store = Self {
            disk,
            blobs: root.join("blobs/sha256"),
            partial: root.join("partial"),
            quarantine: root.join("quarantine"),
            verified: VerifiedFiles::default(),
        };
        let disk = &*store.disk;
        for dir in [&store.blobs, &store.partial, &store.quarantine] {
            durable::create_dir(disk, dir)?;
        }
        // A process that was killed between a change of a name and its fsync left names that the next one relies on.
        for dir in [durable::parent(root), root, durable::parent(&store.blobs), &store.blobs] {
            durable::sync_dir(disk, dir)?;
        }
        durable::remove_stale_temporaries(disk, &store.partial)?;
        Ok(store)
    }

    /// The disk that holds it.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Whether a whole blob of that name is there; says nothing about its bytes.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.disk.status(&self.path(digest)).is_ok_and(|status| !status.is_dir)
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Maps a blob. The first time in this process, and whenever the file has changed, it is read in full and compared
    /// with `info`: O(size).
    ///
    /// # Errors
    /// [`StorageError::BlobMissing`]; [`StorageError::BlobCorrupt`] if the file is not the blob it is named after, which
    /// then is moved to the quarantine; [`StorageError::BlobMismatch`] if only `info` is wrong; [`StorageError::Io`].
    pub fn get(&self, info: &BlobInfo) -> Result<Blob, StorageError> {
        let path = self.path(&info.digest);
        let file = match self.disk.open(&path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StorageError::BlobMissing { digest: info.digest });
            }
            result => result.map_err(|error| StorageError::io("open", &path, error))?,
        };
        let failed = |action| {
            let path = &path;
            move |error| StorageError::io(action, path, error)
        };
        let status = file.status().map_err(failed("inspect"))?;
        if !self.verified.covers(status, info) {
            self.verify(&*file, info)?;
            self.verified.insert(status, info);
        }
        file.map().map_err(failed("map"))
    }

    /// Reads the file (not its map: a failing disk is then an error, not a signal) and compares it with `info`.
    fn verify(&self, file: &dyn DiskFile, info: &BlobInfo) -> Result<(), StorageError> {
        let path = self.path(&info.digest);
        let mut hasher = blake3::Hasher::new();
        let read = hashing::for_each_chunk(file, |chunk| {
            hasher.update(chunk);
        });
        read.map_err(|error| StorageError::io("read", &path, error))?;
        let root = hasher.finalize();
        if hasher.count() == info.size && root == info.blake3 {
            return Ok(());
        }
        let problem = if hasher.count() == info.size {
            format!(
                "BLAKE3 root is {}, expected {}",
                root.to_hex(),
                blake3::Hash::from_bytes(info.blake3).to_hex()
            )
        } else {
            format!("{} bytes, expected {}", hasher.count(), info.size)
        };
        self.refuse(file, info.digest, problem)
    }

    /// Blames the file, and moves it away, or the description, if the file's SHA-256 is right: a wrong manifest must not
    /// cost other models their blob.
    fn refuse(&self, file: &dyn DiskFile, digest: Digest, problem: String) -> Result<(), StorageError> {
        let path = self.path(&digest);
        let mut hasher = BlobHasher::default();
        let read = hashing::for_each_chunk(file, |chunk| hasher.update(chunk));
        read.map_err(|error| StorageError::io("read", &path, error))?;
        if hasher.finish().digest == digest {
            return Err(StorageError::BlobMismatch { digest, problem });
        }
        self.verified.forget(&digest);
        let quarantine = self.quarantine.join(digest.hex());
        if durable::is_file_at(&*self.disk, file, &path) {
            self.disk.rename(&path, &quarantine).map_err(|error| StorageError::io("move", &path, error))?;
        }
        tracing::error!(%digest, problem, quarantine = %quarantine.display(), "a corrupt blob was moved to the quarantine");
        Err(StorageError::BlobCorrupt { digest, problem, quarantine })
    }

    /// Stores a small blob whole.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`]; nothing is left behind.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobInfo, StorageError> {
        let staged = StagedFile::temporary(&self.disk, &self.partial)?;
        staged
            .file()
            .write_all_at(bytes, 0)
            .map_err(|error| StorageError::io("write", staged.path(), error))?;
        let mut hasher = BlobHasher::default();
        hasher.update(bytes);
        self.persist(staged, hasher.finish())
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
        let staged = match StagedFile::resumable(&self.disk, &self.partial.join(key))? {
            Some(staged) => staged,
            None => StagedFile::temporary(&self.disk, &self.partial)?,
        };
        BlobWriter::resume(staged, self.blobs.clone())
    }

    /// Copies a file into the store (sharing its extents where the file system can) and hashes the copy in the same
    /// pass. `progress` gets the bytes done so far.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`]; nothing is left behind.
    pub fn import_file(&self, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<BlobInfo, StorageError> {
        let source = self.disk.open(path, OpenMode::Read);
        let source = source.map_err(|error| StorageError::io("open", path, error))?;
        let staged = StagedFile::temporary(&self.disk, &self.partial)?;
        let info = if shares_extents(&*source, staged.file()) {
            hash_with_progress(&staged, progress)?
        } else {
            copy_with_progress(&*source, path, &staged, progress)?
        };
        self.persist(staged, info)
    }

    fn persist(&self, staged: StagedFile, info: BlobInfo) -> Result<BlobInfo, StorageError> {
        staged.persist(&self.path(&info.digest))?;
        Ok(info)
    }

    /// Every blob with its size in bytes, ordered by digest.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, StorageError> {
        let mut blobs = Vec::new();
        for path in durable::files_in(&*self.disk, &self.blobs)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            match self.disk.status(&path) {
                Ok(status) => blobs.push((digest, status.size)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StorageError::io("inspect", &path, error)),
            }
        }
        blobs.sort_unstable();
        Ok(blobs)
    }

    /// Deletes a blob's name and returns its size, 0 if it was not there. Whoever has it mapped keeps reading it.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove(&self, digest: &Digest) -> Result<u64, StorageError> {
        let path = self.path(digest);
        self.verified.forget(digest);
        // Not fsynced: a blob that comes back after a crash is found by the next collection.
        let status = self.disk.status(&path);
        match status.and_then(|status| self.disk.remove_file(&path).map(|()| status.size)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            result => result.map_err(|error| StorageError::io("remove", &path, error)),
        }
    }

    /// Deletes the partial blobs that no writer holds and the quarantine; returns the bytes freed.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove_leftovers(&self) -> Result<u64, StorageError> {
        let mut freed = 0;
        for dir in [&self.partial, &self.quarantine] {
            for path in durable::files_in(&*self.disk, dir)? {
                freed += durable::remove_unless_locked(&*self.disk, &path)?.unwrap_or(0);
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
fn hash_with_progress(staged: &StagedFile, progress: &mut dyn FnMut(u64)) -> Result<BlobInfo, StorageError> {
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
) -> Result<BlobInfo, StorageError> {
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
