//! Profiles of versions in the store: from the manifest, or made from headers once and then kept in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use helios_model::profile::{HeaderFile, profile_of_headers};
use helios_model::{FileEntry, Manifest, MemoryProfile, ModelError, Role};
use helios_storage::{StorageError, Tiers};
use helios_types::Digest;

use crate::blocking::blocking;
use crate::registry::digest_of;
use crate::{Registry, RegistryError};

/// Profiles that are kept, of some 1 KiB each.
const KEPT_MAX: usize = 1024;

/// Profiles that were made from headers, by manifest digest.
#[derive(Debug, Default)]
pub(crate) struct Profiles(Mutex<HashMap<Digest, MemoryProfile>>);

impl Profiles {
    fn get(&self, digest: &Digest) -> Option<MemoryProfile> {
        self.lock().get(digest).cloned()
    }

    fn keep(&self, digest: Digest, profile: MemoryProfile) {
        let mut kept = self.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(digest, profile);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, MemoryProfile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// The memory profile of a version, with its details as far as they are known: from the manifest, or for one without
    /// them from the headers of its files, the first time.
    ///
    /// # Errors
    /// [`RegistryError::Model`] for files without weights or configuration; [`RegistryError::Storage`].
    pub async fn profile(self: &Arc<Self>, manifest: &Manifest) -> Result<MemoryProfile, RegistryError> {
        if let Some(profile) = manifest.profile.as_ref().filter(|profile| profile.details.is_some()) {
            return Ok(profile.clone());
        }
        let digest = digest_of(&manifest.to_bytes());
        if let Some(profile) = self.profiles().get(&digest) {
            return Ok(profile);
        }
        let profile = match (self.profile_of_headers(manifest).await, &manifest.profile) {
            // Of a family whose dimensions are not known.
            (Err(RegistryError::Model(ModelError::Invalid { .. })), Some(told)) => told.clone(),
            (made, _) => made?,
        };
        self.profiles().keep(digest, profile.clone());
        Ok(profile)
    }

    /// Reads the headers, and nothing else of files that are here.
    async fn profile_of_headers(
        self: &Arc<Self>,
        manifest: &Manifest,
    ) -> Result<MemoryProfile, RegistryError> {
        let config = match manifest.files.iter().find(|file| file.path == "config.json") {
            Some(file) => Some(self.blob(file).await?),
            None => None,
        };
        let weights: Vec<FileEntry> = manifest.files(Role::Weights).cloned().collect();
        for file in &weights {
            self.ensure_blob(&file.blob).await?;
        }
        let blobs = Arc::clone(self.blobs());
        blocking(move || profile_of(config.as_deref(), &weights, &blobs)).await
    }
}

fn profile_of(
    config: Option<&[u8]>,
    weights: &[FileEntry],
    blobs: &Tiers,
) -> Result<MemoryProfile, RegistryError> {
    let reads: Vec<_> = weights.iter().map(|file| beginning(file, blobs)).collect();
    let files: Vec<HeaderFile<'_>> = weights
        .iter()
        .zip(&reads)
        .map(|(file, read)| HeaderFile { name: &file.path, size: file.blob.size, read })
        .collect();
    Ok(profile_of_headers(config, &files)?)
}

/// Reads the first bytes of a file, verified by the leaves that have them.
fn beginning<'a>(
    file: &'a FileEntry,
    blobs: &'a Tiers,
) -> impl Fn(u64) -> Result<Vec<u8>, StorageError> + 'a {
    move |bytes| blobs.read_range(&file.blob, 0..bytes)
}
