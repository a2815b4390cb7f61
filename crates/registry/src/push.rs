//! Versions that clients push: files that are in the store already become a manifest with a tag.

use std::collections::BTreeMap;
use std::sync::Arc;

use helios_model::FileEntry;
use helios_storage::{BlobInfo, StorageError};
use helios_types::{Digest, ModelRef};

use crate::blocking::blocking;
use crate::fetch::{Gathered, GatheredFile};
use crate::import::{self, NoModel};
use crate::pins::Intake;
use crate::{Registry, RegistryError, names};

/// Where pushed files came from, in manifests and histories. The same for every name, so that equal files make one
/// version.
const SOURCE: &str = "push";

impl Registry {
    /// Makes a version of `files`, by path, with `kept` beside them as they are, and points `name` at it. `intake` has pinned
    /// what is new; files of other versions are pinned here, and fetched again if they left. What waited for a version
    /// waits no more.
    ///
    /// # Errors
    /// [`RegistryError::ReservedName`]; as [`bring`](Self::bring); [`RegistryError::Metadata`].
    pub async fn add_version(
        self: &Arc<Self>,
        name: &ModelRef,
        files: BTreeMap<String, BlobInfo>,
        kept: Vec<FileEntry>,
        intake: Arc<Intake>,
    ) -> Result<Digest, RegistryError> {
        names::check_new(name)?;
        let blobs: Vec<BlobInfo> = files.values().copied().chain(kept.iter().map(|file| file.blob)).collect();
        self.bring(&blobs, &intake).await?;
        let files = files.into_iter().map(|(path, blob)| GatheredFile { path, blob }).collect();
        let importing = Arc::clone(&intake);
        let manifest = blocking(move || {
            let gathered = Gathered { files, ..Gathered::default() };
            let mut manifest = import::manifest(&importing, gathered, SOURCE, NoModel::Kept)?;
            manifest.files.extend(kept);
            Ok(manifest)
        })
        .await?;
        let (digest, manifest) = self.add_manifest(manifest).await?;
        self.point(name.clone(), digest, manifest, SOURCE.to_owned()).await?;
        self.shelf().release(blobs.into_iter().map(|blob| blob.digest));
        Ok(digest)
    }

    /// Pins blobs for a new version; those that are not here are fetched again first.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] for one that is not to be had; what the place says that should have it.
    pub async fn bring(self: &Arc<Self>, blobs: &[BlobInfo], intake: &Intake) -> Result<(), RegistryError> {
        for blob in blobs {
            if intake.adopt(blob.digest) {
                continue;
            }
            self.ensure_blob(blob).await?;
            if !intake.adopt(blob.digest) {
                return Err(StorageError::BlobMissing { digest: blob.digest }.into());
            }
        }
        Ok(())
    }
}
