//! The store of one folder: `blobs/`, `manifests/HEX.json`, `tags/NAME/@TAG.json` and `lock`.
//!
//! Files are the truth; the index in memory is read from them when the store is opened. A change is durable before it
//! is visible.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use helios_runtime::Clock;
use helios_storage::{Blob, BlobInfo, BlobStore, DirLock, Disk, DurableFiles, RealDisk, StorageError};
use helios_types::{Digest, ErrorCode, ModelRef};
use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::fetch::Fetcher;
use crate::index::Index;
use crate::pins::{Intake, Pins};
use crate::pull::Jobs;
use crate::suggest::suggestion;
use crate::swarm::Swarm;
use crate::tags::{self, TagEntry};
use crate::transfer::Turns;
use crate::upstream::{self, Upstream};
use crate::{FileEntry, Manifest, Members, ModelFacts, RegistryConfig, RegistryError, Role, files, names};

/// A content-addressed store of models, open under an exclusive lock.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
    config: RegistryConfig,
    files: DurableFiles,
    blobs: Arc<BlobStore>,
    pins: Arc<Pins>,
    index: RwLock<Index>,
    /// Held while small files change, so that files and index change in the same order.
    changes: Mutex<()>,
    members: Arc<Members>,
    fetcher: Fetcher,
    jobs: Jobs,
    turns: Turns,
    /// Its name on the way of questions to parents.
    id: String,
    upstreams: Vec<Arc<dyn Upstream>>,
    swarm: Swarm,
    _lock: DirLock,
}

/// A name, and the version that it points to.
///
/// While one is alive in the process of the store, garbage collection leaves its files alone.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The name, with the tag that was meant.
    pub reference: ModelRef,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Arc<Manifest>,
}

/// A model as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// Name and tag.
    pub model: ModelRef,
    /// The version that the tag points to.
    pub digest: Digest,
    /// Bytes of all files.
    pub size: u64,
    /// When the tag was last moved, in milliseconds since 1970.
    pub changed_at: u64,
    /// What people ask about the model; absent where the files are none.
    #[serde(default)]
    pub metadata: Option<ModelFacts>,
}

impl ModelSummary {
    pub(crate) fn new(model: ModelRef, current: &TagEntry, manifest: &Manifest) -> Self {
        Self {
            model,
            digest: current.digest,
            size: manifest.size(),
            changed_at: current.at,
            metadata: manifest.metadata.clone(),
        }
    }
}

impl Registry {
    /// Opens the store in `dir`, creating it if need be, and reads its index. O(manifests and tags).
    ///
    /// # Errors
    /// [`RegistryError::StoreInUse`] if another process has it open; [`RegistryError::Storage`].
    pub async fn open(dir: &Path, config: RegistryConfig) -> Result<Arc<Self>, RegistryError> {
        Self::open_on(Arc::new(RealDisk), dir, config).await
    }

    /// As [`open`](Self::open), on any disk.
    ///
    /// # Errors
    /// As there.
    pub async fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: RegistryConfig,
    ) -> Result<Arc<Self>, RegistryError> {
        let dir = dir.to_owned();
        blocking(move || Self::open_blocking(disk, dir, config)).await
    }

    fn open_blocking(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        config: RegistryConfig,
    ) -> Result<Arc<Self>, RegistryError> {
        let lock = DirLock::acquire_on(&*disk, &dir).map_err(|error| in_use(&dir, error))?;
        let files = DurableFiles::new(Arc::clone(&disk));
        // Nobody else can be using what an earlier process left: the lock is held.
        files.remove_dir(&downloads_dir(&dir))?;
        let index = load_index(&files, &dir)?;
        let id = format!("{:016x}", helios_runtime::random_u64());
        let upstreams = upstream::open(&config, &id)?;
        Ok(Arc::new(Self {
            files,
            blobs: Arc::new(BlobStore::open_on(disk, &dir)?),
            pins: Arc::default(),
            index: RwLock::new(index),
            changes: Mutex::default(),
            members: Arc::new(Members::new(config.members_rebuild)),
            fetcher: Fetcher::new(config.fetch.clone()),
            jobs: Jobs::default(),
            turns: Turns::default(),
            id,
            upstreams,
            swarm: Swarm::new(config.fleet.clone()),
            config,
            dir,
            _lock: lock,
        }))
    }

    /// The store's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The leases of workers.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// The version that a name points to, here or else upstream.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`] with the nearest known name; [`RegistryError::UpstreamSilent`].
    pub async fn resolve(self: &Arc<Self>, model: &ModelRef) -> Result<Resolved, RegistryError> {
        match self.resolve_here(model).await {
            Err(missing @ RegistryError::ModelNotFound { .. }) => self.resolve_upstream(model, missing).await,
            found => found,
        }
    }

    async fn resolve_here(&self, model: &ModelRef) -> Result<Resolved, RegistryError> {
        let index = self.index();
        let reference = index.canonical(model).ok_or_else(|| not_found(&index, model))?;
        let current = index.history(&reference).and_then(<[TagEntry]>::last);
        let digest = current.map(|entry| entry.digest).ok_or_else(|| not_found(&index, model))?;
        let manifest =
            index.manifest(&digest).ok_or(RegistryError::UnknownDigest { kind: "manifest", digest })?;
        Ok(Resolved { reference, digest, manifest })
    }

    /// As [`resolve`](Self::resolve), for somebody in another process: for a while the version is then safe from
    /// garbage collection, so that a lease on it can follow.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub async fn hand_out(self: &Arc<Self>, model: &ModelRef) -> Result<Resolved, RegistryError> {
        let resolved = self.resolve(model).await?;
        self.index_mut().hand_out(&resolved.digest, Clock.now());
        Ok(resolved)
    }

    /// The models, ordered by name and tag.
    ///
    /// # Errors
    /// [`RegistryError::Storage`].
    pub async fn list(&self) -> Result<Vec<ModelSummary>, RegistryError> {
        let index = self.index();
        let summary = |(reference, history): (&ModelRef, &[TagEntry])| {
            let current = history.last()?;
            let manifest = index.manifest(&current.digest)?;
            Some(ModelSummary {
                model: reference.clone(),
                digest: current.digest,
                size: manifest.size(),
                changed_at: current.at,
                metadata: manifest.metadata.clone(),
            })
        };
        Ok(index.tags().filter_map(summary).collect())
    }

    /// What a tag pointed to, oldest first.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`].
    pub async fn history(&self, model: &ModelRef) -> Result<Vec<TagEntry>, RegistryError> {
        let index = self.index();
        let reference = index.canonical(model).ok_or_else(|| not_found(&index, model))?;
        Ok(index.history(&reference).unwrap_or_default().to_vec())
    }

    /// The manifest of that digest.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDigest`].
    pub async fn manifest(self: &Arc<Self>, digest: &Digest) -> Result<Arc<Manifest>, RegistryError> {
        let known = self.index().manifest(digest);
        let missing = RegistryError::UnknownDigest { kind: "manifest", digest: *digest };
        match known {
            Some(manifest) => Ok(manifest),
            None => self.manifest_upstream(digest, missing).await,
        }
    }

    /// Gives the version of `from` another name, too.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`]; [`RegistryError::Storage`].
    pub async fn tag(self: &Arc<Self>, from: &ModelRef, to: &ModelRef) -> Result<Resolved, RegistryError> {
        let resolved = self.resolve(from).await?;
        let source = resolved.reference.to_string();
        self.point(to.clone(), resolved.digest, resolved.manifest, source).await
    }

    /// Removes a tag with its history. What it pointed to stays until [`gc`](Self::gc).
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`]; [`RegistryError::Storage`].
    pub async fn remove(self: &Arc<Self>, model: &ModelRef) -> Result<(), RegistryError> {
        let (registry, model) = (Arc::clone(self), model.clone());
        blocking(move || {
            let _changes = registry.changes();
            let reference = {
                let index = registry.index();
                index.canonical(&model).ok_or_else(|| not_found(&index, &model))?
            };
            registry.files.remove(&tags::path(&registry.tags_dir(), &reference))?;
            registry.index_mut().remove_tag(&reference);
            Ok(())
        })
        .await
    }

    /// Maps a file of a model, fetched from upstream if it is not here. Verified in full on the first read in this process.
    ///
    /// # Errors
    /// [`RegistryError::Storage`].
    pub async fn blob(self: &Arc<Self>, file: &FileEntry) -> Result<Blob, RegistryError> {
        self.blob_by_info(file.blob).await
    }

    pub(crate) async fn blob_by_info(self: &Arc<Self>, info: BlobInfo) -> Result<Blob, RegistryError> {
        self.ensure_blob(&info).await?;
        let blobs = Arc::clone(&self.blobs);
        blocking(move || Ok(blobs.get(&info)?)).await
    }

    /// The bytes of the file with a role that every model has.
    ///
    /// # Errors
    /// [`RegistryError::MissingRole`]; [`RegistryError::Storage`].
    pub async fn derived_bytes(
        self: &Arc<Self>,
        manifest: &Manifest,
        role: Role,
    ) -> Result<Blob, RegistryError> {
        self.blob(manifest.required(role)?).await
    }

    /// What the manifests say of a blob.
    pub(crate) async fn blob_info(&self, digest: &Digest) -> Result<BlobInfo, RegistryError> {
        self.index().blob(digest).ok_or(RegistryError::UnknownDigest { kind: "blob", digest: *digest })
    }

    /// The error for a name that is not here.
    pub(crate) async fn not_found(&self, model: &ModelRef) -> RegistryError {
        not_found(&self.index(), model)
    }

    /// Points a tag at a manifest that is in the index; the caller's reference keeps it there.
    pub(crate) async fn point(
        self: &Arc<Self>,
        reference: ModelRef,
        digest: Digest,
        manifest: Arc<Manifest>,
        source: String,
    ) -> Result<Resolved, RegistryError> {
        names::check_new(&reference)?;
        let registry = Arc::clone(self);
        blocking(move || {
            let _changes = registry.changes();
            let history = registry.index().history(&reference).unwrap_or_default().to_vec();
            let entry = TagEntry { digest, at: Clock.unix_ms(), source };
            let history = tags::append(&registry.files, &registry.tags_dir(), &reference, &history, entry)?;
            registry.index_mut().set_tag(reference.clone(), history);
            Ok(Resolved { reference, digest, manifest })
        })
        .await
    }

    /// Makes a manifest durable and known; its blobs are pinned by the caller.
    pub(crate) async fn add_manifest(
        self: &Arc<Self>,
        manifest: Manifest,
    ) -> Result<(Digest, Arc<Manifest>), RegistryError> {
        let registry = Arc::clone(self);
        blocking(move || {
            let bytes = manifest.to_bytes();
            let digest = digest_of(&bytes);
            let _changes = registry.changes();
            if let Some(known) = registry.index().manifest(&digest) {
                return Ok((digest, known));
            }
            registry.files.write_atomic(&manifest_path(&registry.dir, &digest), &bytes)?;
            Ok((digest, registry.index_mut().insert_manifest(digest, manifest)))
        })
        .await
    }

    /// The newest manifest that has this blob among its files.
    pub(crate) async fn manifest_with(
        &self,
        blob: &Digest,
    ) -> Result<Option<(Digest, Arc<Manifest>)>, RegistryError> {
        Ok(self.index().manifest_with(blob))
    }

    /// An intake for one pull.
    pub(crate) fn intake(&self) -> Arc<Intake> {
        Arc::new(Intake::new(Arc::clone(&self.blobs), Arc::clone(&self.pins)))
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.config
    }

    pub(crate) fn files(&self) -> &DurableFiles {
        &self.files
    }

    pub(crate) fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    pub(crate) fn blobs_shared(&self) -> Arc<BlobStore> {
        Arc::clone(&self.blobs)
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    pub(crate) fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Its name on the way of questions to parents.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn upstreams(&self) -> &[Arc<dyn Upstream>] {
        &self.upstreams
    }

    pub(crate) fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Where wheels lie while they are unpacked.
    pub(crate) fn downloads_dir(&self) -> PathBuf {
        downloads_dir(&self.dir)
    }

    fn tags_dir(&self) -> PathBuf {
        self.dir.join("tags")
    }
}

/// Reads manifests and tags, creating their folders. A manifest whose bytes are not its name's is logged and left out.
fn load_index(files: &DurableFiles, dir: &Path) -> Result<Index, RegistryError> {
    let mut index = Index::default();
    let manifests = dir.join("manifests");
    let tags = dir.join("tags");
    for folder in [&manifests, &tags] {
        files.create_dir(folder)?;
    }
    files.remove_stale_temporaries(&manifests)?;
    for path in files.list(&manifests, false)? {
        match load_manifest(files, &path) {
            Ok(Some((digest, manifest))) => drop(index.insert_manifest(digest, manifest)),
            Ok(None) => {}
            Err(error) => tracing::error!(path = %path.display(), %error, "a manifest is ignored"),
        }
    }
    for (reference, history) in tags::load_all(files, &tags)? {
        index.set_tag(reference, history);
    }
    Ok(index)
}

/// The manifest in a file; `None` if the file's name is not a manifest's.
fn load_manifest(files: &DurableFiles, path: &Path) -> Result<Option<(Digest, Manifest)>, RegistryError> {
    let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
    let Some(digest) = stem.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()) else {
        return Ok(None);
    };
    let bytes = files::read(files, path)?;
    parse_manifest(&digest, &bytes).map(|manifest| Some((digest, manifest)))
}

/// The manifest of that digest, from bytes that must have it.
pub(crate) fn parse_manifest(digest: &Digest, bytes: &[u8]) -> Result<Manifest, RegistryError> {
    let subject = format!("manifest {digest}");
    let actual = digest_of(bytes);
    if actual != *digest {
        return Err(RegistryError::InvalidManifest {
            subject,
            problem: format!("its bytes have digest {actual}"),
        });
    }
    Manifest::parse(&subject, bytes)
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

pub(crate) fn manifest_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("manifests").join(format!("{}.json", digest.hex()))
}

fn downloads_dir(dir: &Path) -> PathBuf {
    dir.join("downloads")
}

fn in_use(dir: &Path, error: StorageError) -> RegistryError {
    match error {
        StorageError::Locked { holder_pid, .. } => {
            RegistryError::StoreInUse { store: dir.display().to_string(), holder_pid }
        }
        error => error.into(),
    }
}

fn not_found(index: &Index, model: &ModelRef) -> RegistryError {
    let pullable = crate::catalogue::find(model);
    let hint = match pullable {
        Some(entry) => format!("`helios pull {}` fetches it", entry.reference()),
        None => "`helios list` shows what is here, `helios pull` fetches more".to_owned(),
    };
    let local = index.tags().map(|(reference, _)| reference.clone());
    let catalogue = crate::catalogue::CATALOGUE.iter().map(crate::CatalogueModel::reference);
    let suggestion = if pullable.is_some() { None } else { suggestion(model, local.chain(catalogue)) };
    RegistryError::ModelNotFound { model: model.to_string(), suggestion, hint }
}

/// The error for a request that makes no sense.
pub(crate) fn invalid_request(problem: impl Into<String>) -> RegistryError {
    RegistryError::InvalidRequest { problem: problem.into(), code: ErrorCode::InvalidRequest }
}
