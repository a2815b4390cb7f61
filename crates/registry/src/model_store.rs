//! Models from wherever the registry is, for those who only read: workers and proxies.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use helios_model::{FileEntry, Manifest, MemoryProfile, Role};
use helios_storage::{Blob, BlobStore, FileBytes, Tiers};
use helios_types::{Digest, ModelRef};

use crate::blocking::blocking;
use crate::swarm::{CacheRoom, SharedCache};
use crate::{
    FleetConfig, HostLease, ModelSummary, ModelUse, Registry, RegistryClient, RegistryError, Resolved, Secret,
};

/// A registry in this process or elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub enum ModelStore {
    /// In this process.
    Local(Arc<Registry>),
    /// Elsewhere; made by [`ModelStore::remote`].
    Remote(Arc<RemoteStore>),
}

/// A registry elsewhere, and where its blobs are on this host.
#[derive(Debug)]
pub struct RemoteStore {
    client: RegistryClient,
    cache: Arc<Tiers>,
    /// The cache as a node of the fleet, if it is one.
    node: Option<Arc<SharedCache>>,
    /// The registry's own folders, as far as they are on this host, fastest first.
    shared: Mutex<Vec<SharedStore>>,
}

#[derive(Clone, Debug)]
struct SharedStore {
    dir: PathBuf,
    blobs: Arc<BlobStore>,
}

impl ModelStore {
    /// A registry elsewhere. Its blobs are mapped in place if its store is on this host, else fetched into `cache_dir`.
    /// Blocks.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] if the cache cannot be opened.
    pub fn remote(client: RegistryClient, cache_dir: &Path) -> Result<Self, RegistryError> {
        let cache = Tiers::open(cache_dir, Vec::new())?;
        Ok(Self::Remote(Arc::new(RemoteStore { client, cache, node: None, shared: Mutex::default() })))
    }

    /// As [`remote`](Self::remote), as a node of the fleet below that registry: blobs come from whoever has them, and
    /// others fetch from here what the [routes](crate::http::node_router) of the node give, which `advertise` leads to.
    /// The cache keeps to `cache_budget` bytes of blobs, by default most of what is free: what was used least of late, and
    /// is not in use on this host, makes room. Blocks.
    ///
    /// # Errors
    /// As there.
    pub fn node(
        client: RegistryClient,
        cache_dir: &Path,
        cache_budget: Option<u64>,
        advertise: String,
        token: Option<Secret>,
    ) -> Result<(Self, Arc<SharedCache>), RegistryError> {
        let (cache, room) = CacheRoom::open(cache_dir, cache_budget)?;
        let fleet = FleetConfig {
            parent: Some(client.base().to_string()),
            advertise: Some(advertise),
            token,
            ..FleetConfig::default()
        };
        let node = Arc::new(SharedCache::new(client.clone(), (Arc::clone(&cache), room), fleet));
        let shared = Mutex::default();
        let store = RemoteStore { client, cache, node: Some(Arc::clone(&node)), shared };
        Ok((Self::Remote(Arc::new(store)), node))
    }

    /// The version that a name points to.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`], or what the registry elsewhere says.
    pub async fn resolve(&self, model: &ModelRef) -> Result<Resolved, RegistryError> {
        match self {
            Self::Local(registry) => registry.resolve(model).await,
            Self::Remote(store) => store.resolve(model).await,
        }
    }

    /// The models, ordered by name and tag.
    ///
    /// # Errors
    /// What the registry elsewhere says.
    pub async fn list(&self) -> Result<Vec<ModelSummary>, RegistryError> {
        match self {
            Self::Local(registry) => registry.list().await,
            Self::Remote(store) => store.client.list().await,
        }
    }

    /// The manifest of that digest.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDigest`], or what the registry elsewhere says.
    pub async fn manifest(&self, digest: &Digest) -> Result<Arc<Manifest>, RegistryError> {
        match self {
            Self::Local(registry) => registry.manifest(digest).await,
            Self::Remote(store) => store.client.manifest(digest).await,
        }
    }

    /// The memory profile of a version, with its details.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDigest`], or what the registry elsewhere says.
    pub async fn profile(&self, digest: &Digest) -> Result<MemoryProfile, RegistryError> {
        match self {
            Self::Local(registry) => registry.profile(&*registry.manifest(digest).await?).await,
            Self::Remote(store) => store.client.profile(digest).await,
        }
    }

    /// Reports how often models were asked for.
    ///
    /// # Errors
    /// As [`Registry::note_uses`]; what the registry elsewhere says.
    pub async fn note_uses(&self, uses: Vec<ModelUse>) -> Result<(), RegistryError> {
        match self {
            Self::Local(registry) => registry.note_uses(&uses).await,
            Self::Remote(store) => store.client.note_uses(uses).await,
        }
    }

    /// Whether a file of a model is on this host, as far as is known without reading it.
    ///
    /// # Errors
    /// [`RegistryError::Internal`] if there is no thread to look.
    pub async fn is_here(&self, file: &FileEntry) -> Result<bool, RegistryError> {
        let digest = file.blob.digest;
        let (blobs, shared) = match self {
            Self::Local(registry) => (Arc::clone(registry.blobs()), Vec::new()),
            Self::Remote(store) => (Arc::clone(&store.cache), store.shared()),
        };
        let is_shared = move || shared.iter().any(|shared| shared.blobs.contains(&digest));
        blocking(move || Ok(blobs.contains(&digest) || is_shared())).await
    }

    /// Deletes what interrupted downloads left in the cache of a node; for when its model is here. Other stores have none,
    /// or are collected.
    ///
    /// # Errors
    /// [`RegistryError::Storage`].
    pub async fn remove_leftovers(&self) -> Result<(), RegistryError> {
        match self {
            Self::Remote(store) => match &store.node {
                Some(node) => node.remove_leftovers().await.map(drop),
                None => Ok(()),
            },
            Self::Local(_) => Ok(()),
        }
    }

    /// Says in the registry's folder that this process uses a version, if the folder is on this host and may be written to:
    /// for whoever maps its files in place. `None` where they are not mapped in place, or nobody has to be told.
    pub async fn lease_on_host(&self, manifest: Digest) -> Option<HostLease> {
        let Self::Remote(store) = self else { return None };
        let shared = store.shared();
        let folder = shared.into_iter().find(|shared| shared.dir.join("manifests").is_dir())?.dir;
        match blocking(move || Ok(HostLease::begin(&folder, manifest)?)).await {
            Ok(lease) => Some(lease),
            Err(error) => {
                tracing::info!(%error, "the registry's folder does not say what is used here; its server is told");
                None
            }
        }
    }

    /// Maps a file of a model, verified; fetched first if it is not on this host.
    ///
    /// # Errors
    /// [`RegistryError::Storage`], or what the registry elsewhere says.
    pub async fn blob(&self, file: &FileEntry) -> Result<Blob, RegistryError> {
        match self {
            Self::Local(registry) => registry.blob(file).await,
            Self::Remote(store) => store.blob(file).await,
        }
    }

    /// As [`blob`](Self::blob), for files of any size: never copied, wherever the bytes lie.
    ///
    /// # Errors
    /// As there.
    pub async fn file(&self, file: &FileEntry) -> Result<FileBytes, RegistryError> {
        match self {
            Self::Local(registry) => registry.file(file).await,
            Self::Remote(store) => store.file(file).await,
        }
    }

    /// The bytes of the file with a role that every model has.
    ///
    /// # Errors
    /// [`RegistryError::Model`]; as [`blob`](Self::blob).
    pub async fn derived_bytes(&self, manifest: &Manifest, role: Role) -> Result<Blob, RegistryError> {
        self.blob(manifest.required(role)?).await
    }
}

impl RemoteStore {
    async fn resolve(&self, model: &ModelRef) -> Result<Resolved, RegistryError> {
        let answer = self.client.model(model).await?;
        self.look_for(answer.stores).await;
        Ok(answer.resolved)
    }

    /// Opens those of the registry's folders that are on this host.
    async fn look_for(&self, dirs: Vec<PathBuf>) {
        let known = self.shared();
        if known.iter().map(|shared| &shared.dir).eq(&dirs) {
            return;
        }
        let opened = blocking(move || {
            let there = dirs.into_iter().filter(|dir| dir.join("blobs/sha256").is_dir());
            Ok(there.filter_map(|dir| SharedStore::open(dir, &known)).collect())
        });
        let shared = opened.await.unwrap_or_default();
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = shared;
    }

    fn shared(&self) -> Vec<SharedStore> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn blob(&self, file: &FileEntry) -> Result<Blob, RegistryError> {
        self.file(file).await.map(|file| file.to_blob())
    }

    async fn file(&self, file: &FileEntry) -> Result<FileBytes, RegistryError> {
        let info = file.blob;
        for SharedStore { blobs, .. } in self.shared() {
            if !blobs.contains(&info.digest) {
                continue;
            }
            match blocking(move || Ok(blobs.open_file(&info)?)).await {
                Ok(file) => return Ok(file),
                Err(error) => tracing::warn!(%error, "a blob cannot be mapped in place"),
            }
        }
        match &self.node {
            Some(node) => node.blob(info).await.map(FileBytes::from),
            None => self.client.blob(info, &self.cache).await.map(FileBytes::from),
        }
    }
}

impl SharedStore {
    /// The folder, opened unless it is among `known`.
    fn open(dir: PathBuf, known: &[Self]) -> Option<Self> {
        if let Some(known) = known.iter().find(|shared| shared.dir == dir) {
            return Some(known.clone());
        }
        match BlobStore::open(&dir) {
            Ok(blobs) => Some(Self { dir, blobs: Arc::new(blobs) }),
            Err(error) => {
                tracing::info!(%error, "a folder of the registry's store is here but cannot be read; blobs are copied");
                None
            }
        }
    }
}
