//! A blob's bytes in memory: a read-only map of its file, or a buffer.
//!
//! A map holds the file itself, not its name: it stays valid when the name is removed or given to another file.

#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use memmap2::Mmap;

/// Immutable bytes, shared by clones.
#[derive(Clone)]
pub struct Blob(Arc<Bytes>);

enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Blob {
    /// Wraps a buffer, which counts as verified: derived data and tests.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Bytes::Owned(bytes)))
    }

    /// Maps a whole file of the store.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the file is a blob of the store: immutable once it bears its digest, and only ever renamed or
        // unlinked, which leaves the mapped inode as it is. Who writes into the store's folders by other means than
        // this crate breaks that agreement, as with every program that maps its data.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self(Arc::new(Bytes::Mapped(map))))
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.0 {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(*self.0, Bytes::Mapped(_)) { "mapped" } else { "owned" };
        write!(f, "Blob({kind}, {} bytes)", self.len())
    }
}
