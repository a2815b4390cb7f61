//! An engine behind the worker protocol, in this process.
//!
//! A host is started with a loaded model and is ready from then on: starting it produced a token. It ends in two
//! steps, so that no stream is lost that could have finished: [`Host::drain`] refuses new requests, [`Host::stop`]
//! waits for the running ones and then ends the engine, which turns whatever is left into errors that a proxy can
//! migrate on.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use helios_api::worker::{ChunkStream, UpdateStream, Worker, WorkerError, protocol_info, v1};
use helios_engine::EngineHandle;
use helios_runtime::{Clock, Tasks};
use helios_types::{Digest, ErrorCode, ModelRef, NumericsId};
use tokio::sync::watch;

use crate::answer::{self, InFlight};
use crate::memory::KvBudget;
use crate::model_files::Held;
use crate::request::engine_request;
use crate::watching;

/// A worker with its engine in this process. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) worker_id: String,
    pub(crate) reference: ModelRef,
    pub(crate) model: v1::ModelInfo,
    pub(crate) manifest: Digest,
    pub(crate) engine: EngineHandle,
    pub(crate) kv_budget: KvBudget,
    pub(crate) memory_bytes: u64,
    pub(crate) sequences_max: u32,
    pub(crate) in_flight_max: usize,
    pub(crate) draining: watch::Sender<bool>,
    pub(crate) in_flight: watch::Sender<usize>,
    pub(crate) tasks: Tasks,
    pub(crate) _held: Option<Held>,
}

impl Host {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// What tells this worker from every other, this host's earlier lives included.
    pub fn worker_id(&self) -> &str {
        &self.shared.worker_id
    }

    /// Name and tag under which it serves its model.
    pub fn reference(&self) -> &ModelRef {
        &self.shared.reference
    }

    /// The version of the model.
    pub fn manifest(&self) -> Digest {
        self.shared.manifest
    }

    /// The model as peers are told.
    pub fn model(&self) -> &v1::ModelInfo {
        &self.shared.model
    }

    /// What must be equal in another worker for tokens to be equal.
    pub fn numerics_id(&self) -> &NumericsId {
        self.shared.engine.numerics_id()
    }

    /// Memory for KV blocks, and why it is that much.
    pub fn kv_budget(&self) -> &KvBudget {
        &self.shared.kv_budget
    }

    /// Most requests that run and wait together.
    pub fn in_flight_max(&self) -> usize {
        self.shared.in_flight_max
    }

    /// Refuses new requests from now on and tells watchers so; running ones go on.
    pub fn drain(&self) {
        self.shared.draining.send_replace(true);
    }

    /// Drains, waits for running requests at most `grace`, and ends the engine. Returns whether all requests finished.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.drain();
        let mut in_flight = self.shared.in_flight.subscribe();
        let finished = Clock.timeout(grace, in_flight.wait_for(|running| *running == 0)).await.is_ok();
        let engine = self.shared.engine.clone();
        // Ending joins the engine's thread, which may be inside a step. A panic in there was logged by the panic hook.
        let _ended = tokio::task::spawn_blocking(move || engine.shutdown()).await;
        finished & self.shared.tasks.stop(grace).await
    }

    fn accept(&self, request: v1::GenerateRequest) -> Result<ChunkStream, WorkerError> {
        let shared = &*self.shared;
        // Counted before the look at `draining`: whoever drains and then sees a count of 0 has missed no request.
        let in_flight = InFlight::enter(&shared.in_flight);
        if *shared.draining.borrow() {
            return Err(WorkerError::new(ErrorCode::Unavailable, "the worker is draining"));
        }
        let request = engine_request(request, &shared.manifest)?;
        let first_index = request.emitted.len();
        let events = shared.engine.submit(request).map_err(|error| WorkerError::of(&error))?;
        Ok(answer::chunks(events, first_index, in_flight))
    }
}

impl Worker for Host {
    fn describe(&self) -> BoxFuture<'_, Result<v1::DescribeResponse, WorkerError>> {
        let shared = &*self.shared;
        let response = v1::DescribeResponse {
            protocol: Some(protocol_info(self.numerics_id().as_str())),
            worker_id: shared.worker_id.clone(),
            model: Some(shared.model.clone()),
            ready: shared.engine.status().borrow().ready && !*shared.draining.borrow(),
            memory_bytes: shared.memory_bytes,
        };
        std::future::ready(Ok(response)).boxed()
    }

    fn generate(&self, request: v1::GenerateRequest) -> BoxFuture<'_, Result<ChunkStream, WorkerError>> {
        std::future::ready(self.accept(request)).boxed()
    }

    fn watch(&self) -> BoxFuture<'_, Result<UpdateStream, WorkerError>> {
        let shared = &*self.shared;
        watching::updates(shared.engine.clone(), shared.draining.subscribe(), shared.sequences_max).boxed()
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("worker_id", &self.shared.worker_id)
            .field("model", &self.shared.model.reference)
            .finish_non_exhaustive()
    }
}
