//! The configuration is read by `helios-storage`, which the registry shares; its errors become the engine's here.

use helios_storage::ModelConfigError;
pub use helios_storage::{ModelConfig, NameScheme, RopeLayout};

use crate::EngineError;

impl From<ModelConfigError> for EngineError {
    fn from(error: ModelConfigError) -> Self {
        match error {
            ModelConfigError::Unsupported { file, field, value, supported } => {
                Self::Unsupported { file, field, value, supported }
            }
            ModelConfigError::Invalid { file, field, problem } => Self::Config { file, field, problem },
            ModelConfigError::Storage(error) => error.into(),
        }
    }
}
