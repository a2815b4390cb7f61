//! What can go wrong in the engine: at load, at submit, and in the middle of a stream.

use std::sync::Arc;

use helios_storage::{ModelConfigError, StorageError};
use helios_types::{Classify, ErrorCode, TensorType};

/// Why a model could not be loaded or a request not be served.
///
/// Cheap to clone, because one fault of a step is told to every request that was in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// No decoder can be built from the model's configuration.
    #[error(transparent)]
    Config(Arc<ModelConfigError>),
    /// A tensor is missing, or does not have the shape or type that the configuration asks for.
    #[error("tensor `{tensor}` {problem}")]
    Tensor {
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor is stored in a way that there are no kernels for.
    #[error("tensor `{tensor}` is stored as {tensor_type}, which the engine does not compute with")]
    TensorType {
        /// The tensor's name in the file.
        tensor: String,
        /// How it is stored.
        tensor_type: TensorType,
    },
    /// A file could not be read as what it claims to be.
    #[error("cannot open the model's tensors: {message}")]
    Storage {
        /// The code of the storage error.
        code: ErrorCode,
        /// Its message.
        message: String,
    },
    /// The engine's own options contradict each other or the model.
    #[error("engine option `{option}` {problem}")]
    Options {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A parameter of a request is out of range.
    #[error("`{parameter}` {problem}")]
    InvalidRequest {
        /// The parameter's name.
        parameter: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Prompt and wanted tokens do not fit.
    #[error(
        "{prompt_tokens} prompt tokens and up to {max_tokens} new ones are more than the limit of {limit_tokens} tokens"
    )]
    ContextLength {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens wanted at most.
        max_tokens: usize,
        /// What fits: the model's context, or the KV memory if that is smaller.
        limit_tokens: usize,
    },
    /// The queue is full.
    #[error("the engine has {in_flight} requests already, its limit")]
    QueueFull {
        /// Requests running and queued.
        in_flight: usize,
    },
    /// The engine was shut down, or its thread could not be started.
    #[error("the engine is not running: {problem}")]
    Stopped {
        /// What ended it.
        problem: String,
    },
    /// A fault inside a step.
    #[error("the engine failed this request: {problem}")]
    Internal {
        /// What happened.
        problem: String,
    },
}

impl From<ModelConfigError> for EngineError {
    fn from(error: ModelConfigError) -> Self {
        Self::Config(Arc::new(error))
    }
}

impl From<StorageError> for EngineError {
    fn from(error: StorageError) -> Self {
        Self::Storage { code: error.code(), message: error.to_string() }
    }
}

impl Classify for EngineError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Config(error) => error.code(),
            Self::InvalidRequest { .. } | Self::Options { .. } | Self::TensorType { .. } => {
                ErrorCode::InvalidRequest
            }
            Self::Tensor { .. } => ErrorCode::Corrupt,
            Self::Storage { code, .. } => *code,
            Self::ContextLength { .. } => ErrorCode::ContextLengthExceeded,
            Self::QueueFull { .. } => ErrorCode::Overloaded,
            Self::Stopped { .. } => ErrorCode::Unavailable,
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }
}
