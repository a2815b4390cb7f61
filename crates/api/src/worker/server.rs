//! Any [`Worker`] as a gRPC service.

use std::sync::Arc;

use futures::StreamExt;
use tonic::{Request, Response, Status};

use super::{Worker, status_of_error, v1};

type Reply<T> = Result<Response<T>, Status>;
type ReplyStream<T> = futures::stream::BoxStream<'static, Result<T, Status>>;

/// The service that answers `helios.worker.v1` calls by `worker`.
pub fn grpc_service(
    worker: Arc<dyn Worker>,
) -> v1::worker_server::WorkerServer<impl v1::worker_server::Worker> {
    v1::worker_server::WorkerServer::new(Service { worker })
}

struct Service {
    worker: Arc<dyn Worker>,
}

#[tonic::async_trait]
impl v1::worker_server::Worker for Service {
    async fn describe(&self, _request: Request<v1::DescribeRequest>) -> Reply<v1::DescribeResponse> {
        self.worker.describe().await.map(Response::new).map_err(|error| status_of_error(&error))
    }

    type GenerateStream = ReplyStream<v1::GenerateChunk>;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Reply<Self::GenerateStream> {
        let chunks =
            self.worker.generate(request.into_inner()).await.map_err(|error| status_of_error(&error))?;
        Ok(Response::new(chunks.map(|chunk| chunk.map_err(|error| status_of_error(&error))).boxed()))
    }

    type WatchStream = ReplyStream<v1::WatchUpdate>;

    async fn watch(&self, _request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let updates = self.worker.watch().await.map_err(|error| status_of_error(&error))?;
        Ok(Response::new(updates.map(|update| update.map_err(|error| status_of_error(&error))).boxed()))
    }
}
