//! Blobs that clients sent and no manifest names yet: pinned until a version names them, or their time is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helios_runtime::{Clock, Instant};
use helios_storage::BlobInfo;
use helios_types::{Digest, ErrorCode};

use crate::pins::Intake;
use crate::{Registry, RegistryError};

/// How long a blob waits for a manifest.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Blobs that wait at a time; more are refused.
const BLOBS_MAX: usize = 16_384;

/// The blobs that wait.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<HashMap<Digest, Waiting>>);

#[derive(Debug)]
struct Waiting {
    info: BlobInfo,
    since: Instant,
    /// Its pin.
    _intake: Arc<Intake>,
}

impl Shelf {
    fn put(&self, info: BlobInfo, intake: Arc<Intake>, now: Instant) -> Result<(), RegistryError> {
        let mut blobs = self.blobs();
        if blobs.len() >= BLOBS_MAX && !blobs.contains_key(&info.digest) {
            let problem = format!("{BLOBS_MAX} uploaded files wait for their commit; no more are taken");
            return Err(RegistryError::InvalidRequest { problem, code: ErrorCode::Overloaded });
        }
        blobs.insert(info.digest, Waiting { info, since: now, _intake: intake });
        Ok(())
    }

    fn find(&self, digest: &Digest) -> Option<BlobInfo> {
        self.blobs().get(digest).map(|waiting| waiting.info)
    }

    /// Takes out what a version names from now on.
    pub(crate) fn release(&self, named: impl IntoIterator<Item = Digest>) {
        let mut blobs = self.blobs();
        for digest in named {
            blobs.remove(&digest);
        }
    }

    /// Takes out what waited too long. To be called before anybody counts on the pins.
    pub(crate) fn expire(&self, now: Instant) {
        self.blobs().retain(|_, waiting| now.saturating_duration_since(waiting.since) < WAIT_MAX);
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<Digest, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Keeps a blob that `intake` has pinned until [`add_version`](Self::add_version) names it, an hour at most.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] if too many wait.
    pub fn shelve(&self, info: BlobInfo, intake: Arc<Intake>) -> Result<(), RegistryError> {
        let now = Clock.now();
        self.shelf().expire(now);
        self.shelf().put(info, intake, now)
    }

    /// What is known of a blob that waits for its version, or is one of some version. It may have left this store.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`].
    pub async fn known_blob(&self, digest: &Digest) -> Result<Option<BlobInfo>, RegistryError> {
        match self.shelf().find(digest) {
            Some(info) => Ok(Some(info)),
            None => Ok(self.metadata().blob(digest).await?),
        }
    }

    /// Whether such a blob is here, so that nobody has to send it.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`].
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        Ok(self.blobs().contains(digest) && self.known_blob(digest).await?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use helios_runtime::Clock;
    use helios_storage::BlobInfo;

    use super::WAIT_MAX;
    use crate::{Registry, RegistryConfig};

    async fn sent(registry: &Registry, bytes: &[u8]) -> BlobInfo {
        let intake = registry.intake();
        let info = intake.store(bytes.to_vec()).await.expect("stored");
        registry.shelve(info, intake).expect("room");
        info
    }

    #[tokio::test]
    async fn what_was_sent_is_pinned_until_it_is_named_or_its_time_is_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let registry = Registry::open(dir.path(), RegistryConfig::default()).await.expect("opened");
        let (named, left) = (sent(&registry, b"named").await, sent(&registry, b"left").await);
        registry.shelf().expire(Clock.now());
        assert_eq!(registry.pins().pinned().len(), 2);
        registry.shelf().release([named.digest]);
        assert_eq!(registry.pins().pinned(), [left.digest]);
        assert!(registry.has_blob(&left.digest).await.expect("an answer"));
        registry.shelf().expire(Clock.now() + WAIT_MAX);
        assert!(registry.pins().pinned().is_empty());
        assert_eq!(registry.known_blob(&left.digest).await.expect("an answer"), None);
        assert!(!registry.has_blob(&left.digest).await.expect("an answer"), "here, and nobody knows of it");
        assert_eq!(registry.gc().await.expect("collected").blobs_removed, 2);
    }
}
