//! Where the files of models are: the one place that asks the tiers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use helios_model::{Manifest, Role};
use helios_storage::BlobInfo;
use helios_storage::tiers::{Residency, TierKind, TierRoom};
use helios_types::{Digest, ModelRef};

use super::{Pin, WarmLevel};
use crate::blocking::blocking;
use crate::demand::{Look, Seen};
use crate::registry::parse_manifest;
use crate::{Registry, RegistryError};

/// The files of a version, each once, and which are weights. A manifest itself is not kept: who holds one keeps its files
/// from leaving.
#[derive(Debug)]
pub(crate) struct Files(Vec<(BlobInfo, bool)>);

impl Files {
    fn of(manifest: &Manifest) -> Self {
        let mut told = HashSet::new();
        let files = manifest.files.iter().map(|file| (file.blob, file.role == Role::Weights));
        Self(files.filter(|(blob, _)| told.insert(blob.digest)).collect())
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &BlobInfo> {
        self.0.iter().map(|(blob, _)| blob)
    }

    fn weights(&self) -> impl Iterator<Item = &BlobInfo> {
        self.0.iter().filter(|(_, is_weights)| *is_weights).map(|(blob, _)| blob)
    }
}

impl Registry {
    /// Looks at the models of the history and those pinned, and lets what was learned follow from it.
    pub(crate) async fn look(self: &Arc<Self>) -> Result<TierRoom, RegistryError> {
        self.load_history().await;
        let now_ms = self.demand().now_ms();
        if self.blobs().keeps_books() {
            self.look_elsewhere_once().await;
        }
        let leased = self.members().leased_manifests();
        let mut found = Vec::new();
        for model in self.demand().names(now_ms) {
            if let Some((digest, files)) = self.files_of_tag(&model).await? {
                found.push((model, digest, files));
            }
        }
        let registry = Arc::clone(self);
        let see = move |(model, digest, files): (ModelRef, Digest, Arc<Files>)| {
            let level = registry.level(&files);
            let missing_bytes = registry.missing(&files).iter().map(|blob| blob.size).sum();
            let is_leased = leased.contains(&digest);
            let may_leave = files.weights().all(|blob| registry.elsewhere().has(&blob.digest));
            Seen { model, digest, files, missing_bytes, level, is_leased, may_leave }
        };
        let seen = blocking(move || Ok(found.into_iter().map(see).collect())).await?;
        let tiers = Arc::clone(self.blobs());
        let room = blocking(move || Ok(tiers.room())).await?;
        self.demand().take_in(Look { now_ms, room, seen }, self.config().prefetch.bytes_per_hour);
        Ok(room)
    }

    /// Whether a version can be used without fetching anything, here or at a worker.
    pub(crate) async fn is_near(self: &Arc<Self>, digest: &Digest) -> Result<bool, RegistryError> {
        if self.members().leased_manifests().contains(digest) {
            return Ok(true);
        }
        let Some(files) = self.files_of(digest).await? else { return Ok(false) };
        let registry = Arc::clone(self);
        blocking(move || Ok(registry.level(&files).is_some())).await
    }

    /// The version that exactly this tag points to, and its files.
    async fn files_of_tag(&self, model: &ModelRef) -> Result<Option<(Digest, Arc<Files>)>, RegistryError> {
        let Some(current) = self.metadata().current(model).await? else { return Ok(None) };
        Ok(self.files_of(&current.digest).await?.map(|files| (current.digest, files)))
    }

    /// The files of a version, from the last look or the database.
    async fn files_of(&self, digest: &Digest) -> Result<Option<Arc<Files>>, RegistryError> {
        if let Some(files) = self.demand().files_of(digest) {
            return Ok(Some(files));
        }
        let Some(bytes) = self.metadata().manifest(digest).await? else { return Ok(None) };
        Ok(Some(Arc::new(Files::of(&parse_manifest(digest, &bytes)?))))
    }

    /// Has the tiers keep the files of what is pinned.
    pub(crate) async fn pin_blobs(self: &Arc<Self>) -> Result<(), RegistryError> {
        let mut levels: HashMap<Digest, WarmLevel> = HashMap::new();
        for (model, Pin { level, .. }) in self.demand().pins() {
            let Some((_, files)) = self.files_of_tag(&model).await? else { continue };
            for blob in files.blobs() {
                let wanted = levels.entry(blob.digest).or_insert(level);
                *wanted = level.max(*wanted);
            }
        }
        let residency = |level| match level {
            WarmLevel::Disk => Residency::Disk,
            WarmLevel::Memory | WarmLevel::Loaded => Residency::Memory,
        };
        let pins = levels.into_iter().map(|(blob, level)| (blob, residency(level)));
        self.blobs().set_pins(pins.collect());
        Ok(())
    }

    /// The files of a version that are not here.
    pub(crate) async fn missing_of(
        self: &Arc<Self>,
        digest: &Digest,
    ) -> Result<Vec<BlobInfo>, RegistryError> {
        let Some(files) = self.files_of(digest).await? else { return Ok(Vec::new()) };
        let registry = Arc::clone(self);
        blocking(move || Ok(registry.missing(&files))).await
    }

    /// Blocks; O(files).
    fn missing(&self, files: &Files) -> Vec<BlobInfo> {
        files.blobs().filter(|blob| !self.blobs().contains(&blob.digest)).copied().collect()
    }

    /// How near the files are; `None` if one is not here. Blocks; O(files).
    fn level(&self, files: &Files) -> Option<WarmLevel> {
        if !files.blobs().all(|blob| self.blobs().contains(&blob.digest)) {
            return None;
        }
        let mut weights = files.weights().peekable();
        let is_in_memory = weights.peek().is_some() && weights.all(|blob| self.is_in_memory(blob));
        Some(if is_in_memory { WarmLevel::Memory } else { WarmLevel::Disk })
    }

    fn is_in_memory(&self, blob: &BlobInfo) -> bool {
        self.blobs().is_in(&blob.digest, TierKind::Memory)
    }
}
