//! Why files are no model that Helios can use.

use helios_storage::{FormatProblem, ModelConfigError, NATIVE_TENSOR_TYPES, StorageError};
use helios_text::TextError;
use helios_types::{Classify, ErrorCode, TensorType};

use crate::Manifest;

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
    /// The native engine does not run the model.
    #[error(
        "the native engine does not run this model of the family `{family}`, stored as {stored}\nhint: it runs `llama` models without scaled positions or biases, with a byte-level tokenizer, stored as {}; workers of other engines can have the files of this one",
        names(&NATIVE_TENSOR_TYPES)
    )]
    NotNative {
        /// The family.
        family: String,
        /// The element types of its tensors.
        stored: String,
    },
    /// Helios cannot turn text into the model's tokens.
    #[error(
        "Helios does not read the tokenizer of this model\nhint: take a form of the model whose tokenizer.json is a byte-pair encoding"
    )]
    NoTokenizer,
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
    /// Whether the files may be right, and ask for something that Helios does not read or the native engine does not do.
    pub fn is_unsupported(&self) -> bool {
        let of_format = |error: &StorageError| match error {
            StorageError::Format(error) => {
                matches!(error.problem, FormatProblem::UnknownTensorType { .. })
            }
            _ => false,
        };
        match self {
            Self::Storage(error) | Self::Config(ModelConfigError::Storage(error)) => of_format(error),
            Self::Config(error) => matches!(error, ModelConfigError::Unsupported { .. }),
            Self::Text { source, .. } => matches!(
                source,
                TextError::UnknownPreTokenizer { .. } | TextError::UnsupportedVocabulary { .. }
            ),
            _ => false,
        }
    }

    /// The error for a model that the native engine does not run.
    pub fn not_native(manifest: &Manifest) -> Self {
        match (&manifest.metadata, &manifest.profile) {
            (Some(facts), Some(profile)) => Self::NotNative {
                family: facts.architecture.clone(),
                stored: names(profile.weight_bytes_by_type.keys()),
            },
            _ => Self::NotServable,
        }
    }

    /// The error for files that are not a model.
    pub fn invalid(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { subject: subject.into(), problem: problem.into() }
    }

    /// The error for a manifest, or a small file beside it, that makes no sense.
    pub(crate) fn invalid_manifest(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidManifest { subject: subject.into(), problem: problem.into() }
    }
}

fn names<'a>(types: impl IntoIterator<Item = &'a TensorType>) -> String {
    types.into_iter().map(|tensor_type| tensor_type.as_str()).collect::<Vec<_>>().join(", ")
}

impl Classify for ModelError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Storage(error) => error.code(),
            Self::Config(error) => error.code(),
            Self::Text { source, .. } => source.code(),
            Self::NotServable
            | Self::NotNative { .. }
            | Self::NoTokenizer
            | Self::Invalid { .. }
            | Self::NotConvertible { .. } => ErrorCode::InvalidRequest,
            Self::MissingRole { .. } | Self::InvalidManifest { .. } => ErrorCode::Corrupt,
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }
}
