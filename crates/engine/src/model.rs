//! A loaded model: its configuration, its weights in place, and the name of its arithmetic.

use helios_storage::{Checkpoint, FileBytes};
use helios_types::NumericsId;

use crate::weights::Weights;
use crate::{EngineError, ModelConfig};

/// Version of the layout in which kernels read weights; 1 is the file's own.
const LAYOUT_VERSION: u32 = 1;

/// A model ready to compute. Weights stay in the mapped files; norms are copied.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    weights: Weights,
    numerics_id: NumericsId,
}

impl Model {
    /// Opens a GGUF file.
    ///
    /// # Errors
    /// A malformed file, an unsupported model, or tensors that do not fit its configuration.
    pub fn from_gguf(file_name: &str, file: impl Into<FileBytes>) -> Result<Self, EngineError> {
        let (checkpoint, gguf) = Checkpoint::from_gguf(file_name, file)?;
        Self::new(ModelConfig::from_gguf(file_name, &gguf)?, &checkpoint)
    }

    /// Opens a Hugging Face checkpoint: `config.json`, the safetensors files by name, and the shard index if the
    /// checkpoint has one.
    ///
    /// # Errors
    /// A malformed file, an unsupported model, or tensors that do not fit its configuration.
    pub fn from_safetensors<F: Into<FileBytes>>(
        config_json: &[u8],
        files: Vec<(String, F)>,
        index_json: Option<&[u8]>,
    ) -> Result<Self, EngineError> {
        let config = ModelConfig::from_hugging_face(config_json)?;
        Self::new(config, &Checkpoint::from_safetensors(files, index_json)?)
    }

    fn new(config: ModelConfig, checkpoint: &Checkpoint) -> Result<Self, EngineError> {
        let weights = Weights::open(&config, checkpoint)?;
        let numerics_id =
            NumericsId::new(&weights.formats(), LAYOUT_VERSION, "f16", helios_kernels::NUMERICS_FAMILY);
        Ok(Self { config, weights, numerics_id })
    }

    /// Shape and conventions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What must be equal in another engine for tokens to be equal.
    pub fn numerics_id(&self) -> &NumericsId {
        &self.numerics_id
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }
}
