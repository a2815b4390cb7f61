//! Derived blobs: what can be made again from a blob, such as weights in another layout, kept because making it costs.
//!
//! `derived/SOURCE/LAYOUT-vVERSION-BLAKE3`: the name carries the root of the bytes, so that a file is verified against
//! its own name, appears whole by rename, and is mapped from its first byte. A file that is lost or wrong is built again;
//! beyond a byte budget the one unused longest goes; when the source goes, all of it goes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use helios_types::Digest;

use crate::disk::{Disk, FileStatus, OpenMode, RealDisk};
use crate::durable::{self, StagedFile};
use crate::{Blob, StorageError, hashing};

/// What a derived blob is made from, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DerivedKey {
    /// The blob that it is made from.
    pub source: Digest,
    /// Names the layout: letters, digits, `_` and `-`.
    pub layout: String,
    /// Version of the layout: another one is another blob.
    pub version: u32,
}

/// Takes the bytes of a derived blob, in order.
pub type DerivedSink<'a> = dyn FnMut(&[u8]) -> Result<(), StorageError> + 'a;

/// The derived blobs of one store.
#[derive(Debug)]
pub struct DerivedBlobs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Held by whoever builds the blob of that name.
    building: HashMap<String, Arc<Mutex<()>>>,
    /// Files found to be what their names say, in the state they were in.
    verified: HashMap<PathBuf, FileStatus>,
    /// When each was last used, counted in uses.
    used: HashMap<PathBuf, u64>,
    uses: u64,
}

impl DerivedBlobs {
    /// The derived blobs of the store in `root`, kept to `bytes_max` bytes.
    pub fn open(root: &Path, bytes_max: u64) -> Self {
        Self::open_on(Arc::new(RealDisk), root, bytes_max)
    }

    /// As [`open`](Self::open), on any disk.
    pub fn open_on(disk: Arc<dyn Disk>, root: &Path, bytes_max: u64) -> Self {
        Self { disk, dir: root.join("derived"), bytes_max, state: Mutex::default() }
    }

    /// Maps a derived blob, if it is there. The first time in this process it is read in full: O(size). A file that is
    /// not what its name says is deleted, and counts as lost.
    ///
    /// # Errors
    /// [`StorageError::InvalidKey`], [`StorageError::Io`].
    pub fn get(&self, key: &DerivedKey) -> Result<Option<Blob>, StorageError> {
        let prefix = prefix(key)?;
        for path in self.files_of(&key.source)? {
            let Some(root) = root_in_name(&path, &prefix) else { continue };
            match self.map(&path, root) {
                Ok(Some(blob)) => return Ok(Some(blob)),
                Ok(None) => {
                    tracing::warn!(path = %path.display(), "a derived blob is damaged and will be built again");
                    self.remove(&path)?;
                }
                // Another process may have evicted it in between.
                Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Maps a derived blob, built first if it is not there: once in this process, however many ask at the same time;
    /// who comes later waits. If it is larger than the whole budget, or the disk is full, it is not kept.
    ///
    /// # Errors
    /// As [`get`](Self::get), and what `build` says; the next one to ask then builds again.
    pub fn get_or_build<E: From<StorageError>>(
        &self,
        key: &DerivedKey,
        build: impl FnOnce(&mut DerivedSink<'_>) -> Result<(), E>,
    ) -> Result<Blob, E> {
        let name = format!("{}/{}", key.source.hex(), prefix(key)?);
        let turn = Arc::clone(self.state().building.entry(name.clone()).or_default());
        let result = {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            match self.get(key)? {
                Some(blob) => Ok(blob),
                None => self.build(key, build),
            }
        };
        let mut state = self.state();
        // Two references: the table's and this one. Whoever waits has a third.
        if Arc::strong_count(&turn) <= 2 {
            state.building.remove(&name);
        }
        result
    }

    /// Deletes what is derived from blobs that are not `live`; returns the bytes freed.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn collect(&self, live: &HashSet<Digest>) -> Result<u64, StorageError> {
        let mut freed = 0;
        for folder in self.folders()? {
            let hex = folder.file_name().unwrap_or_default().to_string_lossy();
            if format!("sha256:{hex}").parse::<Digest>().is_ok_and(|digest| live.contains(&digest)) {
                durable::remove_stale_temporaries(&*self.disk, &folder)?;
                continue;
            }
            for path in durable::files_in(&*self.disk, &folder)? {
                freed += self.disk.status(&path).map_or(0, |status| status.size);
                self.remove(&path)?;
            }
            self.disk.remove_dir_all(&folder).map_err(|error| StorageError::io("remove", &folder, error))?;
        }
        Ok(freed)
    }

    /// Deletes about `bytes`, those unused longest first; returns the bytes freed. Who has one mapped keeps it.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn give_up(&self, bytes: u64) -> Result<u64, StorageError> {
        let files = self.by_last_use()?;
        let total: u64 = files.iter().map(|file| file.size).sum();
        self.shrink(files, total.saturating_sub(bytes), None)
    }

    fn build<E: From<StorageError>>(
        &self,
        key: &DerivedKey,
        build: impl FnOnce(&mut DerivedSink<'_>) -> Result<(), E>,
    ) -> Result<Blob, E> {
        let folder = self.dir.join(key.source.hex());
        durable::create_dir(&*self.disk, &folder)?;
        let staged = StagedFile::temporary(&self.disk, &folder)?;
        let mut hasher = blake3::Hasher::new();
        build(&mut |bytes| {
            let written = staged.file().write_all_at(bytes, hasher.count());
            written.map_err(|error| StorageError::io("write", staged.path(), error))?;
            hasher.update(bytes);
            Ok(())
        })?;
        let failed = |action| move |error| StorageError::io(action, &folder, error);
        let blob = staged.file().map().map_err(failed("map"))?;
        let status =
            staged.file().status().map_err(|error| StorageError::io("inspect", staged.path(), error))?;
        if status.size > self.bytes_max {
            tracing::info!(
                bytes = status.size,
                bytes_max = self.bytes_max,
                "a derived blob is over the budget and not kept"
            );
            return Ok(blob);
        }
        let path =
            self.dir.join(key.source.hex()).join(format!("{}{}", prefix(key)?, hasher.finalize().to_hex()));
        staged.persist(&path)?;
        self.note(&path, None);
        self.evict(&path)?;
        Ok(blob)
    }

    /// The file, if it has that root.
    fn map(&self, path: &Path, root: blake3::Hash) -> Result<Option<Blob>, StorageError> {
        let failed = |action| move |error| StorageError::io(action, path, error);
        let file = self.disk.open(path, OpenMode::Read).map_err(failed("open"))?;
        let status = file.status().map_err(failed("inspect"))?;
        if self.state().verified.get(path) != Some(&status) {
            let mut hasher = blake3::Hasher::new();
            let read = hashing::for_each_chunk(&*file, |chunk| {
                hasher.update(chunk);
            });
            read.map_err(failed("read"))?;
            if hasher.finalize() != root {
                return Ok(None);
            }
        }
        self.note(path, Some(status));
        file.map().map(Some).map_err(failed("map"))
    }

    fn note(&self, path: &Path, verified: Option<FileStatus>) {
        let mut state = self.state();
        state.uses += 1;
        let uses = state.uses;
        state.used.insert(path.to_owned(), uses);
        if let Some(status) = verified {
            state.verified.insert(path.to_owned(), status);
        }
    }

    /// Deletes those unused longest until the rest, `keep` among them, fits the budget. Who has one mapped keeps it.
    fn evict(&self, keep: &Path) -> Result<(), StorageError> {
        self.shrink(self.by_last_use()?, self.bytes_max, Some(keep)).map(drop)
    }

    /// Every derived blob, those unused longest first; not those that are being built.
    fn by_last_use(&self) -> Result<Vec<DerivedFile>, StorageError> {
        let mut files = Vec::new();
        for folder in self.folders()? {
            for path in durable::files_in(&*self.disk, &folder)? {
                if !durable::is_temporary(&path)
                    && let Ok(status) = self.disk.status(&path)
                {
                    let used = self.state().used.get(&path).copied().unwrap_or(0);
                    files.push(DerivedFile { used, modified: status.modified, path, size: status.size });
                }
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// Deletes `files` in order until at most `bytes_max` are left; returns the bytes freed.
    fn shrink(
        &self,
        files: Vec<DerivedFile>,
        bytes_max: u64,
        keep: Option<&Path>,
    ) -> Result<u64, StorageError> {
        let total: u64 = files.iter().map(|file| file.size).sum();
        let mut freed = 0;
        for file in files {
            if total - freed <= bytes_max {
                break;
            }
            if keep != Some(&*file.path) {
                self.remove(&file.path)?;
                freed += file.size;
            }
        }
        Ok(freed)
    }

    fn remove(&self, path: &Path) -> Result<(), StorageError> {
        let mut state = self.state();
        state.verified.remove(path);
        state.used.remove(path);
        match self.disk.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|error| StorageError::io("remove", path, error)),
        }
    }

    fn files_of(&self, source: &Digest) -> Result<Vec<PathBuf>, StorageError> {
        let folder = self.dir.join(source.hex());
        if durable::is_dir(&*self.disk, &folder) {
            durable::files_in(&*self.disk, &folder)
        } else {
            Ok(Vec::new())
        }
    }

    fn folders(&self) -> Result<Vec<PathBuf>, StorageError> {
        if !durable::is_dir(&*self.disk, &self.dir) {
            return Ok(Vec::new());
        }
        let entries =
            self.disk.list(&self.dir).map_err(|error| StorageError::io("list", &self.dir, error))?;
        Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.path).collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A derived blob, ordered by its last use in this process, then by its age.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DerivedFile {
    used: u64,
    modified: (i64, i64),
    path: PathBuf,
    size: u64,
}

/// What the file's name begins with.
fn prefix(key: &DerivedKey) -> Result<String, StorageError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=64).contains(&key.layout.len()) && key.layout.bytes().all(plain) {
        return Ok(format!("{}-v{}-", key.layout, key.version));
    }
    Err(StorageError::InvalidKey { key: crate::format::shorten(&key.layout) })
}

fn root_in_name(path: &Path, prefix: &str) -> Option<blake3::Hash> {
    blake3::Hash::from_hex(path.file_name()?.to_str()?.strip_prefix(prefix)?).ok()
}
