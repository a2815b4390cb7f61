//! The store of one folder: `blobs/`, `manifests/HEX.json`, `tags/NAME/@TAG.json`, `lock`, and the database that indexes
//! manifests and tags ([`helios_metadata`]).
//!
//! A change is durable, as a file and in the database, before it is acknowledged. What is asked often is answered from
//! memory: parsed manifests; everything else is one question to the database.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use helios_metadata::{Metadata, ModelSummary, TagEntry};
use helios_model::{FileEntry, Manifest, Role};
use helios_runtime::Instant;
use helios_storage::tiers::{Mover, TierReport};
use helios_storage::{
    Blob, BlobInfo, DerivedBlobs, DirLock, DirUsers, Disk, DurableFiles, FileBytes, RealDisk, Tiers,
};
use helios_types::{DEFAULT_TAG, Digest, ErrorCode, ModelRef};

use crate::blocking::blocking;
use crate::demand::Demand;
use crate::elsewhere::{Elsewhere, StoreKeeper};
use crate::fetch::Fetcher;
use crate::ground::{Ground, downloads_dir};
use crate::host_lease;
use crate::loaded::LoadedManifests;
use crate::pins::Pins;
use crate::profiles::Profiles;
use crate::pull::Jobs;
use crate::rebuild::{DATABASE_FILE, STORES, finish_replacing, import};
use crate::shelf::Shelf;
use crate::suggest::suggestion;
use crate::swarm::Swarm;
use crate::transfer::Turns;
use crate::upstream::{self, Upstream};
use crate::{CatalogueModel, Members, RegistryConfig, RegistryError, catalogue};

/// A content-addressed store of models, open under an exclusive lock.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
    config: RegistryConfig,
    files: DurableFiles,
    blobs: Arc<Tiers>,
    elsewhere: Elsewhere,
    /// Moves blobs between the directories, where there are several.
    mover: OnceLock<Mover>,
    derived: DerivedBlobs,
    pins: Arc<Pins>,
    shelf: Shelf,
    metadata: Arc<dyn Metadata>,
    loaded: LoadedManifests,
    /// Held while small files change, so that files and database change in the same order; true if they say the same.
    changes: Mutex<bool>,
    /// Held while garbage is collected.
    collecting: tokio::sync::Mutex<()>,
    /// Names this store where several share a database.
    store_id: String,
    members: Arc<Members>,
    /// Among the processes of this host that use the store.
    host_leases: DirUsers,
    fetcher: Fetcher,
    jobs: Jobs,
    turns: Turns,
    /// Its name on the way of questions to parents.
    id: String,
    upstreams: Vec<Arc<dyn Upstream>>,
    swarm: Swarm,
    demand: Demand,
    profiles: Profiles,
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

impl Registry {
    /// Opens the store in `dir` with the database that `config` names, creating both if need be. O(changes that a crash
    /// interrupted); a store whose database is new is read into it first, O(manifests and tags).
    ///
    /// # Errors
    /// [`RegistryError::StoreInUse`] if another process has it open; [`RegistryError::Storage`];
    /// [`RegistryError::Metadata`].
    pub async fn open(dir: &Path, config: RegistryConfig) -> Result<Arc<Self>, RegistryError> {
        let ground = Ground::open(Arc::new(RealDisk), dir.to_owned(), config.tiers.clone()).await?;
        let (files, file) = (ground.files.clone(), dir.join(DATABASE_FILE));
        blocking(move || finish_replacing(&files, &file)).await?;
        let metadata = config.metadata.open(&dir.join(DATABASE_FILE)).await?;
        Self::open_ground(ground, metadata, config).await
    }

    /// As [`open`](Self::open), on any disk and any database.
    ///
    /// # Errors
    /// As there.
    pub async fn open_on(
        disk: Arc<dyn Disk>,
        metadata: Arc<dyn Metadata>,
        dir: &Path,
        config: RegistryConfig,
    ) -> Result<Arc<Self>, RegistryError> {
        let ground = Ground::open(disk, dir.to_owned(), config.tiers.clone()).await?;
        Self::open_ground(ground, metadata, config).await
    }

    async fn open_ground(
        ground: Ground,
        metadata: Arc<dyn Metadata>,
        config: RegistryConfig,
    ) -> Result<Arc<Self>, RegistryError> {
        let is_known = metadata.record(STORES, &ground.id).await?.is_some();
        let opened = blocking(move || {
            if !is_known {
                import(&ground, &*metadata, config.metadata.is_own(), &mut |_| {})?;
            }
            let registry = Self::on(ground, metadata, config)?;
            registry.settle()?;
            Ok(Arc::new(registry))
        });
        let registry = opened.await?;
        registry.blobs.set_keeper(Arc::new(StoreKeeper::new(Arc::downgrade(&registry))));
        registry.blobs.set_predictor(registry.demand.predictor());
        registry.take_up_pins().await?;
        let mover = Mover::start(&registry.blobs)?;
        registry.mover.get_or_init(|| mover);
        Ok(registry)
    }

    fn on(
        ground: Ground,
        metadata: Arc<dyn Metadata>,
        config: RegistryConfig,
    ) -> Result<Self, RegistryError> {
        let id = format!("{:016x}", helios_runtime::random_u64());
        let upstreams = upstream::open(&config, &id)?;
        let disk = Arc::clone(ground.files.disk());
        Ok(Self {
            derived: DerivedBlobs::open_on(Arc::clone(&disk), &ground.dir, config.derived_bytes_max),
            files: ground.files,
            blobs: ground.blobs,
            elsewhere: Elsewhere::default(),
            mover: OnceLock::new(),
            pins: Arc::default(),
            shelf: Shelf::default(),
            metadata,
            loaded: LoadedManifests::default(),
            changes: Mutex::new(true),
            collecting: tokio::sync::Mutex::default(),
            store_id: ground.id,
            swarm: Swarm::new(config.fleet.clone()),
            upstreams,
            id,
            members: Arc::new(Members::new(config.members_rebuild)),
            host_leases: DirUsers::join_on(Arc::clone(&disk), &host_lease::folder(&ground.dir))?,
            fetcher: Fetcher::new(config.fetch.clone()),
            jobs: Jobs::default(),
            turns: Turns::default(),
            demand: Demand::new(&config),
            profiles: Profiles::default(),
            config,
            dir: ground.dir,
            _lock: ground.lock,
        })
    }

    /// The store's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The leases of workers.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    pub(crate) fn host_leases(&self) -> &DirUsers {
        &self.host_leases
    }

    /// The version that a name points to, here or else upstream. Here, it is one question to the database, and another
    /// for a manifest that was not used lately.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`] with the nearest known name; [`RegistryError::UpstreamSilent`];
    /// [`RegistryError::Metadata`].
    pub async fn resolve(self: &Arc<Self>, model: &ModelRef) -> Result<Resolved, RegistryError> {
        match self.resolve_here(model).await {
            Err(missing @ RegistryError::ModelNotFound { .. }) => self.resolve_upstream(model, missing).await,
            found => found,
        }
    }

    async fn resolve_here(&self, model: &ModelRef) -> Result<Resolved, RegistryError> {
        let (mut reference, mut digest) = self.pointer(model).await?;
        loop {
            if let Some(manifest) = self.load(&digest).await? {
                return Ok(Resolved { reference, digest, manifest });
            }
            // Collected in between, so the tag was moved or removed before.
            let before = digest;
            (reference, digest) = self.pointer(model).await?;
            if digest == before {
                return Err(RegistryError::UnknownDigest { kind: "manifest", digest });
            }
        }
    }

    /// The tag that a name means here (itself, or the catalogue's default tag for a name that has no tag `latest`), and
    /// what it points to.
    pub(crate) async fn pointer(&self, model: &ModelRef) -> Result<(ModelRef, Digest), RegistryError> {
        if let Some(current) = self.metadata.current(model).await? {
            return Ok((model.clone(), current.digest));
        }
        let meant = catalogue::find(model).filter(|_| model.tag() == DEFAULT_TAG);
        if let Some(meant) = meant.map(CatalogueModel::reference)
            && let Some(current) = self.metadata.current(&meant).await?
        {
            return Ok((meant, current.digest));
        }
        Err(self.not_found(model).await)
    }

    /// The manifest of that digest, from memory or the database; `None` if it is not here, or about to be collected.
    pub(crate) async fn load(&self, digest: &Digest) -> Result<Option<Arc<Manifest>>, RegistryError> {
        loop {
            if let Some(manifest) = self.loaded.get(digest) {
                return Ok(Some(manifest));
            }
            let since = self.loaded.collections();
            let Some(bytes) = self.metadata.manifest(digest).await? else { return Ok(None) };
            let manifest = parse_manifest(digest, &bytes)?;
            if let Some(manifest) = self.loaded.keep(*digest, manifest, since) {
                return Ok(Some(manifest));
            }
            if self.loaded.collections() == since {
                return Ok(None);
            }
        }
    }

    /// As [`resolve`](Self::resolve), for somebody in another process: for a while the version is then safe from
    /// garbage collection, so that a lease on it can follow.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub async fn hand_out(self: &Arc<Self>, model: &ModelRef) -> Result<Resolved, RegistryError> {
        let resolved = self.resolve(model).await?;
        self.hand_out_version(resolved.digest, &resolved.manifest);
        Ok(resolved)
    }

    /// As [`hand_out`](Self::hand_out), of a version that is known.
    pub fn hand_out_version(&self, digest: Digest, manifest: &Manifest) {
        self.loaded.hand_out(digest, manifest, self.config.wall_clock.now(), self.grace_since());
    }

    /// Notes that somebody in another process reads a blob: the versions that have it, or if none is known to be read the
    /// newest, count as [handed out](Self::hand_out) now.
    pub(crate) async fn read_elsewhere(&self, blob: &Digest) {
        if self.loaded.read_elsewhere(blob, self.config.wall_clock.now()) {
            return;
        }
        match self.manifest_with(blob).await {
            Ok(Some((digest, manifest))) => self.hand_out_version(digest, &manifest),
            Ok(None) => {}
            Err(error) => tracing::debug!(%blob, %error, "no version is kept for whoever reads a blob"),
        }
    }

    /// What was handed out before is not safe any more.
    pub(crate) fn grace_since(&self) -> Option<Instant> {
        self.config.wall_clock.now().checked_sub(self.config.gc_grace)
    }

    /// The models, ordered by name and tag. O(tags).
    ///
    /// # Errors
    /// [`RegistryError::Metadata`].
    pub async fn list(&self) -> Result<Vec<ModelSummary>, RegistryError> {
        Ok(self.metadata.models().await?)
    }

    /// What a tag pointed to, oldest first.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`]; [`RegistryError::Metadata`].
    pub async fn history(&self, model: &ModelRef) -> Result<Vec<TagEntry>, RegistryError> {
        let (reference, _) = self.pointer(model).await?;
        Ok(self.metadata.history(&reference).await?)
    }

    /// The manifest of that digest.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDigest`]; [`RegistryError::Metadata`].
    pub async fn manifest(self: &Arc<Self>, digest: &Digest) -> Result<Arc<Manifest>, RegistryError> {
        match self.load(digest).await? {
            Some(manifest) => Ok(manifest),
            None => {
                let missing = RegistryError::UnknownDigest { kind: "manifest", digest: *digest };
                self.manifest_upstream(digest, missing).await
            }
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

    /// Maps a file of a model, fetched from upstream if it is not here. Verified in full on the first read in this process.
    ///
    /// # Errors
    /// [`RegistryError::Storage`].
    pub async fn blob(self: &Arc<Self>, file: &FileEntry) -> Result<Blob, RegistryError> {
        self.blob_by_info(file.blob).await
    }

    /// Maps a file of a model, of any size and without a copy, wherever its bytes lie. Verified in full on the first
    /// read.
    ///
    /// # Errors
    /// [`RegistryError::Storage`].
    pub async fn file(self: &Arc<Self>, file: &FileEntry) -> Result<FileBytes, RegistryError> {
        self.ensure_blob(&file.blob).await?;
        let (blobs, info) = (Arc::clone(&self.blobs), file.blob);
        blocking(move || Ok(blobs.open_file(&info)?)).await
    }

    /// What is made from blobs and can be made again.
    pub fn derived(&self) -> &DerivedBlobs {
        &self.derived
    }

    pub(crate) async fn blob_by_info(self: &Arc<Self>, info: BlobInfo) -> Result<Blob, RegistryError> {
        self.ensure_blob(&info).await?;
        let blobs = Arc::clone(&self.blobs);
        blocking(move || Ok(blobs.get(&info)?)).await
    }

    /// The bytes of the file with a role that every model has.
    ///
    /// # Errors
    /// [`RegistryError::Model`]; [`RegistryError::Storage`].
    pub async fn derived_bytes(
        self: &Arc<Self>,
        manifest: &Manifest,
        role: Role,
    ) -> Result<Blob, RegistryError> {
        self.blob(manifest.required(role)?).await
    }

    /// The error for a name that is not here, with the nearest one that is. O(tags).
    pub(crate) async fn not_found(&self, model: &ModelRef) -> RegistryError {
        match self.metadata.tags().await {
            Ok(tags) => not_found(tags, model),
            Err(error) => error.into(),
        }
    }

    pub(crate) fn metadata(&self) -> &Arc<dyn Metadata> {
        &self.metadata
    }

    pub(crate) fn loaded(&self) -> &LoadedManifests {
        &self.loaded
    }

    pub(crate) fn changes(&self) -> &Mutex<bool> {
        &self.changes
    }

    pub(crate) fn collecting(&self) -> &tokio::sync::Mutex<()> {
        &self.collecting
    }

    pub(crate) fn store_id(&self) -> &str {
        &self.store_id
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.config
    }

    pub(crate) fn files(&self) -> &DurableFiles {
        &self.files
    }

    /// The directories with the blobs.
    pub fn blobs(&self) -> &Arc<Tiers> {
        &self.blobs
    }

    /// The directories with what they hold and how they are. O(blobs).
    ///
    /// # Errors
    /// [`RegistryError::Internal`] if there is no thread for it.
    pub async fn tiers(&self) -> Result<Vec<TierReport>, RegistryError> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || Ok(blobs.report())).await
    }

    pub(crate) fn elsewhere(&self) -> &Elsewhere {
        &self.elsewhere
    }

    pub(crate) fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// What clients sent and no version names yet.
    pub(crate) fn shelf(&self) -> &Shelf {
        &self.shelf
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

    pub(crate) fn demand(&self) -> &Demand {
        &self.demand
    }

    pub(crate) fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Where wheels lie while they are unpacked.
    pub(crate) fn downloads_dir(&self) -> PathBuf {
        downloads_dir(&self.dir)
    }
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
    Ok(Manifest::parse(&subject, bytes)?)
}

/// The digest of some bytes. O(bytes).
pub fn digest_of(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

pub(crate) fn manifest_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("manifests").join(format!("{}.json", digest.hex()))
}

fn not_found(tags: Vec<ModelRef>, model: &ModelRef) -> RegistryError {
    let pullable = crate::catalogue::find(model);
    let hint = match pullable {
        Some(entry) => format!("`helios pull {}` fetches it", entry.reference()),
        None => "`helios list` shows what is here, `helios pull` fetches more".to_owned(),
    };
    let catalogue = crate::catalogue::CATALOGUE.iter().map(crate::CatalogueModel::reference);
    let suggestion =
        if pullable.is_some() { None } else { suggestion(model, tags.into_iter().chain(catalogue)) };
    RegistryError::ModelNotFound { model: model.to_string(), suggestion, hint }
}

/// The error for a request that makes no sense.
pub(crate) fn invalid_request(problem: impl Into<String>) -> RegistryError {
    RegistryError::InvalidRequest { problem: problem.into(), code: ErrorCode::InvalidRequest }
}
