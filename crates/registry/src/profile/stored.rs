//! Profiles of versions in the store.

use std::sync::Arc;

use helios_storage::{Blob, Checkpoint, Gguf, ModelConfig, TensorInfo};

use super::{MemoryProfile, ModelShape};
use crate::blocking::blocking;
use crate::{Manifest, Registry, RegistryError, Role};

impl Registry {
    /// The memory profile of a version, with its details: from the manifest, or for one that an earlier release wrote, or
    /// that the engine does not run, from the headers of its files.
    ///
    /// # Errors
    /// [`RegistryError::InvalidModel`] for files without weights or configuration; [`RegistryError::Storage`].
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
        blocking(move || of_files(config.as_deref(), weights)).await
    }
}

fn of_files(config: Option<&[u8]>, mut weights: Vec<(String, Blob)>) -> Result<MemoryProfile, RegistryError> {
    let subject = weights.first().map_or_else(|| "the model".to_owned(), |(name, _)| format!("`{name}`"));
    let (shape, tensors): (ModelShape, Vec<TensorInfo>) = match (config, weights.as_slice()) {
        (None, [(name, blob)]) if name.ends_with(".gguf") => {
            let gguf = Gguf::parse(name, blob)?;
            (ModelShape::from(&ModelConfig::from_gguf(name, &gguf)?), gguf.tensors)
        }
        (Some(config), [_, ..]) => {
            let checkpoint = Checkpoint::from_safetensors(std::mem::take(&mut weights), None)?;
            (ModelShape::from_hugging_face(config)?, checkpoint.tensors().cloned().collect())
        }
        _ => return Err(RegistryError::invalid_model(subject, "it has no weights with a configuration")),
    };
    Ok(MemoryProfile::new(shape, tensors.iter()))
}
