//! A blob's bytes in memory: a read-only map of its file, a buffer, or a region of an I/O engine's pool.
//!
//! A map holds the file itself, not its name: it stays valid when the name is removed or given to another file.

#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use memmap2::Mmap;

use crate::io::Region;

/// Immutable bytes, shared by clones.
#[derive(Clone)]
pub struct Blob(Arc<Bytes>);

/// Tells whether a blob is still open somewhere in this process, without keeping it open.
#[derive(Clone)]
pub(crate) struct WeakBlob(Weak<Bytes>);

impl WeakBlob {
    pub(crate) fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl fmt::Debug for WeakBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeakBlob({})", if self.is_open() { "open" } else { "closed" })
    }
}

enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
    Loaded(Region),
}

impl Blob {
    /// Wraps a buffer, which counts as verified: derived data and tests.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Bytes::Owned(bytes)))
    }

    /// Takes over what was read into an engine's memory and verified there.
    pub(crate) fn from_region(region: Region) -> Self {
        Self(Arc::new(Bytes::Loaded(region)))
    }

    /// The map, if it is one.
    pub(crate) fn mapped(&self) -> Option<&Mmap> {
        match &*self.0 {
            Bytes::Mapped(map) => Some(map),
            Bytes::Owned(_) | Bytes::Loaded(_) => None,
        }
    }

    /// Tells later whether it is still open.
    pub(crate) fn downgrade(&self) -> WeakBlob {
        WeakBlob(Arc::downgrade(&self.0))
    }

    /// Whether both are one piece of memory.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
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
            Bytes::Loaded(region) => region,
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
        let kind = match *self.0 {
            Bytes::Mapped(_) => "mapped",
            Bytes::Owned(_) => "owned",
            Bytes::Loaded(_) => "loaded",
        };
        write!(f, "Blob({kind}, {} bytes)", self.len())
    }
}
