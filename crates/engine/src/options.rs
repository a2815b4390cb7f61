//! What the owner of an engine decides: threads, memory, bounds, and where time comes from.

use std::sync::Arc;
use std::time::Duration;

use helios_kernels::Team;
use helios_types::Digest;

use crate::EngineError;

/// Time since some fixed moment; never goes back. Handed in, so that a simulation can own time.
pub type MonotonicClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Hears of every step after its forward pass, on the engine's thread: keep it short. A panic in it counts as a
/// panic of the step.
pub type StepObserver = Arc<dyn Fn(&StepReport) + Send + Sync>;

/// Figures of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepReport {
    /// Sequences in the batch.
    pub sequences: usize,
    /// Tokens computed of prompts, and of answers that are computed again.
    pub prefill_tokens: usize,
    /// Tokens computed of sequences that are due one token.
    pub decode_tokens: usize,
    /// Duration of the forward pass.
    pub forward: Duration,
}

/// How an engine runs.
#[derive(Clone)]
pub struct EngineOptions {
    /// The threads that compute; may be shared by several engines.
    pub team: Arc<Team>,
    /// Where time comes from.
    pub clock: MonotonicClock,
    /// The model version, which is part of every block hash.
    pub manifest: Digest,
    /// Memory for KV blocks.
    pub kv_bytes: usize,
    /// Most sequences in one step.
    pub sequences_max: usize,
    /// Most requests that wait beyond those that run.
    pub queue_max: usize,
    /// Most tokens of prompt and answer together; `None` for the model's own limit. KV memory may limit further.
    pub context_tokens_max: Option<usize>,
    /// How long one step should take at most: what a running stream waits for another's prompt.
    pub step_target: Duration,
    /// Least tokens of a step, however slow the machine.
    pub step_tokens_min: usize,
    /// Most tokens of a step, however fast the machine.
    pub step_tokens_max: usize,
    /// Hears of every step.
    pub observer: Option<StepObserver>,
}

impl EngineOptions {
    /// The defaults: 32 sequences, 256 waiting, steps of 40 ms between 16 and 512 tokens.
    pub fn new(team: Arc<Team>, clock: MonotonicClock, manifest: Digest, kv_bytes: usize) -> Self {
        Self {
            team,
            clock,
            manifest,
            kv_bytes,
            sequences_max: 32,
            queue_max: 256,
            context_tokens_max: None,
            step_target: Duration::from_millis(40),
            step_tokens_min: 16,
            step_tokens_max: 512,
            observer: None,
        }
    }

    /// Refuses options that contradict each other.
    pub(crate) fn validate(&self) -> Result<(), EngineError> {
        const SEQUENCES_MAX: usize = 4096;
        let refuse = |option, problem: String| Err(EngineError::Options { option, problem });
        if !(1..=SEQUENCES_MAX).contains(&self.sequences_max) {
            return refuse(
                "sequences_max",
                format!("is {}, expected 1 to {SEQUENCES_MAX}", self.sequences_max),
            );
        }
        if self.context_tokens_max == Some(0) {
            return refuse("context_tokens_max", "is 0".to_owned());
        }
        if self.step_tokens_min == 0 || self.step_tokens_min > self.step_tokens_max {
            let range = format!("{} to {}", self.step_tokens_min, self.step_tokens_max);
            return refuse(
                "step_tokens_min",
                format!("makes steps of {range} tokens, which is no range from 1 up"),
            );
        }
        Ok(())
    }
}
