//! Which files of a manifest the engine needs, opened and verified.

use futures::future::try_join_all;
use helios_engine::{EngineError, Model, ModelConfig};
use helios_model::{Manifest, ModelError, Role, WeightFormat};
use helios_registry::{HostLease, ModelStore, RegistryError, Resolved};
use helios_storage::{Blob, FileBytes};
use helios_types::{Digest, ModelRef};

use crate::HostError;

/// The configuration of a Hugging Face checkpoint, kept by the registry as it came.
const CONFIG_JSON: &str = "config.json";

/// One version of a model with the files that the engine needs.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// Name and tag under which it is served.
    pub reference: ModelRef,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// The files with the weights.
    pub weights: WeightFiles,
    /// Keeps the files from garbage collection while they are in use.
    pub held: Option<Held>,
}

/// What keeps the files of a version: in the process of the store itself, or in another on its host.
#[derive(Clone, Debug)]
pub struct Held {
    _here: Resolved,
    _on_host: Option<HostLease>,
}

/// The files with the weights, in one of two forms.
#[derive(Clone, Debug)]
pub enum WeightFiles {
    /// One file with everything in it.
    Gguf {
        /// Its name, for messages.
        name: String,
        /// Its bytes.
        blob: FileBytes,
    },
    /// A Hugging Face checkpoint.
    Safetensors {
        /// `config.json`.
        config: Blob,
        /// The safetensors files by name.
        files: Vec<(String, FileBytes)>,
        /// The shard index, if the checkpoint has one.
        index: Option<Blob>,
    },
}

impl ModelFiles {
    /// Opens the files of `resolved`, fetched first where they are not on this host.
    ///
    /// # Errors
    /// A file that is missing in the manifest or cannot be had.
    pub async fn open(store: &ModelStore, resolved: &Resolved) -> Result<Self, HostError> {
        let held = Held { _here: resolved.clone(), _on_host: store.lease_on_host(resolved.digest).await };
        let weights = WeightFiles::open(store, &resolved.manifest).await.map_err(Box::new);
        let weights = weights
            .map_err(|source| HostError::Registry { reference: resolved.reference.to_string(), source })?;
        Ok(Self {
            reference: resolved.reference.clone(),
            manifest: resolved.digest,
            weights,
            held: Some(held),
        })
    }
}

/// Refuses a model that the engine does not run, before its weights are fetched or read.
async fn refuse_foreign(store: &ModelStore, manifest: &Manifest) -> Result<(), RegistryError> {
    if manifest.is_native() {
        return Ok(());
    }
    if let Some(config) = manifest.files.iter().find(|file| file.path == CONFIG_JSON) {
        // It names what is not supported.
        ModelConfig::from_hugging_face(&store.blob(config).await?).map_err(ModelError::from)?;
    }
    Err(ModelError::not_native(manifest).into())
}

impl WeightFiles {
    async fn open(store: &ModelStore, manifest: &Manifest) -> Result<Self, RegistryError> {
        refuse_foreign(store, manifest).await?;
        match manifest.facts()?.format {
            WeightFormat::Gguf => {
                let file = manifest.required(Role::Weights)?;
                Ok(Self::Gguf { name: file.path.clone(), blob: store.file(file).await? })
            }
            WeightFormat::Safetensors => {
                let config = manifest.files(Role::Original).find(|file| file.path == CONFIG_JSON);
                let config = config.ok_or(ModelError::MissingRole { role: CONFIG_JSON })?;
                let index = match manifest.file(Role::WeightsIndex) {
                    Some(file) => Some(store.blob(file).await?),
                    None => None,
                };
                // Together: a shard is verified while the next is read.
                let weights = || manifest.files(Role::Weights);
                let blobs = try_join_all(weights().map(|file| store.file(file))).await?;
                let files = weights().map(|file| file.path.clone()).zip(blobs).collect();
                Ok(Self::Safetensors { config: store.blob(config).await?, files, index })
            }
        }
    }

    /// The files with tensors, by name.
    fn blobs(&self) -> Vec<(&str, &Blob)> {
        match self {
            Self::Gguf { name, blob } => blob.blobs().into_iter().map(|blob| (name.as_str(), blob)).collect(),
            Self::Safetensors { files, .. } => files
                .iter()
                .flat_map(|(name, file)| file.blobs().into_iter().map(|blob| (name.as_str(), blob)))
                .collect(),
        }
    }

    /// Brings the files into memory, parses the headers and maps the tensors. Blocks.
    ///
    /// # Errors
    /// A failing disk, a malformed file, an unsupported model, or tensors that do not fit its configuration.
    pub fn parse(self) -> Result<Model, EngineError> {
        helios_storage::populate(&self.blobs())?;
        match self {
            Self::Gguf { name, blob } => Model::from_gguf(&name, blob),
            Self::Safetensors { config, files, index } => {
                Model::from_safetensors(&config, files, index.as_deref())
            }
        }
    }
}
