//! One request's line in the log and its place in the metrics, written when it ends, however it ends.

use helios_api::{Finish, Usage};
use helios_runtime::{Clock, Instant};
use helios_types::ErrorCode;

use crate::metrics::{self, Counted, Figures};

/// Longest model name that a client sent which is logged in full.
const NAME_CHARS_MAX: usize = 128;

/// What is known of a request so far. Dropping it writes it down; a request that did not end otherwise was cancelled.
pub(crate) struct Record {
    request_id: String,
    /// As the client named it, until it is resolved.
    model: String,
    is_resolved: bool,
    worker: Option<String>,
    usage: Usage,
    began: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    outcome: Result<Finish, ErrorCode>,
    _counted: Counted,
}

impl Record {
    pub(crate) fn start(request_id: &str) -> Self {
        Self {
            request_id: request_id.to_owned(),
            model: String::new(),
            is_resolved: false,
            worker: None,
            usage: Usage::default(),
            began: Clock.now(),
            first_token: None,
            last_token: None,
            outcome: Err(ErrorCode::Cancelled),
            _counted: Counted::request(),
        }
    }

    pub(crate) fn asked_for(&mut self, model: &str) {
        self.model = model.chars().take(NAME_CHARS_MAX).collect();
    }

    pub(crate) fn resolved(&mut self, model: String) {
        self.model = model;
        self.is_resolved = true;
    }

    pub(crate) fn dispatched(&mut self, worker: &str) {
        self.worker = Some(worker.to_owned());
    }

    /// Tokens came from the worker.
    pub(crate) fn tokens_arrived(&mut self, tokens: usize) {
        let now = Clock.now();
        self.first_token.get_or_insert(now);
        if let Some(before) = self.last_token.replace(now).filter(|_| tokens > 0) {
            metrics::tokens_arrived(&self.model, tokens, (now - before).as_secs_f64());
        }
    }

    pub(crate) fn delivered(&mut self, usage: Usage) {
        self.usage = usage;
    }

    pub(crate) fn finished(&mut self, finish: Finish) {
        self.outcome = Ok(finish);
    }

    pub(crate) fn failed(&mut self, code: ErrorCode) {
        self.outcome = Err(code);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let seconds_to = |moment: Instant| (moment - self.began).as_secs_f64();
        let figures = Figures {
            prompt_tokens: self.usage.prompt_tokens,
            completion_tokens: self.usage.completion_tokens,
            first_token_seconds: self.first_token.map(seconds_to),
            seconds: seconds_to(Clock.now()),
        };
        let label = if self.is_resolved { self.model.as_str() } else { "" };
        let outcome = match self.outcome {
            Ok(finish) => {
                metrics::succeeded(label, finish.as_str(), &figures);
                finish.as_str()
            }
            Err(code) => {
                metrics::failed(label, code.as_str(), &figures);
                code.as_str()
            }
        };
        let milliseconds = |seconds: f64| (seconds * 1e4).round() / 10.0;
        tracing::info!(
            request_id = self.request_id,
            model = self.model,
            worker = self.worker,
            prompt_tokens = figures.prompt_tokens,
            cached_tokens = self.usage.cached_tokens,
            completion_tokens = figures.completion_tokens,
            first_token_ms = figures.first_token_seconds.map(milliseconds),
            duration_ms = milliseconds(figures.seconds),
            outcome,
            "request"
        );
    }
}
