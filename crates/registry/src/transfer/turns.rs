//! One transfer of a digest at a time: who comes second waits, and finds the file there or goes on where the first
//! stopped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use helios_storage::BlobInfo;
use helios_types::Digest;
use tokio::sync::OwnedMutexGuard;

type Slot = tokio::sync::Mutex<Option<BlobInfo>>;

/// The digests that are being fetched.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Digest, Weak<Slot>>>);

/// The right to fetch a digest; holds what somebody before brought.
pub(super) type Turn = OwnedMutexGuard<Option<BlobInfo>>;

impl Turns {
    /// Waits until nobody else fetches `digest`. Bounded by those who fetch: each has limits of its own.
    pub(crate) async fn take(&self, digest: Digest) -> Turn {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            slots.retain(|_, slot| slot.strong_count() > 0);
            let slot = slots.get(&digest).and_then(Weak::upgrade).unwrap_or_default();
            slots.insert(digest, Arc::downgrade(&slot));
            slot
        };
        slot.lock_owned().await
    }
}
