//! Engines for tests: a clock that counts, and answers collected from events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use helios_engine::{
    Engine, EngineError, EngineHandle, EngineOptions, Event, Events, Finish, Model, MonotonicClock, Request,
    TokenLogprobs,
};
use helios_kernels::Team;
use helios_types::Digest;

use crate::tiny_model::BLOCK_BYTES;

/// Time that goes on by a millisecond whenever somebody looks.
pub(crate) fn counting_clock() -> MonotonicClock {
    let ticks = AtomicU64::new(0);
    Arc::new(move || Duration::from_millis(ticks.fetch_add(1, Ordering::Relaxed)))
}

/// Options with `blocks` KV blocks of a tiny model.
pub(crate) fn options(threads: usize, blocks: usize) -> EngineOptions {
    let team = Arc::new(Team::new(threads));
    EngineOptions::new(team, counting_clock(), Digest::from_bytes([9; 32]), blocks * BLOCK_BYTES)
}

/// An engine with room for everything.
pub(crate) fn roomy(model: &Arc<Model>) -> EngineHandle {
    Engine::start(Arc::clone(model), options(1, 256)).unwrap()
}

/// All that a request's events said.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) cached_tokens: usize,
    pub(crate) tokens: Vec<u32>,
    pub(crate) first_index: Option<usize>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) prompt_logprobs: Option<Vec<Option<TokenLogprobs>>>,
    pub(crate) finish: Option<Finish>,
    pub(crate) error: Option<EngineError>,
}

/// Waits for the end of a request and checks that indices have no gap and nothing follows the end.
pub(crate) fn collect(mut events: Events) -> Answer {
    let mut answer = Answer::default();
    while let Some(event) = events.blocking_next() {
        assert!(answer.finish.is_none() && answer.error.is_none(), "{event:?} after the end");
        match event {
            Event::Started { cached_tokens, .. } => answer.cached_tokens = cached_tokens,
            Event::PromptLogprobs(logprobs) => answer.prompt_logprobs = Some(logprobs),
            Event::Token(token) => {
                let first = *answer.first_index.get_or_insert(token.index);
                assert_eq!(token.index, first + answer.tokens.len(), "a token is missing or doubled");
                answer.tokens.push(token.id);
                answer.logprobs.extend(token.logprobs);
            }
            Event::Finished(finish) => answer.finish = Some(finish),
            Event::Failed(error) => answer.error = Some(error),
        }
    }
    assert!(answer.finish.is_some() || answer.error.is_some(), "a stream without an end");
    answer
}

/// Runs one request to its end.
pub(crate) fn answer(engine: &EngineHandle, request: Request) -> Answer {
    collect(engine.submit(request).unwrap())
}
