//! One owner for a folder: an exclusive lock that ends with the process, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::StorageError;
use crate::durable::create_dir;

const LOCK_FILE: &str = "lock";

/// An exclusive lock on a folder, held until dropped. The file `lock` in it names the holder's process id.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Locks `dir`, creating it if need be, or fails at once.
    ///
    /// # Errors
    /// [`StorageError::Locked`] naming the holder, or [`StorageError::Io`].
    pub fn acquire(dir: &Path) -> Result<Self, StorageError> {
        create_dir(dir)?;
        let path = dir.join(LOCK_FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(|error| StorageError::io("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StorageError::Locked { dir: dir.to_owned(), holder_pid: read_pid(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(StorageError::io("lock", &path, error)),
        }
        write_pid(&mut file).map_err(|error| StorageError::io("write", &path, error))?;
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
