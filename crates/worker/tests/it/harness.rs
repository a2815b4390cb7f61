//! Starts hosts and servers for tests, and reads their streams.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use helios_api::worker::{ChunkStream, GrpcWorker, GrpcWorkerOptions, UpdateStream, WorkerError, v1};
use helios_runtime::{Clock, Shutdown, Tasks};
use helios_storage::Blob;
use helios_types::Digest;
use helios_worker::{Host, Machine, ModelFiles, ServeOptions, WeightFiles, WorkerConfig, serve};

use crate::tiny_model::tiny_gguf;

/// The model version that tests serve.
pub(crate) const MANIFEST: Digest = Digest::from_bytes([9; 32]);

/// After this, what was waited for does not come any more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Small memory and few threads.
pub(crate) fn config() -> WorkerConfig {
    WorkerConfig {
        kv_memory: Some(64 << 20),
        sequences_max: 4,
        queue_max: 4,
        threads: Some(2),
        ..WorkerConfig::default()
    }
}

pub(crate) fn files() -> ModelFiles {
    ModelFiles {
        reference: "tiny:test".parse().expect("a reference"),
        manifest: MANIFEST,
        weights: WeightFiles::Gguf {
            name: "tiny.gguf".to_owned(),
            blob: Blob::from_vec(tiny_gguf(1)).into(),
        },
        held: None,
    }
}

pub(crate) async fn start_with(config: &WorkerConfig) -> Host {
    let machine = Machine::new(config, 1).expect("good settings");
    Host::start(&machine, files()).await.expect("a host")
}

pub(crate) async fn start() -> Host {
    start_with(&config()).await
}

/// A host on a port of its own.
pub(crate) struct Server {
    pub(crate) host: Host,
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tasks,
}

impl Server {
    pub(crate) async fn start(host: Host, cluster_token: Option<&str>, grace: Duration) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = helios_runtime::bind(loopback).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let tasks = Tasks::new(Shutdown::default());
        let options =
            ServeOptions { cluster_token: cluster_token.map(|token| token.to_owned().into()), grace };
        let (served, shutdown) = (host.clone(), tasks.shutdown().clone());
        tasks.spawn("server", async move {
            serve(served, listener, options, &shutdown).await.expect("a clean end");
        });
        Self { host, address, tasks }
    }

    pub(crate) fn client(&self, cluster_token: Option<&str>) -> GrpcWorker {
        let options = GrpcWorkerOptions {
            address: format!("http://{}", self.address),
            cluster_token: cluster_token.map(str::to_owned),
            connect_timeout: PATIENCE,
            keep_alive: PATIENCE,
        };
        GrpcWorker::new(&options).expect("a good address")
    }

    pub(crate) async fn stop(&self) {
        assert!(self.tasks.stop(PATIENCE).await, "the server did not end");
    }
}

/// A greedy request for `max_tokens` tokens behind `prompt`.
pub(crate) fn request(prompt: &[u32], max_tokens: u32) -> v1::GenerateRequest {
    v1::GenerateRequest {
        request_id: "test".to_owned(),
        manifest_digest: MANIFEST.to_string(),
        prompt: prompt.to_vec(),
        sampling: Some(v1::Sampling { top_p: 1.0, repetition_penalty: 1.0, ..v1::Sampling::default() }),
        max_tokens,
        ..v1::GenerateRequest::default()
    }
}

/// The same, drawn under a seed.
pub(crate) fn sampled(prompt: &[u32], max_tokens: u32, seed: u64) -> v1::GenerateRequest {
    let mut request = request(prompt, max_tokens);
    let sampling = request.sampling.as_mut().expect("set above");
    (sampling.temperature, sampling.seed) = (1.0, seed);
    request
}

/// A whole answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) prompt: v1::PromptInfo,
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<v1::TokenLogprobs>,
    pub(crate) finish: v1::Finish,
}

/// Reads an answer to its end and checks what every stream must keep: indices without gap from `first_index`, the
/// prompt in the first chunk and the finish in the last, each once.
pub(crate) async fn read(mut chunks: ChunkStream, first_index: u32) -> Result<Answer, WorkerError> {
    let (mut prompt, mut finish) = (None, None);
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    while let Some(chunk) = within(chunks.next()).await {
        let chunk = chunk?;
        assert!(finish.is_none(), "a chunk behind the finish: {chunk:?}");
        assert_eq!(chunk.first_index, first_index + tokens.len() as u32);
        assert_eq!(chunk.prompt.is_some(), prompt.is_none());
        prompt = prompt.or(chunk.prompt);
        tokens.extend(chunk.tokens);
        logprobs.extend(chunk.logprobs);
        finish = chunk.finish;
    }
    let (prompt, finish) = (prompt.expect("prompt figures"), finish.expect("a stream ends with a finish"));
    Ok(Answer { prompt, tokens, logprobs, finish })
}

/// The next update of a watch, which must be there.
pub(crate) async fn next_update(updates: &mut UpdateStream) -> v1::WatchUpdate {
    within(updates.next()).await.expect("a watch does not end").expect("an update")
}

/// Reads updates until `done` says so; returns all of them.
pub(crate) async fn updates_until(
    updates: &mut UpdateStream,
    mut done: impl FnMut(&v1::WatchUpdate) -> bool,
) -> Vec<v1::WatchUpdate> {
    let mut seen = Vec::new();
    loop {
        let update = next_update(updates).await;
        let is_done = done(&update);
        seen.push(update);
        if is_done {
            return seen;
        }
    }
}

/// The output of a future that must come.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    Clock.timeout(PATIENCE, future).await.expect("it never came")
}
