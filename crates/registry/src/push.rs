//! Versions that clients push: files that are in the store already become a manifest with a tag.

use std::collections::BTreeMap;
use std::sync::Arc;

use helios_model::FileEntry;
use helios_storage::BlobInfo;
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
    /// what is new; files of other versions are pinned here.
    ///
    /// # Errors
    /// [`RegistryError::ReservedName`]; [`RegistryError::UnknownDigest`] for a file that is not here;
    /// [`RegistryError::Storage`]; [`RegistryError::Metadata`].
    pub async fn add_version(
        self: &Arc<Self>,
        name: &ModelRef,
        files: BTreeMap<String, BlobInfo>,
        kept: Vec<FileEntry>,
        intake: Arc<Intake>,
    ) -> Result<Digest, RegistryError> {
        names::check_new(name)?;
        let blobs = files.values().map(|blob| blob.digest).chain(kept.iter().map(|file| file.blob.digest));
        if let Some(gone) = blobs.into_iter().find(|digest| !intake.adopt(*digest)) {
            return Err(RegistryError::UnknownDigest { kind: "blob", digest: gone });
        }
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
        Ok(digest)
    }
}
