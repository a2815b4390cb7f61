//! The cache of a worker as a node of the fleet below its registry: it asks its neighbours before the registry, and
//! gives them what it has, also while it is still coming.
//!
//! The registry is the tracker. What is here is what the worker was told of by manifests, so that every blob comes with
//! the root that its pieces are checked against. It gives pieces and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use helios_runtime::{Clock, Shutdown};
use helios_storage::{Blob, BlobInfo, DurableFiles, StorageError, Tiers};
use helios_types::Digest;

use super::serve::{ANNOUNCE_EVERY, UnderWay, missing, piece_range, piece_under_way};
use super::tracker::HOLDINGS_MAX;
use super::{CacheRoom, SHARED_BYTES_MIN, Swarm, SwarmFile};
use crate::blocking::blocking;
use crate::transfer::{Origin, Turns, fetch_blob};
use crate::{FetchConfig, FleetConfig, RegistryClient, RegistryError};

/// Blobs from a registry elsewhere, shared with the others who take them from there.
#[derive(Debug)]
pub struct SharedCache {
    client: RegistryClient,
    blobs: Arc<Tiers>,
    room: Arc<CacheRoom>,
    swarm: Swarm,
    turns: Turns,
    /// What manifests said of blobs that were asked for here.
    known: Mutex<HashMap<Digest, BlobInfo>>,
}

impl SharedCache {
    /// The cache in `blobs`, within `room`, of what `client` gives; `fleet` says where the tracker and where this node is.
    pub(crate) fn new(
        client: RegistryClient,
        (blobs, room): (Arc<Tiers>, Arc<CacheRoom>),
        fleet: FleetConfig,
    ) -> Self {
        let swarm = Swarm::new(fleet);
        Self { client, blobs, room, swarm, turns: Turns::default(), known: Mutex::default() }
    }

    /// Maps a blob, verified; brought first if it is not here.
    ///
    /// # Errors
    /// What the registry says; [`RegistryError::CacheFull`]; [`RegistryError::Storage`].
    pub(crate) async fn blob(&self, info: BlobInfo) -> Result<Blob, RegistryError> {
        self.note(info);
        let _stays = self.room.opening(info.digest);
        if let Ok(blob) = self.open(info).await {
            return Ok(blob);
        }
        let _turn = self.turns.take(info.digest).await;
        if let Ok(blob) = self.open(info).await {
            return Ok(blob);
        }
        self.fetch(info).await.map_err(|error| match error {
            RegistryError::Storage(StorageError::NoRoom { bytes, tiers }) => {
                RegistryError::CacheFull { bytes, cache: tiers }
            }
            error => error,
        })?;
        self.open(info).await
    }

    /// Deletes what interrupted downloads left and nobody is writing now; for when everything that is wanted is here.
    ///
    /// # Errors
    /// [`RegistryError::Storage`].
    pub(crate) async fn remove_leftovers(&self) -> Result<u64, RegistryError> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || Ok(blobs.remove_leftovers()?)).await
    }

    /// One piece of a blob that is here or on its way.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDigest`]; [`RegistryError::InvalidRequest`] for a piece that the blob does not have.
    pub(crate) async fn piece(&self, digest: &Digest, index: u64) -> Result<Bytes, RegistryError> {
        let info = match self.swarm.share(digest) {
            Some(share) => {
                let folders = self.blobs.directories();
                match piece_under_way(&share, (*digest, index), &DurableFiles::default(), folders).await? {
                    UnderWay::Bytes(bytes) => return Ok(bytes),
                    UnderWay::Stored(info) => info,
                }
            }
            None => self.known().get(digest).copied(),
        };
        let info = info.filter(|info| self.blobs.contains(&info.digest)).ok_or(missing(digest))?;
        let (blobs, range) = (Arc::clone(&self.blobs), piece_range(index, info.size)?);
        blocking(move || Ok(blobs.read_range(&info, range)?.into())).await
    }

    /// Tells the registry again and again which blobs are here, until `shutdown`.
    pub async fn announce(&self, shutdown: &Shutdown) {
        while !shutdown.is_triggered() {
            self.announce_once().await;
            shutdown.race(Clock.sleep(ANNOUNCE_EVERY)).await;
        }
    }

    /// Tells the registry which blobs are here.
    pub async fn announce_once(&self) {
        let known: Vec<Digest> = self.known().keys().copied().collect();
        let blobs = Arc::clone(&self.blobs);
        let here = blocking(move || {
            Ok(known.into_iter().filter(|digest| blobs.contains(digest)).collect::<Vec<_>>())
        });
        match here.await {
            Ok(here) => self.swarm.announce(&here).await,
            Err(error) => tracing::warn!(%error, "the blobs here cannot be listed"),
        }
    }

    async fn open(&self, info: BlobInfo) -> Result<Blob, RegistryError> {
        let (blobs, room) = (Arc::clone(&self.blobs), Arc::clone(&self.room));
        blocking(move || {
            room.uses(info.digest);
            let blob = blobs.get(&info)?;
            if let Err(error) = blobs.save() {
                tracing::debug!(%error, "a use of a blob of the cache is not remembered");
            }
            Ok(blob)
        })
        .await
    }

    /// Together with the fleet; from the registry alone where that is not worth it, or what came of it is not the blob.
    async fn fetch(&self, info: BlobInfo) -> Result<(), RegistryError> {
        let registry = self.client.blob_origin(info.digest);
        if info.size < SHARED_BYTES_MIN {
            return self.transfer(info, &registry, None).await;
        }
        let limits = FetchConfig::default();
        let tree = match self.client.tree(&info).await {
            Ok(tree) => Some(tree),
            Err(error) => {
                tracing::info!(%error, digest = %info.digest, "a blob comes without its tree");
                None
            }
        };
        let blob = (info.digest, info.size);
        let shared = SwarmFile::new(&self.swarm, &registry, blob, tree, limits.stall_timeout);
        match self.transfer(info, &shared, Some(&shared)).await {
            Err(error @ RegistryError::Storage(StorageError::DigestMismatch { .. }))
                if shared.blame(&error) =>
            {
                tracing::warn!(%error, digest = %info.digest, "the fleet gave something else; the registry is asked alone");
                self.transfer(info, &registry, None).await
            }
            result => result,
        }
    }

    async fn transfer(
        &self,
        info: BlobInfo,
        origin: &dyn Origin,
        shared: Option<&SwarmFile<'_>>,
    ) -> Result<(), RegistryError> {
        let report = |done, _| shared.iter().for_each(|shared| shared.wrote(done));
        let stored = fetch_blob(&info, origin, &self.blobs, &report).await?;
        if let Some(shared) = shared {
            shared.finish(stored).await;
        }
        Ok(())
    }

    fn note(&self, info: BlobInfo) {
        let mut known = self.known();
        if known.len() < HOLDINGS_MAX {
            known.insert(info.digest, info);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, BlobInfo>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
