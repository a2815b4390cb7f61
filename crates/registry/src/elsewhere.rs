//! What the tiers are told of a store: which blobs somebody relies on, and which could be had again from elsewhere - the
//! fourth tier, remote.
//!
//! Only weights may lose their last local copy: what a proxy needs to answer at all is small and stays. A model counts
//! as to be had again if it came from a parent or remote store that is configured still, was pushed to the latter, or
//! came from a hub, a package registry, an object store or a web server. Whether those still have it is found out when it
//! is asked for. What is missing here is therefore no loss where it left to make room, or was never read since its version
//! came from upstream.

use std::collections::{BTreeSet, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use helios_model::{Manifest, Role};
use helios_runtime::Clock;
use helios_storage::tiers::Keeper;
use helios_types::Digest;
use tokio::runtime::Handle;

use crate::blocking::blocking;
use crate::registry::{manifest_path, parse_manifest};
use crate::{Registry, RegistryError, Source, small_files};

/// Records of versions that were pushed to the remote store, by manifest digest.
pub(crate) const PUSHED: &str = "pushed";

/// What could be fetched again.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    weights: RwLock<Weights>,
    /// The other files of versions that came from upstream: each comes when it is read for the first time, and then stays.
    unread: RwLock<HashSet<Digest>>,
    /// Whether the versions of earlier processes are among them: looked up when room is short for the first time, so
    /// that no start waits for it.
    looked: tokio::sync::OnceCell<()>,
}

/// Weights that could be fetched again.
#[derive(Debug, Default)]
struct Weights {
    /// Each blob with every version as part of which it could.
    versions: BTreeSet<(Digest, Digest)>,
    /// Versions that are about to be collected: no blob leaves any more because of them.
    leaving: HashSet<Digest>,
}

impl Weights {
    fn versions_with(&self, blob: &Digest) -> impl Iterator<Item = &Digest> {
        const FIRST: Digest = Digest::from_bytes([0; 32]);
        let (from, wanted) = ((*blob, FIRST), *blob);
        self.versions.range(from..).take_while(move |(blob, _)| *blob == wanted).map(|(_, version)| version)
    }
}

impl Elsewhere {
    fn add_weights(&self, version: Digest, manifest: &Manifest) {
        let weights = manifest.files(Role::Weights).map(|file| (file.blob.digest, version));
        self.write().versions.extend(weights);
    }

    fn add_unread(&self, manifest: &Manifest) {
        let others = manifest.files.iter().filter(|file| file.role != Role::Weights);
        let others = others.map(|file| file.blob.digest);
        self.unread.write().unwrap_or_else(PoisonError::into_inner).extend(others);
    }

    /// Whether a blob is among the weights.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.read().versions_with(digest).next().is_some()
    }

    /// The versions as part of which a blob could be fetched again.
    pub(crate) fn versions_with(&self, digest: &Digest) -> Vec<Digest> {
        self.read().versions_with(digest).copied().collect()
    }

    /// Takes note of the versions that are about to be collected, instead of those before: no blob leaves any more because it
    /// could be fetched again as part of them.
    pub(crate) fn leaving(&self, versions: &[Digest]) {
        self.write().leaving = versions.iter().copied().collect();
    }

    /// Takes note that versions are gone, and with them where they came from.
    pub(crate) fn forget(&self, versions: &[Digest]) {
        let gone: HashSet<&Digest> = versions.iter().collect();
        self.write().versions.retain(|(_, version)| !gone.contains(version));
    }

    /// Whether a blob may leave because it could be fetched again.
    fn may_leave(&self, digest: &Digest) -> bool {
        let weights = self.read();
        weights.versions_with(digest).any(|version| !weights.leaving.contains(version))
    }

    fn read(&self) -> RwLockReadGuard<'_, Weights> {
        self.weights.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Weights> {
        self.weights.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a blob is among any of it.
    fn has_any(&self, digest: &Digest) -> bool {
        self.has(digest) || self.unread.read().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }
}

/// Asks a registry on behalf of its tiers, which it owns.
#[derive(Debug)]
pub(crate) struct StoreKeeper {
    registry: Weak<Registry>,
    runtime: Handle,
}

impl StoreKeeper {
    /// Has to be made where the registry's runtime is.
    pub(crate) fn new(registry: Weak<Registry>) -> Self {
        Self { registry, runtime: Handle::current() }
    }
}

impl Keeper for StoreKeeper {
    fn held(&self) -> HashSet<Digest> {
        let Some(registry) = self.registry.upgrade() else { return HashSet::new() };
        self.runtime.block_on(registry.held_blobs())
    }

    fn can_fetch(&self, digest: &Digest) -> bool {
        self.registry.upgrade().is_some_and(|registry| registry.elsewhere().may_leave(digest))
    }

    fn give_up_derived(&self, bytes: u64) -> u64 {
        let Some(registry) = self.registry.upgrade() else { return 0 };
        registry.derived().give_up(bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "derived blobs could not be given up");
            0
        })
    }
}

impl Registry {
    /// Whether a blob is here, or could be fetched again as far as is known.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`].
    pub async fn is_to_be_had(&self, digest: &Digest) -> Result<bool, RegistryError> {
        if self.blobs().contains(digest) {
            return Ok(true);
        }
        self.look_elsewhere_once().await;
        if self.elsewhere().has(digest) {
            return Ok(true);
        }
        // A small file is to be had where the weights beside it are.
        let version = self.manifest_with(digest).await?;
        Ok(version.is_some_and(|(_, manifest)| {
            manifest.files(Role::Weights).any(|file| self.elsewhere().has(&file.blob.digest))
        }))
    }

    /// Whether a blob that no directory has is a loss: not if it may have left to make room, if it came from upstream as a
    /// mere name so far, or if it is another registry's that shares the database.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`]; [`RegistryError::Storage`].
    pub(crate) async fn is_lost(&self, digest: &Digest) -> Result<bool, RegistryError> {
        self.look_elsewhere_once().await;
        if self.elsewhere().has_any(digest) {
            return Ok(false);
        }
        let Some(version) = self.metadata().manifest_with(digest).await? else { return Ok(false) };
        let (files, path) = (self.files().clone(), manifest_path(self.dir(), &version));
        let is_shared = !self.config().metadata.is_own();
        if is_shared && !blocking(move || small_files::exists(&files, &path)).await? {
            return Ok(false);
        }
        // No tag tells where a version came from that was only asked for by its digest.
        Ok(self.upstreams().is_empty()
            || !self.metadata().untagged(self.store_id()).await?.contains(&version))
    }

    /// The blobs of versions that are in use in this process, leased, or handed out a moment ago, and what runs pin. Just
    /// after a start, it waits until workers had time to renew their leases.
    async fn held_blobs(&self) -> HashSet<Digest> {
        self.look_elsewhere_once().await;
        self.members().rebuilt().await;
        self.shelf().expire(Clock.now());
        let mut leased = self.members().leased_manifests();
        match self.host_leases().used_by_others() {
            Ok(used) => leased.extend(used),
            Err(error) => tracing::warn!(%error, "what other processes of this host use is not known"),
        }
        let grace_since = self.grace_since();
        let (held, others) = self.loaded().held(leased, grace_since);
        let mut blobs: HashSet<Digest> = held.iter().flat_map(|manifest| manifest.blobs()).copied().collect();
        for digest in others {
            match self.manifest_here(&digest).await {
                Ok(manifest) => blobs.extend(manifest.iter().flat_map(Manifest::blobs)),
                Err(error) => tracing::warn!(%digest, %error, "a leased version cannot be looked up"),
            }
        }
        blobs.extend(self.pins().pinned());
        blobs
    }

    /// A manifest of the database, not kept in memory: who is asked what it holds must not hold it.
    async fn manifest_here(&self, digest: &Digest) -> Result<Option<Manifest>, RegistryError> {
        let bytes = self.metadata().manifest(digest).await?;
        bytes.map(|bytes| parse_manifest(digest, &bytes)).transpose()
    }

    /// Finds that out, the first time.
    pub(crate) async fn look_elsewhere_once(&self) {
        if let Err(error) = self.elsewhere().looked.get_or_try_init(|| self.look_elsewhere()).await {
            tracing::warn!(%error, "what could be fetched again is not known; nothing leaves that has no other copy");
        }
    }

    /// Finds out for every version whether it could be had again. O(tags and their histories, and versions in none that share
    /// blobs with those).
    async fn look_elsewhere(&self) -> Result<(), RegistryError> {
        let pushed = self.metadata().records(PUSHED).await?;
        let pushed: HashSet<Digest> = pushed.iter().filter_map(|(key, _)| key.parse().ok()).collect();
        let note = async |digest: Digest, came_from: &str| {
            if let Some(manifest) = self.manifest_here(&digest).await? {
                let is_pushed = !self.upstreams().is_empty() && pushed.contains(&digest);
                self.note_elsewhere(digest, &manifest, came_from, is_pushed);
            }
            Ok::<_, RegistryError>(())
        };
        for reference in self.metadata().tags().await? {
            for entry in self.metadata().history(&reference).await? {
                note(entry.digest, &entry.source).await?;
            }
        }
        let outlived = self.metadata().outlive(self.store_id()).await?;
        let untagged: BTreeSet<Digest> = outlived.into_iter().map(|(_, version)| version).collect();
        for digest in untagged {
            note(digest, "").await?;
        }
        Ok(())
    }

    /// Takes note of a version, where a name got it from, and whether it was pushed to the remote store.
    pub(crate) fn note_elsewhere(
        &self,
        version: Digest,
        manifest: &Manifest,
        came_from: &str,
        is_pushed: bool,
    ) {
        let origin = manifest.metadata.as_ref().map_or("", |facts| facts.source.as_str());
        let is_upstream = self.upstreams().iter().any(|upstream| upstream.shown() == came_from);
        if is_pushed || is_upstream || origin.parse().is_ok_and(|source: Source| source.is_elsewhere()) {
            self.elsewhere().add_weights(version, manifest);
        }
        if is_upstream {
            self.elsewhere().add_unread(manifest);
        }
    }
}
