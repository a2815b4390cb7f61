//! What processes of this host use of a store, said in files of its folder that are locked while they live: so a
//! collection knows it also while no server has the store open, or one has just started and was told nothing yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use helios_storage::{DirUsers, StorageError};
use helios_types::Digest;

/// A version that this process uses, as the folder of its store says until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct HostLease {
    _users: Arc<DirUsers>,
}

impl HostLease {
    /// Says so in the folder `store`. Blocks.
    pub(crate) fn begin(store: &Path, manifest: Digest) -> Result<Self, StorageError> {
        let users = DirUsers::join(&folder(store))?;
        users.uses(manifest)?;
        Ok(Self { _users: Arc::new(users) })
    }
}

/// Where these files are in a store.
pub(crate) fn folder(store: &Path) -> PathBuf {
    store.join("leases")
}
