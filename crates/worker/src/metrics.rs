//! The engine's metrics, under vLLM's names where it has one, with vLLM's label `model_name`.
//!
//! The token counters of vLLM (`prompt_tokens`, `generation_tokens`) and all latencies of requests are the proxy's:
//! it knows what was delivered. `vllm:prefix_cache_*` count tokens, as vLLM's do.

use std::time::Duration;

use helios_engine::{EngineStatus, StepReport};
use helios_runtime::Clock;
use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use tokio::sync::watch;

/// Least time between two looks at the engine's figures.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The figures of one engine after each step.
pub(crate) struct EngineMetrics {
    running: Gauge,
    waiting: Gauge,
    kv_used: Gauge,
    kv_cached_blocks: Gauge,
    prefix_queries: Counter,
    prefix_hits: Counter,
    preemptions: Counter,
    failures: Counter,
}

impl EngineMetrics {
    pub(crate) fn new(model: &str) -> Self {
        let gauge = |name| gauge!(name, "model_name" => model.to_owned());
        let counter = |name| counter!(name, "model_name" => model.to_owned());
        Self {
            running: gauge("vllm:num_requests_running"),
            waiting: gauge("vllm:num_requests_waiting"),
            kv_used: gauge("vllm:kv_cache_usage_perc"),
            kv_cached_blocks: gauge("helios_kv_blocks_cached"),
            prefix_queries: counter("vllm:prefix_cache_queries_total"),
            prefix_hits: counter("vllm:prefix_cache_hits_total"),
            preemptions: counter("vllm:num_preemptions_total"),
            failures: counter("helios_engine_failures_total"),
        }
    }

    /// Follows the engine until it ends.
    pub(crate) async fn follow(self, mut status: watch::Receiver<EngineStatus>) {
        loop {
            self.record(&status.borrow_and_update().clone());
            Clock.sleep(LOOK_INTERVAL).await;
            if status.changed().await.is_err() {
                break;
            }
        }
        self.record(&EngineStatus { running: 0, queued: 0, kv_blocks_used: 0, ..status.borrow().clone() });
    }

    fn record(&self, status: &EngineStatus) {
        self.running.set(status.running as f64);
        self.waiting.set(status.queued as f64);
        self.kv_used.set(status.kv_blocks_used as f64 / status.kv_blocks_total.max(1) as f64);
        self.kv_cached_blocks.set(status.kv_blocks_cached as f64);
        self.prefix_queries.absolute(status.prefix_query_tokens_total);
        self.prefix_hits.absolute(status.prefix_hit_tokens_total);
        self.preemptions.absolute(status.preemptions_total);
        self.failures.absolute(status.failures_total);
    }
}

/// The figures of single steps.
pub(crate) struct StepMetrics {
    sequences: Histogram,
    tokens: Histogram,
    forward_seconds: Histogram,
}

impl StepMetrics {
    pub(crate) fn new(model: &str) -> Self {
        let histogram = |name| histogram!(name, "model_name" => model.to_owned());
        Self {
            sequences: histogram("helios_step_sequences"),
            tokens: histogram("vllm:iteration_tokens_total"),
            forward_seconds: histogram("helios_step_seconds"),
        }
    }

    pub(crate) fn record(&self, step: &StepReport) {
        self.sequences.record(step.sequences as f64);
        self.tokens.record((step.prefill_tokens + step.decode_tokens) as f64);
        self.forward_seconds.record(step.forward.as_secs_f64());
    }
}

/// Tells the recorder what each metric means. Once, after the recorder is installed.
pub fn describe_metrics() {
    let gauges = [
        ("vllm:num_requests_running", "Sequences that take part in steps."),
        ("vllm:num_requests_waiting", "Requests that wait for their first step."),
        ("vllm:kv_cache_usage_perc", "Share of KV blocks that running sequences hold; 1 is all."),
        ("helios_kv_blocks_cached", "KV blocks that nobody holds and whose contents can be reused."),
    ];
    for (name, text) in gauges {
        metrics::describe_gauge!(name, text);
    }
    let counters = [
        ("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache."),
        ("vllm:prefix_cache_hits_total", "Tokens found in the prefix cache."),
        ("vllm:num_preemptions_total", "Sequences that lost their KV blocks and were computed again."),
        ("helios_engine_failures_total", "Requests that ended in a fault of the engine."),
    ];
    for (name, text) in counters {
        metrics::describe_counter!(name, text);
    }
    metrics::describe_histogram!("helios_step_sequences", "Sequences in the batch of one step.");
    metrics::describe_histogram!("vllm:iteration_tokens_total", "Tokens computed in one step.");
    metrics::describe_histogram!("helios_step_seconds", Unit::Seconds, "Duration of one forward pass.");
}
