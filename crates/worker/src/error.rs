//! Why a worker could not start, could not be reached, or had to end.

use std::net::SocketAddr;

use helios_engine::EngineError;
use helios_registry::RegistryError;
use helios_types::{Classify, ErrorCode};

/// A fault of the worker as a whole; a fault of one request is a [`helios_api::worker::WorkerError`].
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A setting that no worker can run with.
    #[error("worker setting `{field}` {problem}")]
    Config {
        /// The setting's name.
        field: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// Everybody on the network could use the worker.
    #[error(
        "refusing to listen on {address} without a cluster token\n\
         hint: set a cluster token, or listen on a loopback address such as 127.0.0.1"
    )]
    InsecureBind {
        /// The address asked for.
        address: SocketAddr,
    },
    /// A file of the model could not be had.
    #[error("cannot open model `{reference}`")]
    Registry {
        /// The model as it was asked for.
        reference: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// The engine refused the model or its options, or failed its first token.
    #[error("cannot start model `{reference}`")]
    Engine {
        /// The model as it was asked for.
        reference: String,
        /// Why.
        #[source]
        source: EngineError,
    },
    /// The task that loads a model died.
    #[error("loading model `{reference}` ended early: {problem}")]
    Load {
        /// The model as it was asked for.
        reference: String,
        /// What ended it.
        problem: String,
    },
    /// The listener failed.
    #[error("serving the worker protocol failed: {problem}")]
    Serve {
        /// The transport's reason.
        problem: String,
    },
}

impl Classify for HostError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Config { .. } | Self::InsecureBind { .. } => ErrorCode::InvalidRequest,
            Self::Registry { source, .. } => source.code(),
            Self::Engine { source, .. } => source.code(),
            Self::Load { .. } | Self::Serve { .. } => ErrorCode::Internal,
        }
    }
}
