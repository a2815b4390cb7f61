//! An open file as the engine takes it: through the page cache, or past it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Bytes that offsets and lengths of direct I/O are multiples of: the largest logical block of today's disks.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// A file for an [`crate::io::IoEngine`].
#[derive(Debug)]
pub struct IoFile {
    file: File,
    direct: bool,
}

impl IoFile {
    /// Takes a file as it was opened; its reads and writes go through the page cache.
    pub fn buffered(file: File) -> Self {
        Self { file, direct: false }
    }

    /// Opens a file for reading past the page cache (`O_DIRECT`).
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if the file system cannot do that.
    pub fn open_direct(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path)?;
        Ok(Self { file, direct: true })
    }

    /// The same open file once more, past the page cache where its file system can do that, else as it is.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn prefer_direct(file: &File) -> io::Result<Self> {
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        Self::open_direct(Path::new(&same)).or_else(|_| Ok(Self::buffered(file.try_clone()?)))
    }

    /// Whether it bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }
}
