//! Garbage collection: what no tag, lease, running pull or reader needs is deleted.

use std::sync::Arc;

use helios_runtime::Clock;
use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::registry::manifest_path;
use crate::{Registry, RegistryError};

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Manifests deleted.
    pub manifests_removed: usize,
    /// Manifests that stay.
    pub manifests_kept: usize,
    /// Blobs deleted.
    pub blobs_removed: usize,
    /// Bytes freed: blobs, abandoned downloads and quarantined files.
    pub bytes_freed: u64,
}

impl Registry {
    /// Deletes every version that is in no tag's history, and every file that only such versions have.
    ///
    /// Versions in live leases, in use in this process, or handed out to another within the grace stay, and so does
    /// whatever a running pull has brought in.
    ///
    /// # Errors
    /// [`RegistryError::Storage`]; what was not deleted goes with the next collection.
    pub async fn gc(self: &Arc<Self>) -> Result<GcReport, RegistryError> {
        let registry = Arc::clone(self);
        blocking(move || registry.collect()).await
    }

    fn collect(&self) -> Result<GcReport, RegistryError> {
        // Pins before the index: a pull puts its manifest into the index before it gives up its pins.
        let (_gate, pinned) = self.pins().close();
        let _changes = self.changes();
        let leased = self.members().leased_manifests();
        let grace_since = Clock.now().checked_sub(self.config().gc_grace);
        let (unneeded, mut live, manifests_kept) = {
            let mut index = self.index_mut();
            let unneeded = index.take_unneeded(&leased, grace_since);
            (unneeded, index.blobs(), index.manifest_count())
        };
        live.extend(pinned);
        let mut report =
            GcReport { manifests_removed: unneeded.len(), manifests_kept, ..GcReport::default() };
        // Manifests first: a blob without a manifest is garbage, a manifest without a blob would be a lie.
        for digest in &unneeded {
            self.files().remove(&manifest_path(self.dir(), digest))?;
        }
        for (digest, size) in self.blobs().list()? {
            if !live.contains(&digest) {
                self.blobs().remove(&digest)?;
                report.blobs_removed += 1;
                report.bytes_freed += size;
            }
        }
        report.bytes_freed += self.blobs().remove_leftovers()?;
        Ok(report)
    }
}
