//! Blobs that clients sent and no manifest names yet: pinned for a while, so that the manifest can follow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helios_registry::protocol::Intake;
use helios_registry::{Registry, RegistryError};
use helios_runtime::{Clock, Instant};
use helios_storage::BlobInfo;
use helios_types::{Digest, ErrorCode};

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
    /// Keeps a blob that `intake` has pinned.
    pub(crate) fn put(&self, info: BlobInfo, intake: Arc<Intake>) -> Result<(), RegistryError> {
        let now = Clock.now();
        let mut blobs = self.blobs();
        blobs.retain(|_, waiting| now - waiting.since < WAIT_MAX);
        if blobs.len() >= BLOBS_MAX && !blobs.contains_key(&info.digest) {
            let problem = format!("{BLOBS_MAX} uploaded files wait for their commit; no more are taken");
            return Err(RegistryError::InvalidRequest { problem, code: ErrorCode::Overloaded });
        }
        blobs.insert(info.digest, Waiting { info, since: now, _intake: intake });
        Ok(())
    }

    /// What is known of a blob that waits, or is one of some version, and is here or can be fetched again.
    pub(crate) async fn known(&self, registry: &Registry, digest: &Digest) -> Option<BlobInfo> {
        let waiting = self.blobs().get(digest).map(|waiting| waiting.info);
        let info = match waiting {
            Some(info) => info,
            None => registry.blob_info(digest).await.ok()?,
        };
        registry.is_to_be_had(&info.digest).await.then_some(info)
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<Digest, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
