//! The worker protocol: tokens in, tokens out.
//!
//! [`v1`] is generated from `proto/worker.proto`; its messages are the protocol's types everywhere. [`Worker`] is the
//! seam between proxy and worker: an engine in this process, a [`GrpcWorker`] on the network, or a simulated one.

mod client;
mod server;
mod status;

use std::pin::Pin;

use futures::Stream;
use futures::future::BoxFuture;
use helios_types::{BLOCK_HASH_VERSION, Classify, ErrorCode};

pub use client::{GrpcWorker, GrpcWorkerOptions};
pub use server::grpc_service;
pub use status::{error_of_status, status_of_error};

/// Messages and services of package `helios.worker.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("helios.worker.v1");
}

/// Minor version of the protocol that this build speaks.
pub const PROTOCOL_MINOR: u32 = 0;

/// Chunks of one answer. Dropping the stream cancels the request.
pub type ChunkStream = Pin<Box<dyn Stream<Item = Result<v1::GenerateChunk, WorkerError>> + Send>>;

/// Status updates of one worker.
pub type UpdateStream = Pin<Box<dyn Stream<Item = Result<v1::WatchUpdate, WorkerError>> + Send>>;

/// Something that turns tokens into tokens.
pub trait Worker: Send + Sync {
    /// Who this is and what it serves.
    fn describe(&self) -> BoxFuture<'_, Result<v1::DescribeResponse, WorkerError>>;

    /// Continues `prompt + emitted`. The stream ends after a chunk with `finish`, or with an error.
    fn generate(&self, request: v1::GenerateRequest) -> BoxFuture<'_, Result<ChunkStream, WorkerError>>;

    /// A snapshot of the worker's state first, then whatever changes.
    fn watch(&self) -> BoxFuture<'_, Result<UpdateStream, WorkerError>>;
}

/// What this build tells a peer of itself.
pub fn protocol_info(numerics_id: &str) -> v1::ProtocolInfo {
    v1::ProtocolInfo {
        minor: PROTOCOL_MINOR,
        features: Vec::new(),
        block_hash_version: BLOCK_HASH_VERSION,
        numerics_id: numerics_id.to_owned(),
    }
}

/// An error as it crosses the worker protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WorkerError {
    /// What kind of error.
    pub code: ErrorCode,
    /// What failed, for a person.
    pub message: String,
}

impl WorkerError {
    /// An error of `code`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Any classified error.
    pub fn of(error: &dyn Classify) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl Classify for WorkerError {
    fn code(&self) -> ErrorCode {
        self.code
    }
}
