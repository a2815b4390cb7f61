//! What the processes that share a folder of blobs use of it: each says so in a file of its own, which is locked while it
//! lives.
//!
//! Nothing here is durable, and a file that is torn loses what was written last: whoever believes it deletes a blob's
//! name, which costs others the bytes on disk until they close it, and never what they have mapped.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use helios_types::Digest;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::{RealDisk, StorageError, durable};

/// Bytes of a digest in a file.
const DIGEST_BYTES: usize = 32;
/// Digests that are read of one process, and written by one: 64 MiB of each file.
const DIGESTS_MAX: usize = 2 << 20;

/// One of the processes that share a folder; it is none any more when this is dropped.
#[derive(Debug)]
pub struct DirUsers {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    told: Mutex<HashSet<Digest>>,
}

impl DirUsers {
    /// Joins those whose files are in `dir`, which is created if need be.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`].
    pub fn join(dir: &Path) -> Result<Self, StorageError> {
        Self::join_on(Arc::new(RealDisk), dir)
    }

    /// As [`join`](Self::join), on any disk.
    ///
    /// # Errors
    /// As there.
    pub fn join_on(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StorageError> {
        durable::create_dir(&*disk, dir)?;
        loop {
            let path = dir.join(format!("{:016x}", helios_runtime::random_u64()));
            let file = disk.open(&path, OpenMode::CreateNew);
            let file = file.map_err(|error| StorageError::io("create", &path, error))?;
            // Another process may have taken it for one of the dead, between the two calls.
            if durable::lock_at(&*disk, &*file, &path)? {
                return Ok(Self { disk, dir: dir.to_owned(), path, file, told: Mutex::default() });
            }
        }
    }

    /// Says that this process uses a blob from now on. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`]: the others do not know.
    pub fn uses(&self, digest: Digest) -> Result<(), StorageError> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(&digest) || told.len() >= DIGESTS_MAX {
            return Ok(());
        }
        let end = (told.len() * DIGEST_BYTES) as u64;
        let written = self.file.write_all_at(digest.as_bytes(), end);
        written.map_err(|error| StorageError::io("write", &self.path, error))?;
        told.insert(digest);
        Ok(())
    }

    /// What the others use. The files of those that ended are deleted. Blocks: O(what they use).
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn used_by_others(&self) -> Result<HashSet<Digest>, StorageError> {
        let mut used = HashSet::new();
        for path in durable::files_in(&*self.disk, &self.dir)? {
            if path == self.path || durable::remove_unless_locked(&*self.disk, &path)?.is_some() {
                continue;
            }
            // One that ended just now uses nothing.
            let Ok(file) = self.disk.open(&path, OpenMode::Read) else { continue };
            let mut bytes = [0; DIGEST_BYTES];
            for index in 0..DIGESTS_MAX {
                match file.read_at(&mut bytes, (index * DIGEST_BYTES) as u64) {
                    Ok(DIGEST_BYTES) => used.insert(Digest::from_bytes(bytes)),
                    _ => break,
                };
            }
        }
        Ok(used)
    }
}

impl Drop for DirUsers {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the next process deletes it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;
    use std::sync::Arc;

    use helios_types::Digest;

    use super::DirUsers;
    use crate::SimulatedDisk;
    use crate::disk::Disk;

    #[test]
    fn what_a_process_uses_the_others_know_until_it_ends() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(1));
        let dir = Path::new("/cache/users");
        let join = || DirUsers::join_on(Arc::clone(&disk), dir).expect("joined");
        let digest = |number| Digest::from_bytes([number; 32]);
        let used = |users: &DirUsers| users.used_by_others().expect("read");
        let (one, two) = (join(), join());
        assert!(used(&one).is_empty());
        for number in [1, 2, 1] {
            two.uses(digest(number)).expect("told");
        }
        assert_eq!(used(&one), HashSet::from([digest(1), digest(2)]));
        assert!(used(&two).is_empty(), "its own are not the others'");
        drop(two);
        assert!(used(&one).is_empty());
        assert_eq!(disk.list(dir).expect("listed").len(), 1);
    }

    #[test]
    fn a_process_that_was_killed_uses_nothing() {
        let disk = SimulatedDisk::new(1);
        let join = || DirUsers::join_on(Arc::new(disk.clone()), Path::new("/cache/users")).expect("joined");
        let killed = join();
        killed.uses(Digest::from_bytes([1; 32])).expect("told");
        disk.kill();
        let one = join();
        assert!(one.used_by_others().expect("read").is_empty());
        assert_eq!(disk.list(Path::new("/cache/users")).expect("listed").len(), 1, "its file is deleted");
    }
}
