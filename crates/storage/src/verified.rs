//! Which blobs this process has read in full and found right, so that each is hashed once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use helios_types::Digest;

use crate::BlobInfo;
use crate::disk::FileStatus;

/// The verified blobs; at most one entry per blob of the store.
#[derive(Debug, Default)]
pub(crate) struct VerifiedFiles(Mutex<HashMap<Digest, (FileStatus, BlobInfo)>>);

impl VerifiedFiles {
    /// Whether the file in this state was found to be `info`.
    pub(crate) fn covers(&self, status: FileStatus, info: &BlobInfo) -> bool {
        self.entries().get(&info.digest) == Some(&(status, *info))
    }

    pub(crate) fn insert(&self, status: FileStatus, info: &BlobInfo) {
        self.entries().insert(info.digest, (status, *info));
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.entries().remove(digest);
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, (FileStatus, BlobInfo)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
