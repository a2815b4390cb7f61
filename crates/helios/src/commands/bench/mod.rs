//! `helios bench`: figures of this machine, peers beside them.

mod engine;
mod llama_cpp;
mod prefetch;
mod storage;
mod table;

pub(crate) use engine::bench_engine;
pub(crate) use prefetch::bench_prefetch;
pub(crate) use storage::bench_storage;
