//! A disk in memory that fails, tears and forgets under a seed.
//!
//! Operations that change something (create, write, set length, sync, rename, remove) are numbered from 0. A test lets
//! one of them fail ([`SimulatedDisk::inject`]) or be the last that was begun ([`Fault::Crash`]), and then starts the
//! machine again: after a power loss, or after a kill of the process alone. Two disks of one seed that see the same
//! operations end in the same state.
//!
//! Stricter than most real disks: each unsynced change is lost or kept for itself, in any combination, and data whose
//! sync failed is gone although it can be read. Not modelled: damage to what was synced (tests flip those bits
//! themselves, with [`SimulatedDisk::damage`]), and the order of reads.

mod files;
mod state;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::files::{Change, Naming};
use self::state::{State, crashed, not_found, parent, status_of};
use super::{DirEntry, Disk, DiskFile, FileStatus, OpenMode};
use crate::Blob;

pub use self::files::Unsynced;

/// What happens to an operation instead of its success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk has an error (`EIO`).
    Broken,
    /// The disk is full (`ENOSPC`).
    Full,
    /// The machine or the process stops: the operation was begun, and none after it.
    Crash,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State::new(seed))))
    }

    /// Changing operations so far; the next one has this number.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Bytes that were read from files so far; maps do not count.
    pub fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    /// What the operations were, for messages of failing tests.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Lets the operation with that number end in `fault`.
    pub fn inject(&self, operation: u64, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    /// Starts the machine again after its power was lost. Open files and locks of before are dead.
    pub fn lose_power(&self, unsynced: Unsynced) {
        let mut state = self.state();
        let State { files, dice, .. } = &mut *state;
        files.lose_power(unsynced, dice);
        state.power_losses += 1;
        state.restart();
    }

    /// Starts the program again after it was killed: what it did is there, synced or not. Open files and locks of
    /// before are dead.
    pub fn kill(&self) {
        self.state().restart();
    }

    /// Flips a bit of a file at rest, without a change of its times, as a failing disk does.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn damage(&self, path: &Path, byte: usize) {
        let mut state = self.state();
        let number = state.files.names[path];
        let inode = state.files.inodes.get_mut(&number).expect("invariant: a name has an inode");
        inode.contents[byte] ^= 0x10;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.alive()?;
        let inode = state.open(path, mode)?;
        state.handle_next += 1;
        let (boot, handle) = (state.boot, state.handle_next);
        Ok(Box::new(SimulatedFile { disk: self.clone(), path: path.to_owned(), inode, boot, handle }))
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        let state = self.state();
        state.alive()?;
        state.files.at(path).map(|(number, inode)| status_of(number, inode)).ok_or_else(not_found)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        state.alive()?;
        if !state.files.is_dir(dir) {
            return Err(not_found());
        }
        let children = state.files.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(children.map(|path| DirEntry { path: path.clone(), is_dir: state.files.is_dir(path) }).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        state.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        if state.files.at(path).ok_or_else(not_found)?.1.is_dir {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let path = path.to_owned();
        state.atomic("remove", &path.clone(), |state| state.files.rename_names(Naming::Remove { path }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        if state.files.at(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !state.files.is_dir(parent(path)) {
            return Err(not_found());
        }
        state.atomic("create folder", path, |state| state.files.create(path, true)).map(drop)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        if !state.files.is_dir(path) {
            return Err(not_found());
        }
        state.atomic("remove folder", path, |state| {
            let inside = state.files.names.keys().filter(|name| name.starts_with(path)).cloned();
            for path in inside.collect::<Vec<_>>().into_iter().rev() {
                state.files.rename_names(Naming::Remove { path });
            }
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        if !state.files.is_dir(dir) {
            return Err(not_found());
        }
        state.sync_dir(dir)
    }

    fn boot_id(&self) -> Option<String> {
        Some(format!("boot-{}", self.state().power_losses))
    }
}

/// An open file of the simulated disk.
struct SimulatedFile {
    disk: SimulatedDisk,
    path: PathBuf,
    inode: u64,
    boot: u64,
    handle: u64,
}

impl SimulatedFile {
    /// The disk, unless this file was opened by a process that is dead.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        state.alive()?;
        if state.boot == self.boot { Ok(state) } else { Err(crashed()) }
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        let contents = state.files.inodes.get(&self.inode).map_or(&[][..], |inode| &inode.contents);
        let rest = contents.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        state.bytes_read += length as u64;
        Ok(length)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let change = Change::Write { offset: offset as usize, bytes: bytes.to_vec() };
        self.state()?.change("write", &self.path, self.inode, change)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.state()?.change("set length of", &self.path, self.inode, Change::SetLen(size as usize))
    }

    fn sync(&self) -> io::Result<()> {
        self.state()?.sync(&self.path, self.inode)
    }

    fn status(&self) -> io::Result<FileStatus> {
        let state = self.state()?;
        state.files.inodes.get(&self.inode).map(|inode| status_of(self.inode, inode)).ok_or_else(not_found)
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.state()?;
        Ok(*state.locks.entry(self.inode).or_insert(self.handle) == self.handle)
    }

    fn map(&self) -> io::Result<Blob> {
        let state = self.state()?;
        let inode = state.files.inodes.get(&self.inode).ok_or_else(not_found)?;
        Ok(Blob::from_vec(inode.contents.clone()))
    }

    fn system_file(&self) -> Option<&File> {
        None
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boot == self.boot && state.locks.get(&self.inode) == Some(&self.handle) {
            state.locks.remove(&self.inode);
        }
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedDisk({} operations)", self.operations())
    }
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedFile({})", self.path.display())
    }
}
