//! The file seam: everything the store does to files goes through [`Disk`], so that a test can own it.
//!
//! Two implementations: [`RealDisk`], the operating system's, and [`SimulatedDisk`], which fails, tears and forgets
//! under a seed. The methods are the system calls the store is built from, no more; what is made of them (files that
//! appear whole, durable folders, small files) is in `durable`, on top of the trait, and so runs on both.

mod real;
mod simulated;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::Blob;

pub use real::RealDisk;
pub use simulated::{Fault, SimulatedDisk, Unsynced};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// To be read; it must be there.
    Read,
    /// To be read and written, created empty if it is not there.
    OpenOrCreate,
    /// To be read and written; it must not be there.
    CreateNew,
}

/// What tells one state of a file from another.
///
/// A file is taken for unchanged while all of these are: the status-change time cannot be set back by a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileStatus {
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Bytes.
    pub size: u64,
    /// The file system's number.
    pub device: u64,
    /// The file's number on it.
    pub inode: u64,
    /// When the contents last changed: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// When contents, names or permissions last changed: seconds and nanoseconds.
    pub changed: (i64, i64),
}

impl FileStatus {
    /// Whether both are states of one file.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether both are states of one file with nothing written between them; it may have got another name.
    pub fn is_same_contents(&self, other: &Self) -> bool {
        self.is_same_file(other) && (self.size, self.modified) == (other.size, other.modified)
    }
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The folder's path with the entry's name.
    pub path: PathBuf,
    /// Whether it is a folder itself.
    pub is_dir: bool,
}

/// Files and folders by path. A change of names survives a crash for certain once the folder was synced.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// What is at `path`.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] if nothing is.
    fn status(&self, path: &Path) -> io::Result<FileStatus>;

    /// The entries of a folder, in no order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Gives a file another name, replacing what bears it, in one step.
    ///
    /// # Errors
    /// What the system says; both names are then as they were.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; who has it open keeps it.
    ///
    /// # Errors
    /// What the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Creates one folder, whose parent must be there.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it.
    ///
    /// # Errors
    /// What the system says; part of it may then be gone.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// What tells this start of the system from every other, as a file name; `None` where it cannot be known.
    fn boot_id(&self) -> Option<String>;
}

/// An open file. Dropping it closes it and ends its lock.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads from `offset` as much as one call gives; 0 at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` from `offset` on.
    ///
    /// # Errors
    /// What the system says; any part may then be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, size: u64) -> io::Result<()>;

    /// Makes the contents durable; not the name.
    ///
    /// # Errors
    /// What the system says. What was written since the last success may then be lost although it can be read and
    /// although a later call succeeds: the file must be written anew.
    fn sync(&self) -> io::Result<()>;

    /// The file as it is now.
    ///
    /// # Errors
    /// What the system says.
    fn status(&self) -> io::Result<FileStatus>;

    /// Takes the exclusive lock if nobody has it (`flock`); false if somebody does.
    ///
    /// # Errors
    /// What the system says.
    fn try_lock(&self) -> io::Result<bool>;

    /// The whole file as memory, which stays as it is when the name is removed.
    ///
    /// # Errors
    /// What the system says.
    fn map(&self) -> io::Result<Blob>;

    /// The operating system's file, if this is one: for what only the kernel does, such as sharing extents.
    fn system_file(&self) -> Option<&File>;
}
