//! Profiles of versions in the store.

use std::sync::Arc;

use helios_model::profile::profile_of_files;
use helios_model::{Manifest, MemoryProfile, Role};

use crate::blocking::blocking;
use crate::{Registry, RegistryError};

impl Registry {
    /// The memory profile of a version, with its details: from the manifest, or for one that an earlier release wrote, or
    /// that the engine does not run, from the headers of its files.
    ///
    /// # Errors
    /// [`RegistryError::Model`] for files without weights or configuration; [`RegistryError::Storage`].
    pub async fn profile(self: &Arc<Self>, manifest: &Manifest) -> Result<MemoryProfile, RegistryError> {
        if let Some(profile) = manifest.profile.as_ref().filter(|profile| profile.details.is_some()) {
            return Ok(profile.clone());
        }
        let config = manifest.files.iter().find(|file| file.path == "config.json");
        let config = match config {
            Some(file) => Some(self.blob(file).await?),
            None => None,
        };
        let mut weights = Vec::new();
        for file in manifest.files(Role::Weights) {
            weights.push((file.path.clone(), self.blob(file).await?));
        }
        blocking(move || Ok(profile_of_files(config.as_deref(), weights)?)).await
    }
}
