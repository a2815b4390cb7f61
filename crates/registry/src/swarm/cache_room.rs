//! The room that a cache takes: a budget of bytes, within which what was used least of late leaves for what comes.
//!
//! All of a cache can be fetched again, so that anything may leave but what somebody on this host uses: what is open in
//! this process, what it is about to open, and what the other processes that share the folder have opened since they
//! began. Two that begin at the same time do not see what the other fetches, and may pass the budget together.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use helios_storage::probe::FolderProbe;
use helios_storage::tiers::{Keeper, TierDirectory, TierKind};
use helios_storage::{BlobStore, DirUsers, StorageError, Tiers};
use helios_types::Digest;

/// What of the free space a cache without a configured budget takes, beside what it has: the rest is left to others.
const FREE_PERCENT: u64 = 90;

/// Who uses what of a cache.
#[derive(Debug)]
pub(crate) struct CacheRoom {
    users: DirUsers,
    /// What this process is about to open.
    opening: Mutex<Vec<Digest>>,
    /// What others used when it was last known.
    used_by_others: Mutex<HashSet<Digest>>,
}

/// A blob that is about to be opened; it stays in the cache.
pub(crate) struct Opening<'a> {
    room: &'a CacheRoom,
    digest: Digest,
}

impl CacheRoom {
    /// Opens the cache in `dir` with a budget, by default most of what is free; what is over it leaves. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Io`] or [`StorageError::StorageFull`].
    pub(crate) fn open(
        dir: &Path,
        budget_bytes: Option<u64>,
    ) -> Result<(Arc<Tiers>, Arc<Self>), StorageError> {
        let budget_bytes = match budget_bytes {
            Some(bytes) => bytes,
            None => default_budget(dir)?,
        };
        let directory =
            TierDirectory { kind: TierKind::Nvme, dir: dir.to_owned(), budget_bytes: Some(budget_bytes) };
        let blobs = Tiers::open(dir, vec![directory])?;
        let room = Arc::new(Self {
            users: DirUsers::join(&dir.join("users"))?,
            opening: Mutex::default(),
            used_by_others: Mutex::default(),
        });
        blobs.set_keeper(Arc::clone(&room) as Arc<dyn Keeper>);
        blobs.look_after();
        Ok((blobs, room))
    }

    /// Keeps a blob until what this returns is dropped: it may be fetched meanwhile, and opened.
    pub(crate) fn opening(&self, digest: Digest) -> Opening<'_> {
        self.opened().push(digest);
        Opening { room: self, digest }
    }

    /// Tells the other processes of this host that a blob is used here. Blocks.
    pub(crate) fn uses(&self, digest: Digest) {
        if let Err(error) = self.users.uses(digest) {
            tracing::debug!(%digest, %error, "others are not told that a blob is in use");
        }
    }

    fn opened(&self) -> MutexGuard<'_, Vec<Digest>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut opening = self.room.opened();
        if let Some(index) = opening.iter().position(|digest| *digest == self.digest) {
            opening.swap_remove(index);
        }
    }
}

impl Keeper for CacheRoom {
    fn held(&self) -> HashSet<Digest> {
        let mut held = {
            let mut known = self.used_by_others.lock().unwrap_or_else(PoisonError::into_inner);
            match self.users.used_by_others() {
                Ok(used) => *known = used,
                Err(error) => tracing::warn!(%error, "what others use of the cache now is not known"),
            }
            known.clone()
        };
        held.extend(self.opened().iter().copied());
        held
    }

    fn can_fetch(&self, _digest: &Digest) -> bool {
        true
    }

    fn give_up_derived(&self, _bytes: u64) -> u64 {
        0
    }
}

fn default_budget(dir: &Path) -> Result<u64, StorageError> {
    let held: u64 = BlobStore::open(dir)?.list()?.iter().map(|(_, bytes)| bytes).sum();
    let free = FolderProbe::new(dir)?.free_bytes;
    Ok(held.saturating_add(free / 100 * FREE_PERCENT))
}
