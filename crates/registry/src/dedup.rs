//! Tensor-level deduplication: weight files that share tensors with older ones become recipes (`helios_storage`).
//!
//! The first copy of a tensor stays in a whole file; a file that a recipe refers to never becomes one itself. What each
//! file's tensors hash to is kept as a derived blob, so that a file is hashed once.

use std::collections::HashSet;
use std::sync::Arc;

use helios_model::{Manifest, Role};
use helios_storage::{
    BlobInfo, DerivedBlobs, DerivedKey, RecipePlan, StorageError, TensorHashes, TensorIndex, Tiers,
};
use helios_types::Digest;
use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::{Registry, RegistryError};

/// Weight files compared with each other in one run; the newest beyond it stay as they are.
const FILES_MAX: usize = 4096;

/// What a deduplication did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupReport {
    /// Weight files looked at.
    pub files: usize,
    /// Files that became recipes.
    pub recipes_made: usize,
    /// Files that were recipes already.
    pub recipes_kept: usize,
    /// Bytes of disk that the new recipes save.
    pub bytes_saved: u64,
}

impl Registry {
    /// Looks for weight files of the store that share enough tensors with older ones, and keeps them as recipes. Every
    /// file is read once to hash its tensors, and once more if it becomes a recipe. What was done before an error stays.
    ///
    /// # Errors
    /// [`RegistryError::Storage`].
    pub async fn deduplicate(self: &Arc<Self>) -> Result<DedupReport, RegistryError> {
        let mut models = self.list().await?;
        models.sort_by_key(|model| model.changed_at);
        let mut manifests = Vec::new();
        for model in models {
            manifests.push(self.manifest(&model.digest).await?);
        }
        self.deduplicate_among(manifests, None).await
    }

    /// Compares the weight files of a new version with those that are here.
    pub(crate) async fn deduplicate_new(
        self: &Arc<Self>,
        new: &Arc<Manifest>,
    ) -> Result<DedupReport, RegistryError> {
        let mut manifests = Vec::new();
        for model in self.list().await? {
            manifests.push(self.manifest(&model.digest).await?);
        }
        manifests.push(Arc::clone(new));
        let only = new.files(Role::Weights).map(|file| file.blob.digest).collect();
        self.deduplicate_among(manifests, Some(only)).await
    }

    async fn deduplicate_among(
        self: &Arc<Self>,
        manifests: Vec<Arc<Manifest>>,
        only: Option<HashSet<Digest>>,
    ) -> Result<DedupReport, RegistryError> {
        // No collection meanwhile: what only a new recipe has is a blob that nothing names until the recipe is there.
        let _alone = self.collecting().lock().await;
        let registry = Arc::clone(self);
        blocking(move || {
            let intake = registry.intake();
            let mut seen = HashSet::new();
            let mut files = Vec::new();
            for file in manifests.iter().flat_map(|manifest| manifest.files(Role::Weights)) {
                // Pinned: nothing that a recipe is made of is collected meanwhile.
                if seen.insert(file.blob.digest) && files.len() < FILES_MAX && intake.adopt(file.blob.digest)
                {
                    files.push(file.blob);
                }
            }
            let run = Run { blobs: registry.blobs(), derived: registry.derived() };
            run.deduplicate(&files, only.as_ref(), &registry.config().dedup)
        })
        .await
    }
}

struct Run<'a> {
    blobs: &'a Arc<Tiers>,
    derived: &'a DerivedBlobs,
}

impl Run<'_> {
    /// Makes recipes of those among `files`, oldest first, that are worth it.
    fn deduplicate(
        &self,
        files: &[BlobInfo],
        only: Option<&HashSet<Digest>>,
        limits: &helios_storage::DedupLimits,
    ) -> Result<DedupReport, RegistryError> {
        let mut report = DedupReport { files: files.len(), ..DedupReport::default() };
        let mut referenced = self.referenced()?;
        let mut index = TensorIndex::default();
        // Recipes last: of equal tensors, the copy in a whole file counts.
        let (whole, others): (Vec<&BlobInfo>, Vec<&BlobInfo>) =
            files.iter().partition(|info| self.blobs.has_whole(&info.digest));
        for info in others {
            // Without a recipe, it is in another directory, where recipes cannot refer to it.
            let Some(recipe) = self.blobs.recipe(&info.digest)? else { continue };
            report.recipes_kept += 1;
            if let Some(hashes) = self.hashes(info)? {
                index.add_own(&recipe, &hashes);
            }
        }
        for info in whole {
            let Some(hashes) = self.hashes(info)? else { continue };
            let plan = RecipePlan::new(info.size, &hashes, &index);
            let wanted = only.is_none_or(|only| only.contains(&info.digest));
            if !wanted || referenced.contains(&info.digest) || !plan.is_worth(limits) {
                index.add(info.digest, &hashes);
                continue;
            }
            let recipe = self.blobs.replace_by_recipe(info, &plan)?;
            index.add_own(&recipe, &hashes);
            referenced.extend(recipe.sources());
            report.recipes_made += 1;
            report.bytes_saved += plan.saved_bytes();
        }
        Ok(report)
    }

    /// The blobs that recipes refer to.
    fn referenced(&self) -> Result<HashSet<Digest>, RegistryError> {
        let recipes = self.blobs.recipes()?.into_iter().collect();
        Ok(self.blobs.recipe_sources(&recipes)?.into_iter().collect())
    }

    /// What the tensors of a file hash to; `None` if it has no tensors to speak of.
    fn hashes(&self, info: &BlobInfo) -> Result<Option<TensorHashes>, RegistryError> {
        let key = DerivedKey {
            source: info.digest,
            layout: TensorHashes::LAYOUT.to_owned(),
            version: TensorHashes::VERSION,
        };
        let name = info.digest.to_string();
        let built = self.derived.get_or_build::<StorageError>(&key, |sink| {
            let file = self.blobs.open_file(info)?;
            sink(&TensorHashes::of(&name, &file)?.to_bytes())
        });
        match built {
            Ok(blob) => Ok(Some(TensorHashes::from_bytes(&name, &blob)?)),
            Err(StorageError::Format(error)) => {
                tracing::debug!(%error, "a file is no model file and is not deduplicated");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
