//! What the hosts of one process share: the threads that compute, the clock, and the memory there is for KV blocks.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use helios_engine::{EngineOptions, ModelConfig, StepObserver};
use helios_kernels::Team;
use helios_runtime::Clock;
use helios_types::Digest;

use crate::memory::{AvailableMemory, KvBudget, KvDemand, MemoryTexts};
use crate::{HostError, WorkerConfig};

/// The machine under the hosts of this process.
#[derive(Clone)]
pub struct Machine {
    config: WorkerConfig,
    team: Arc<Team>,
    memory: Option<AvailableMemory>,
    models: u64,
}

impl Machine {
    /// Looks at memory and starts the threads, for as many `models` as will be hosted.
    ///
    /// # Errors
    /// Settings that no worker can run with.
    pub fn new(config: &WorkerConfig, models: usize) -> Result<Self, HostError> {
        config.validate()?;
        let usable = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self {
            config: config.clone(),
            team: Arc::new(Team::new(config.threads.unwrap_or(usable))),
            memory: MemoryTexts::read().available(),
            models: models as u64,
        })
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// The settings this was made with.
    pub fn config(&self) -> &WorkerConfig {
        &self.config
    }

    /// Memory that this process could take when it started; `None` if the kernel does not say.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        self.memory.map(|memory| memory.bytes)
    }

    /// Memory for the KV blocks of one model.
    pub(crate) fn kv_budget(&self, model: &ModelConfig) -> KvBudget {
        let context = self.config.context_tokens_max.unwrap_or(usize::MAX).min(model.context_tokens);
        KvBudget::decide(&KvDemand {
            configured: self.config.kv_memory,
            available: self.memory,
            models: self.models,
            sequences_max: self.config.sequences_max as u64,
            context_tokens: context as u64,
            token_bytes: model.kv_bytes_per_token() as u64,
        })
    }

    /// How an engine for the model version `manifest` runs here.
    pub(crate) fn engine_options(
        &self,
        manifest: Digest,
        budget: &KvBudget,
        observer: StepObserver,
    ) -> EngineOptions {
        let started = Clock.now();
        let clock = Arc::new(move || -> Duration { Clock.now().saturating_duration_since(started) });
        let kv_bytes = usize::try_from(budget.bytes).unwrap_or(usize::MAX);
        EngineOptions {
            sequences_max: self.config.sequences_max,
            queue_max: self.config.queue_max,
            context_tokens_max: self.config.context_tokens_max,
            observer: Some(observer),
            ..EngineOptions::new(self.team.clone(), clock, manifest, kv_bytes)
        }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("threads", &self.threads())
            .field("memory", &self.memory)
            .field("models", &self.models)
            .finish_non_exhaustive()
    }
}
