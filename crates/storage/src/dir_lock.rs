//! One owner for a folder: an exclusive lock that ends with the process, however it ends.

use std::path::Path;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::durable::create_dir;
use crate::{RealDisk, StorageError};

const LOCK_FILE: &str = "lock";

/// An exclusive lock on a folder, held until dropped. The file `lock` in it names the holder's process id.
#[derive(Debug)]
pub struct DirLock {
    _file: Box<dyn DiskFile>,
}

impl DirLock {
    /// Locks `dir`, creating it if need be, or fails at once.
    ///
    /// # Errors
    /// [`StorageError::Locked`] naming the holder, or [`StorageError::Io`].
    pub fn acquire(dir: &Path) -> Result<Self, StorageError> {
        Self::acquire_on(&RealDisk, dir)
    }

    /// As [`acquire`](Self::acquire), on any disk.
    ///
    /// # Errors
    /// As there.
    pub fn acquire_on(disk: &dyn Disk, dir: &Path) -> Result<Self, StorageError> {
        create_dir(disk, dir)?;
        let path = dir.join(LOCK_FILE);
        let file = disk.open(&path, OpenMode::OpenOrCreate);
        let file = file.map_err(|error| StorageError::io("open", &path, error))?;
        match file.try_lock() {
            Ok(true) => {}
            Ok(false) => {
                return Err(StorageError::Locked { dir: dir.to_owned(), holder_pid: read_pid(&*file) });
            }
            Err(error) => return Err(StorageError::io("lock", &path, error)),
        }
        write_pid(&*file).map_err(|error| StorageError::io("write", &path, error))?;
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &dyn DiskFile) -> Option<u32> {
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

fn write_pid(file: &dyn DiskFile) -> std::io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
}
