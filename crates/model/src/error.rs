//! Why files are no model that Helios can use.

use helios_storage::{ModelConfigError, StorageError};
use helios_text::TextError;
use helios_types::{Classify, ErrorCode};

/// Files of a model, or what was made from them, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Files that cannot be read, or break their format.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The model's configuration is unsupported or absurd.
    #[error(transparent)]
    Config(#[from] ModelConfigError),
    /// A tokenizer or a configuration file beside it cannot be used.
    #[error("`{file}`: {source}")]
    Text {
        /// The model file that holds it.
        file: String,
        /// What is wrong with it.
        #[source]
        source: TextError,
    },
    /// A manifest has no file of that role.
    #[error("the model has no file of role `{role}`\nhint: pull the model again")]
    MissingRole {
        /// The role asked for.
        role: &'static str,
    },
    /// The files are kept, but are no model that could be asked.
    #[error(
        "these files are not a model that Helios can serve\nhint: a servable model is one GGUF file, or safetensors with config.json and tokenizer.json"
    )]
    NotServable,
    /// The files are not a model that Helios can serve.
    #[error("{subject} cannot be imported: {problem}")]
    Invalid {
        /// The file, folder or source.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A model cannot be said in another form without loss.
    #[error("{model} cannot be converted: {problem}\nhint: {hint}")]
    NotConvertible {
        /// The model.
        model: String,
        /// What stands in the way, with its name.
        problem: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// A manifest, or a small file beside it, cannot be used.
    #[error("{subject} is corrupt: {problem}")]
    InvalidManifest {
        /// The file or digest.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that is derived from others cannot be written.
    #[error("internal: {problem}")]
    Internal {
        /// What happened.
        problem: String,
    },
}

impl ModelError {
    /// The error for files that are not a model.
    pub fn invalid(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { subject: subject.into(), problem: problem.into() }
    }

    /// The error for a manifest, or a small file beside it, that makes no sense.
    pub(crate) fn invalid_manifest(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidManifest { subject: subject.into(), problem: problem.into() }
    }
}

impl Classify for ModelError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Storage(error) => error.code(),
            Self::Config(error) => error.code(),
            Self::Text { source, .. } => source.code(),
            Self::NotServable | Self::Invalid { .. } | Self::NotConvertible { .. } => {
                ErrorCode::InvalidRequest
            }
            Self::MissingRole { .. } | Self::InvalidManifest { .. } => ErrorCode::Corrupt,
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }
}
