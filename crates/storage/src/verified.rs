//! Which blobs this process has read in full and found right, so that each is hashed once.
//!
//! A file is taken for the same while device, inode, size, modification and status-change time are; the last cannot be
//! set back by a program.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use helios_types::Digest;

use crate::BlobInfo;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The verified blobs; at most one entry per blob of the store.
#[derive(Debug, Default)]
pub(crate) struct VerifiedFiles(Mutex<HashMap<Digest, (FileIdentity, BlobInfo)>>);

impl VerifiedFiles {
    /// Whether the file in this state was found to be `info`.
    pub(crate) fn covers(&self, identity: FileIdentity, info: &BlobInfo) -> bool {
        self.entries().get(&info.digest) == Some(&(identity, *info))
    }

    pub(crate) fn insert(&self, identity: FileIdentity, info: &BlobInfo) {
        self.entries().insert(info.digest, (identity, *info));
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.entries().remove(digest);
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, (FileIdentity, BlobInfo)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
