//! What the engine tells about itself after every step.

use std::time::Duration;

/// A snapshot of the engine. Totals count since start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineStatus {
    /// Whether a token was produced since the model was loaded.
    pub ready: bool,
    /// The engine clock's time of the last step, or of the start.
    pub last_tick: Duration,
    /// Sequences that take part in steps.
    pub running: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Tokens of waiting and running requests that must be computed before their next token.
    pub queued_prefill_tokens: usize,
    /// KV blocks in all.
    pub kv_blocks_total: usize,
    /// KV blocks that running sequences hold.
    pub kv_blocks_used: usize,
    /// KV blocks that nobody holds and whose contents can be reused.
    pub kv_blocks_cached: usize,
    /// Most tokens the next step may compute.
    pub step_tokens: usize,
    /// Tokens computed per second, over the last steps.
    pub tokens_per_second: f64,
    /// Steps in all.
    pub steps_total: u64,
    /// Tokens computed of prompts, and of answers that were computed again.
    pub prefill_tokens_total: u64,
    /// Tokens delivered.
    pub generated_tokens_total: u64,
    /// Tokens looked up in the prefix cache.
    pub prefix_query_tokens_total: u64,
    /// Tokens found there.
    pub prefix_hit_tokens_total: u64,
    /// Sequences that lost their blocks to older ones and were computed again.
    pub preemptions_total: u64,
    /// Requests that ended in a fault.
    pub failures_total: u64,
}
