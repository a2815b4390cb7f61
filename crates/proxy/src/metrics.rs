//! Every metric of the proxy, by name, in one place. What a worker's engine does is published by the worker.
//!
//! Names are vLLM's where vLLM has one, with its label `model_name`; it holds the model's resolved name, so that its
//! values are bounded by what is served.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const REQUEST_SUCCESS: &str = "vllm:request_success_total";
const PROMPT_TOKENS: &str = "vllm:prompt_tokens_total";
const GENERATION_TOKENS: &str = "vllm:generation_tokens_total";
const TIME_TO_FIRST_TOKEN: &str = "vllm:time_to_first_token_seconds";
const INTER_TOKEN_LATENCY: &str = "vllm:inter_token_latency_seconds";
const E2E_LATENCY: &str = "vllm:e2e_request_latency_seconds";
const REQUESTS_FAILED: &str = "helios_requests_failed_total";
const REQUESTS_OPEN: &str = "helios_requests_open";
const REQUESTS_REFUSED: &str = "helios_requests_refused_total";
const DISPATCH_RETRIES: &str = "helios_dispatch_retries_total";
const HTTP_RESPONSES: &str = "helios_http_responses_total";
const CONNECTIONS: &str = "helios_http_connections";
const WORKERS_READY: &str = "helios_workers_ready";
const PROFILE_HITS: &str = "helios_profile_cache_hits_total";
const PROFILE_MISSES: &str = "helios_profile_cache_misses_total";
const PROFILE_AGE: &str = "helios_profile_cache_age_seconds";

const COUNTERS: [(&str, &str); 9] = [
    (REQUEST_SUCCESS, "Requests answered to their end, by reason."),
    (PROMPT_TOKENS, "Prompt tokens of requests that got at least one token."),
    (GENERATION_TOKENS, "Tokens delivered."),
    (REQUESTS_FAILED, "Inference requests that ended in an error or were cancelled, by code."),
    (REQUESTS_REFUSED, "Inference requests refused because the proxy was at its limit."),
    (DISPATCH_RETRIES, "Workers that failed before their first token."),
    (HTTP_RESPONSES, "HTTP responses, by route and status."),
    (PROFILE_HITS, "Memory profiles that were in the cache."),
    (PROFILE_MISSES, "Memory profiles that the registry was asked for."),
];

const HISTOGRAMS: [(&str, &str); 3] = [
    (TIME_TO_FIRST_TOKEN, "From the request's arrival to the first token."),
    (INTER_TOKEN_LATENCY, "Between one token and the next."),
    (E2E_LATENCY, "From the request's arrival to the end of its answer."),
];

const GAUGES: [(&str, &str); 4] = [
    (REQUESTS_OPEN, "Inference requests that wait, are read or are being answered."),
    (CONNECTIONS, "Open client connections."),
    (WORKERS_READY, "Workers that take requests."),
    (PROFILE_AGE, "Age of the oldest memory profile in the cache."),
];

/// Tells the recorder what each metric means.
pub(crate) fn describe_metrics() {
    COUNTERS.iter().for_each(|(name, text)| describe_counter!(*name, *text));
    HISTOGRAMS.iter().for_each(|(name, text)| describe_histogram!(*name, metrics::Unit::Seconds, *text));
    GAUGES.iter().for_each(|(name, text)| describe_gauge!(*name, *text));
}

/// What one answer took, as far as it came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) prompt_tokens: u32,
    pub(crate) completion_tokens: u32,
    pub(crate) first_token_seconds: Option<f64>,
    pub(crate) seconds: f64,
}

pub(crate) fn succeeded(model: &str, finished_reason: &'static str, figures: &Figures) {
    let model_name = || model.to_owned();
    counter!(REQUEST_SUCCESS, "model_name" => model_name(), "finished_reason" => finished_reason)
        .increment(1);
    histogram!(E2E_LATENCY, "model_name" => model_name()).record(figures.seconds);
    delivered(model, figures);
}

pub(crate) fn failed(model: &str, code: &'static str, figures: &Figures) {
    counter!(REQUESTS_FAILED, "model_name" => model.to_owned(), "code" => code).increment(1);
    delivered(model, figures);
}

/// Tokens count whether or not the answer came to its end.
fn delivered(model: &str, figures: &Figures) {
    let Some(first_token_seconds) = figures.first_token_seconds else { return };
    let model_name = || model.to_owned();
    counter!(PROMPT_TOKENS, "model_name" => model_name()).increment(u64::from(figures.prompt_tokens));
    counter!(GENERATION_TOKENS, "model_name" => model_name()).increment(u64::from(figures.completion_tokens));
    histogram!(TIME_TO_FIRST_TOKEN, "model_name" => model_name()).record(first_token_seconds);
}

/// `tokens` arrived together, `seconds` after those before.
pub(crate) fn tokens_arrived(model: &str, tokens: usize, seconds: f64) {
    let each = seconds / tokens.max(1) as f64;
    histogram!(INTER_TOKEN_LATENCY, "model_name" => model.to_owned()).record_many(each, tokens);
}

pub(crate) fn refused() {
    counter!(REQUESTS_REFUSED).increment(1);
}

pub(crate) fn retried() {
    counter!(DISPATCH_RETRIES).increment(1);
}

pub(crate) fn profile_hit() {
    counter!(PROFILE_HITS).increment(1);
}

pub(crate) fn profile_miss() {
    counter!(PROFILE_MISSES).increment(1);
}

/// Looked up when the metrics are read.
pub(crate) fn set_profile_age(seconds: f64) {
    gauge!(PROFILE_AGE).set(seconds);
}

pub(crate) fn responded(route: &'static str, status: http::StatusCode) {
    counter!(HTTP_RESPONSES, "route" => route, "status" => status.as_u16().to_string()).increment(1);
}

/// Looked up when the metrics are read.
pub(crate) fn set_workers_ready(model: &str, workers: usize) {
    gauge!(WORKERS_READY, "model_name" => model.to_owned()).set(workers as f64);
}

/// Counts something for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(&'static str);

impl Counted {
    pub(crate) fn request() -> Self {
        Self::enter(REQUESTS_OPEN)
    }

    pub(crate) fn connection() -> Self {
        Self::enter(CONNECTIONS)
    }

    fn enter(name: &'static str) -> Self {
        gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNTERS, GAUGES, HISTOGRAMS};

    #[test]
    fn dashboards_find_these_names() {
        let all = COUNTERS.iter().chain(&HISTOGRAMS).chain(&GAUGES);
        let names: Vec<&str> = all.map(|(name, _)| *name).collect();
        insta::assert_snapshot!(names.join("\n"), @r"
        vllm:request_success_total
        vllm:prompt_tokens_total
        vllm:generation_tokens_total
        helios_requests_failed_total
        helios_requests_refused_total
        helios_dispatch_retries_total
        helios_http_responses_total
        helios_profile_cache_hits_total
        helios_profile_cache_misses_total
        vllm:time_to_first_token_seconds
        vllm:inter_token_latency_seconds
        vllm:e2e_request_latency_seconds
        helios_requests_open
        helios_http_connections
        helios_workers_ready
        helios_profile_cache_age_seconds
        ");
    }
}
