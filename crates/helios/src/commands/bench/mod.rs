//! `helios bench`: figures of this machine, peers beside them.

mod engine;
mod llama_cpp;
mod table;

pub(crate) use engine::bench_engine;
