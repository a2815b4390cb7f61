//! A [`Worker`] on the other end of a gRPC connection.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use helios_types::ErrorCode;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::{ChunkStream, UpdateStream, Worker, WorkerError, error_of_status, protocol_info, v1};

/// How to reach a worker.
#[derive(Clone, Debug)]
pub struct GrpcWorkerOptions {
    /// `http://HOST:PORT`.
    pub address: String,
    /// Sent as `authorization: Bearer …` with every call.
    pub cluster_token: Option<String>,
    /// Bound on opening the connection.
    pub connect_timeout: Duration,
    /// A peer that leaves a ping unanswered this long is gone.
    pub keep_alive: Duration,
}

/// A worker reached over gRPC. Cheap to clone; connects on the first call and again after a loss.
#[derive(Clone)]
pub struct GrpcWorker {
    client: v1::worker_client::WorkerClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl GrpcWorker {
    /// Prepares a connection; nothing is sent before the first call.
    ///
    /// # Errors
    /// `InvalidRequest` if the address or the token cannot stand in a request.
    pub fn new(options: &GrpcWorkerOptions) -> Result<Self, WorkerError> {
        let endpoint = Endpoint::from_shared(options.address.clone())
            .map_err(|error| invalid(format!("worker address `{}`: {error}", options.address)))?
            .connect_timeout(options.connect_timeout)
            .http2_keep_alive_interval(options.keep_alive)
            .keep_alive_timeout(options.keep_alive)
            .tcp_nodelay(true);
        let token = options.cluster_token.as_ref();
        let authorization = token
            .map(|token| MetadataValue::try_from(format!("Bearer {token}")))
            .transpose()
            .map_err(|_| invalid("the cluster token has characters that a header cannot carry".to_owned()))?;
        Ok(Self { client: v1::worker_client::WorkerClient::new(endpoint.connect_lazy()), authorization })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }
}

fn invalid(message: String) -> WorkerError {
    WorkerError::new(ErrorCode::InvalidRequest, message)
}

fn from_status(status: Status) -> WorkerError {
    error_of_status(&status)
}

impl Worker for GrpcWorker {
    fn describe(&self) -> BoxFuture<'_, Result<v1::DescribeResponse, WorkerError>> {
        let request = self.request(v1::DescribeRequest { peer: Some(protocol_info("")) });
        let mut client = self.client.clone();
        async move { client.describe(request).await.map(tonic::Response::into_inner).map_err(from_status) }
            .boxed()
    }

    fn generate(&self, request: v1::GenerateRequest) -> BoxFuture<'_, Result<ChunkStream, WorkerError>> {
        let request = self.request(request);
        let mut client = self.client.clone();
        async move {
            let chunks = client.generate(request).await.map_err(from_status)?.into_inner();
            Ok(chunks.map(|chunk| chunk.map_err(from_status)).boxed() as ChunkStream)
        }
        .boxed()
    }

    fn watch(&self) -> BoxFuture<'_, Result<UpdateStream, WorkerError>> {
        let request = self.request(v1::WatchRequest { peer: Some(protocol_info("")) });
        let mut client = self.client.clone();
        async move {
            let updates = client.watch(request).await.map_err(from_status)?.into_inner();
            Ok(updates.map(|update| update.map_err(from_status)).boxed() as UpdateStream)
        }
        .boxed()
    }
}
