//! Native engine: what turns tokens into tokens.
//!
//! The way of a request: [`EngineHandle::submit`] checks it and hands it to the engine's thread, where the
//! `scheduler` gives each running sequence a chunk of every step, `blocks` finds it room in the paged KV cache, the
//! `decoder` runs one forward pass over all chunks, and the `sampler` draws a token for each sequence that is due
//! one. The hot loops are in `helios-kernels`.
//!
//! Two promises: a request's failure never ends the engine, and greedy output of one request depends on nothing but
//! the request (not on batch, chunking, prefix reuse, preemption or thread count).

#![forbid(unsafe_code)]

mod blocks;
mod cache_feed;
mod decoder;
mod draw;
mod engine;
mod error;
mod handle;
mod logprobs;
mod model;
mod options;
mod request;
mod sampler;
mod scheduler;
mod sequence;
mod status;
mod step_budget;
mod weights;

pub use cache_feed::{CacheChange, CacheDelta, CacheFeed};
pub use engine::Engine;
pub use error::EngineError;
pub use handle::EngineHandle;
pub use helios_storage::{ModelConfig, NameScheme, RopeLayout};
pub use model::Model;
pub use options::{EngineOptions, MonotonicClock, StepObserver, StepReport};
pub use request::{
    Event, Events, Finish, FinishReason, Request, Sampling, TOP_LOGPROBS_MAX, Token, TokenLogprobs,
};
pub use status::EngineStatus;
