//! What a registry gives to the others of its fleet: pieces of blobs that are here or on their way, and trees.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helios_runtime::{Clock, Shutdown};
use helios_storage::{BlobInfo, DurableFiles, Tree};
use helios_types::Digest;

use super::Share;
use super::share::Found;
use super::tracker::HOLDINGS_MAX;
use crate::blocking::blocking;
use crate::transfer::PIECE_BYTES;
use crate::{Registry, RegistryError};

/// How often the trackers are told what is here: well within the time that they remember it.
pub(super) const ANNOUNCE_EVERY: Duration = Duration::from_secs(20);

impl Registry {
    /// One piece of a blob. Waits for it if it is on its way here.
    pub(crate) async fn piece(&self, digest: &Digest, index: u64) -> Result<Bytes, RegistryError> {
        self.read_elsewhere(digest).await;
        let info = match self.swarm().share(digest) {
            Some(share) => {
                let folders = self.blobs().directories();
                match piece_under_way(&share, (*digest, index), self.files(), folders).await? {
                    UnderWay::Bytes(bytes) => return Ok(bytes),
                    UnderWay::Stored(info) => info,
                }
            }
            None => self.blob_info(digest).await.ok(),
        };
        let info = info.filter(|info| self.blobs().contains(&info.digest)).ok_or(missing(digest))?;
        self.read_stored(info, piece_range(index, info.size)?).await
    }

    /// The tree of a blob here.
    pub(crate) async fn tree(&self, digest: &Digest) -> Result<Arc<Tree>, RegistryError> {
        self.read_elsewhere(digest).await;
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
            match self.blobs_to_announce().await {
                Ok(blobs) => self.swarm().announce(&blobs).await,
                Err(error) => tracing::warn!(%error, "the blobs here cannot be listed"),
            }
            shutdown.race(Clock.sleep(ANNOUNCE_EVERY)).await;
        }
    }

    /// Recipes, which are of weights, and then the largest blobs, as many as a tracker takes.
    async fn blobs_to_announce(&self) -> Result<Vec<Digest>, RegistryError> {
        let intake = self.intake();
        let list = move || Ok((intake.blobs().recipes()?, intake.blobs().list()?));
        let (recipes, mut blobs) = blocking(list).await?;
        blobs.sort_unstable_by_key(|(_, size)| std::cmp::Reverse(*size));
        let blobs = blobs.into_iter().map(|(digest, _)| digest);
        Ok(recipes.into_iter().chain(blobs).take(HOLDINGS_MAX).collect())
    }

    async fn read_stored(&self, info: BlobInfo, range: Range<u64>) -> Result<Bytes, RegistryError> {
        let intake = self.intake();
        blocking(move || Ok(intake.blobs().read_range(&info, range)?.into())).await
    }
}

/// Where a piece of a download is.
pub(super) enum UnderWay {
    /// Here.
    Bytes(Bytes),
    /// In the blob, if the download has made one.
    Stored(Option<BlobInfo>),
}

/// Waits for a piece of a download, which is in one of the `folders` of the store until it has its final name. What an
/// earlier download left there may be wrong: it is checked as it is read.
pub(super) async fn piece_under_way(
    share: &Arc<Share>,
    (digest, index): (Digest, u64),
    files: &DurableFiles,
    folders: Vec<PathBuf>,
) -> Result<UnderWay, RegistryError> {
    let range = piece_range(index, share.size())?;
    Ok(match share.wait(index).await {
        Some(Found::Bytes(bytes)) => UnderWay::Bytes(bytes),
        // The file gets its final name at some moment; what is not under the one is under the other.
        Some(Found::Written) => {
            let (files, checked) = (files.clone(), Arc::clone(share));
            let mut partials =
                folders.into_iter().map(move |folder| folder.join("partial").join(digest.hex()));
            let read = move |partial: PathBuf| {
                let bytes = files.read_range(&partial, range.clone()).ok()?;
                checked.vouches(range.start, &bytes).then_some(bytes)
            };
            match blocking(move || Ok(partials.find_map(read))).await? {
                Some(bytes) => UnderWay::Bytes(bytes.into()),
                None => UnderWay::Stored(share.stored().await),
            }
        }
        None => UnderWay::Stored(None),
    })
}

pub(super) fn missing(digest: &Digest) -> RegistryError {
    RegistryError::UnknownDigest { kind: "piece of blob", digest: *digest }
}

/// The bytes of a piece of a blob.
pub(super) fn piece_range(index: u64, size: u64) -> Result<Range<u64>, RegistryError> {
    let start = index.saturating_mul(PIECE_BYTES);
    if start >= size {
        return Err(crate::registry::invalid_request(format!("piece {index} of a blob of {size} bytes")));
    }
    Ok(start..(start + PIECE_BYTES).min(size))
}
