//! From a model's files to a host that has produced its first token.

use std::sync::Arc;

use helios_api::worker::v1;
use helios_engine::{Engine, EngineError, EngineHandle};
use helios_runtime::{Shutdown, Tasks, random_u64};
use helios_types::{BLOCK_TOKENS, Digest};
use tokio::sync::watch;

use crate::host::Shared;
use crate::memory::KvBudget;
use crate::metrics::{EngineMetrics, StepMetrics};
use crate::{Host, HostError, Machine, ModelFiles, WeightFiles};

impl Host {
    /// Loads `files`, starts an engine on `machine` and produces a token, so that the host is ready.
    ///
    /// Metrics go to the recorder that is installed by then.
    ///
    /// # Errors
    /// A model that the engine refuses, too little KV memory for it, or a first token that failed.
    pub async fn start(machine: &Machine, files: ModelFiles) -> Result<Self, HostError> {
        let ModelFiles { reference, manifest, weights, held } = files;
        let name = reference.to_string();
        let (engine, kv_budget) = start_engine(machine, &name, manifest, weights).await?;
        warm_up(&engine).await.map_err(|source| HostError::Engine { reference: name.clone(), source })?;
        let tasks = Tasks::new(Shutdown::default());
        tasks.spawn("engine metrics", EngineMetrics::new(&name).follow(engine.status()));
        let config = machine.config();
        Ok(Self::new(Shared {
            worker_id: format!("worker-{:016x}", random_u64()),
            model: model_info(&name, manifest, &engine),
            reference,
            manifest,
            engine,
            kv_budget,
            memory_bytes: machine.memory_bytes().unwrap_or(0),
            sequences_max: wire(config.sequences_max),
            in_flight_max: config.sequences_max + config.queue_max,
            draining: watch::Sender::new(false),
            in_flight: watch::Sender::new(0),
            tasks,
            _held: held,
        }))
    }
}

/// Produces a token, and waits until the engine's figures say so: they are renewed a moment after.
async fn warm_up(engine: &EngineHandle) -> Result<(), EngineError> {
    engine.warm_up().await?;
    match engine.status().wait_for(|status| status.ready).await {
        Ok(_) => Ok(()),
        Err(_) => Err(EngineError::Stopped { problem: "it ended after its first token".to_owned() }),
    }
}

async fn start_engine(
    machine: &Machine,
    name: &str,
    manifest: Digest,
    weights: WeightFiles,
) -> Result<(EngineHandle, KvBudget), HostError> {
    let machine = machine.clone();
    let steps = StepMetrics::new(name);
    let start = move || {
        let model = weights.parse()?;
        let budget = machine.kv_budget(model.config());
        let observer = Arc::new(move |step: &_| steps.record(step));
        let engine = Engine::start(Arc::new(model), machine.engine_options(manifest, &budget, observer))?;
        Ok((engine, budget))
    };
    let reference = name.to_owned();
    match tokio::task::spawn_blocking(start).await {
        Ok(Ok(started)) => Ok(started),
        Ok(Err(source)) => Err(HostError::Engine { reference, source }),
        Err(error) => Err(HostError::Load { reference, problem: error.to_string() }),
    }
}

fn model_info(name: &str, manifest: Digest, engine: &EngineHandle) -> v1::ModelInfo {
    v1::ModelInfo {
        reference: name.to_owned(),
        manifest_digest: manifest.to_string(),
        role: "unified".to_owned(),
        context_tokens_max: wire(engine.context_tokens_max()),
        vocabulary: wire(engine.model().config().vocab),
        block_tokens: wire(BLOCK_TOKENS),
    }
}

/// A bound as the wire has it.
fn wire(bound: usize) -> u32 {
    u32::try_from(bound).unwrap_or(u32::MAX)
}
