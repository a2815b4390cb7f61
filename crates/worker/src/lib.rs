//! Hosts an engine behind the worker protocol.
//!
//! The way to a running worker: a [`Machine`] has the threads and the memory of the process, [`Host::start`] loads a
//! model on it and produces the first token. A [`Host`] is a [`helios_api::worker::Worker`]: a proxy in the same
//! process calls it directly, others through [`serve`], which puts it on the network, and find it by the lease that
//! [`keep_lease`] keeps at the registry.
//!
//! Invariants: a stream ends with a finish or an error, never without; a dropped stream frees its place within one
//! step of the engine; nothing but loopback is served without a cluster token.

#![forbid(unsafe_code)]

mod answer;
mod config;
mod error;
mod host;
mod lease;
mod load;
mod machine;
mod memory;
mod metrics;
mod model_files;
mod request;
mod serve;
mod watching;

pub use config::WorkerConfig;
pub use error::HostError;
pub use host::Host;
pub use lease::keep_lease;
pub use machine::Machine;
pub use memory::{AvailableMemory, GroupTexts, KvBudget, MemorySource, MemoryTexts};
pub use metrics::describe_metrics;
pub use model_files::{Held, ModelFiles, WeightFiles};
pub use serve::{ServeOptions, check_bind, serve};
