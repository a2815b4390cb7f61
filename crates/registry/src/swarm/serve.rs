//! What a registry gives to the others of its fleet: pieces of blobs that are here or on their way, and trees.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helios_runtime::{Clock, Shutdown};
use helios_storage::{BlobInfo, Tree};
use helios_types::Digest;

use super::share::Found;
use super::tracker::HOLDINGS_MAX;
use crate::blocking::blocking;
use crate::transfer::PIECE_BYTES;
use crate::{Registry, RegistryError};

/// How often the trackers are told what is here: well within the time that they remember it.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(20);

impl Registry {
    /// One piece of a blob. Waits for it if it is on its way here.
    pub(crate) async fn piece(&self, digest: &Digest, index: u64) -> Result<Bytes, RegistryError> {
        let info = match self.swarm().share(digest) {
            Some(share) => {
                let range = piece_range(index, share.size())?;
                match share.wait(index).await {
                    Some(Found::Bytes(bytes)) => return Ok(bytes),
                    // The file gets its final name at some moment; what is not under the one is under the other.
                    Some(Found::Written) => match self.read_partial(digest, range).await {
                        Ok(bytes) => return Ok(bytes),
                        Err(_) => share.stored().await,
                    },
                    None => None,
                }
            }
            None => self.blob_info(digest).await.ok(),
        };
        let missing = RegistryError::UnknownDigest { kind: "piece of blob", digest: *digest };
        let info = info.filter(|info| self.blobs().contains(&info.digest)).ok_or(missing)?;
        self.read_stored(info, piece_range(index, info.size)?).await
    }

    /// The tree of a blob here.
    pub(crate) async fn tree(&self, digest: &Digest) -> Result<Arc<Tree>, RegistryError> {
        let info = self.blob_info(digest).await?;
        let intake = self.intake();
        blocking(move || Ok(intake.blobs().tree(&info)?)).await
    }

    /// Tells the fleet again and again which blobs are here, until `shutdown`. Returns at once without a fleet.
    pub async fn announce(&self, shutdown: &Shutdown) {
        if self.swarm().is_alone() {
            return;
        }
        while !shutdown.is_triggered() {
            match self.largest_blobs().await {
                Ok(blobs) => self.swarm().announce(&blobs).await,
                Err(error) => tracing::warn!(%error, "the blobs here cannot be listed"),
            }
            shutdown.race(Clock.sleep(ANNOUNCE_EVERY)).await;
        }
    }

    async fn largest_blobs(&self) -> Result<Vec<Digest>, RegistryError> {
        let intake = self.intake();
        let mut blobs = blocking(move || Ok(intake.blobs().list()?)).await?;
        blobs.sort_unstable_by_key(|(_, size)| std::cmp::Reverse(*size));
        Ok(blobs.into_iter().take(HOLDINGS_MAX).map(|(digest, _)| digest).collect())
    }

    async fn read_partial(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes, RegistryError> {
        let path = self.dir().join("partial").join(digest.hex());
        let files = self.files().clone();
        blocking(move || Ok(files.read_range(&path, range)?.into())).await
    }

    async fn read_stored(&self, info: BlobInfo, range: Range<u64>) -> Result<Bytes, RegistryError> {
        let intake = self.intake();
        blocking(move || Ok(intake.blobs().read_range(&info, range)?.into())).await
    }
}

/// The bytes of a piece of a blob.
fn piece_range(index: u64, size: u64) -> Result<Range<u64>, RegistryError> {
    let start = index.saturating_mul(PIECE_BYTES);
    if start >= size {
        return Err(crate::registry::invalid_request(format!("piece {index} of a blob of {size} bytes")));
    }
    Ok(start..(start + PIECE_BYTES).min(size))
}
