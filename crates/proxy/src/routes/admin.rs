//! What operators see: `/metrics` and `/admin/v1/workers`.

use std::collections::BTreeMap;

use axum::body::Body;
use helios_types::{Digest, ModelRef};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::fleet::TrackedWorker;
use crate::proxy::Inner;
use crate::{metrics as recorded, reply};

/// The body of `GET /admin/v1/workers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerList {
    /// Everyone on the list, ready or not.
    pub workers: Vec<WorkerView>,
}

/// One worker as this proxy sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its id on the list of members.
    pub id: String,
    /// Name and tag under which it serves.
    pub model: ModelRef,
    /// The version it serves.
    pub manifest_digest: Digest,
    /// Whether its status stream is open. The figures below are 0 while it is not.
    pub connected: bool,
    /// Whether it takes requests: it has made a token since it loaded the model.
    pub ready: bool,
    /// Whether it is finishing what it has, and takes nothing new.
    pub draining: bool,
    /// What must be equal for its tokens to equal another's.
    pub numerics_id: String,
    /// Longest context it serves.
    pub context_tokens_max: u32,
    /// Sequences that take part in its steps.
    pub running_sequences: u32,
    /// Sequences that wait.
    pub queued_sequences: u32,
    /// Prompt tokens that wait to be read.
    pub queued_prefill_tokens: u64,
    /// KV blocks in use.
    pub kv_blocks_used: u32,
    /// KV blocks there are.
    pub kv_blocks_total: u32,
    /// Streams that this proxy has open there.
    pub in_flight: u64,
    /// Memory that its process could take for models when it started; 0 if it does not say.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// `GET /admin/v1/workers`.
pub(crate) fn workers(proxy: &Inner) -> Response<Body> {
    let workers = proxy.fleet.workers().iter().map(|worker| view(worker)).collect();
    let body = serde_json::to_string(&WorkerList { workers });
    reply::json(StatusCode::OK, body.expect("invariant: a list of plain values has a JSON form"))
}

fn view(worker: &TrackedWorker) -> WorkerView {
    let seen = worker.view();
    let connected = seen.is_some();
    let memory_bytes = seen.as_ref().map_or(0, |seen| seen.memory_bytes);
    let (model, numerics_id, status) =
        seen.map(|seen| (seen.model.clone(), seen.numerics_id.clone(), seen.status)).unwrap_or_default();
    WorkerView {
        id: worker.member.id.clone(),
        model: worker.member.reference.clone(),
        manifest_digest: worker.member.manifest_digest,
        connected,
        ready: worker.is_ready(),
        draining: status.draining,
        numerics_id,
        context_tokens_max: model.context_tokens_max,
        running_sequences: status.running_sequences,
        queued_sequences: status.queued_sequences,
        queued_prefill_tokens: status.queued_prefill_tokens,
        kv_blocks_used: status.kv_blocks_used,
        kv_blocks_total: status.kv_blocks_total,
        in_flight: worker.in_flight(),
        memory_bytes,
    }
}

/// `GET /metrics`: the text exposition format.
pub(crate) fn metrics(proxy: &Inner) -> Response<Body> {
    let mut ready: BTreeMap<String, usize> = BTreeMap::new();
    for worker in proxy.fleet.workers().iter() {
        *ready.entry(worker.member.reference.to_string()).or_default() += usize::from(worker.is_ready());
    }
    ready.iter().for_each(|(model, workers)| recorded::set_workers_ready(model, *workers));
    recorded::set_profile_age(proxy.profiles.age_seconds_max());
    reply::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", proxy.metrics.render())
}
