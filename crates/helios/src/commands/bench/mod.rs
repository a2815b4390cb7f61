//! `helios bench`: figures of this machine, peers beside them.

mod engine;
mod llama_cpp;
mod storage;
mod table;

pub(crate) use engine::bench_engine;
pub(crate) use storage::bench_storage;
