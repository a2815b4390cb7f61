//! The crate through its public interface: files on a real disk, and headers of every hostile kind.

#![allow(clippy::disallowed_methods, reason = "tests make and break files")]
#![allow(clippy::panic, reason = "a test that fails panics")]

mod allocation;
mod blob_store;
mod checkpoint;
mod corpus;
mod derived;
mod durability;
mod every_prefix;
mod gguf;
mod gguf_builder;
mod io;
mod load;
mod recipe;
mod safetensors;
mod simulated_disk;
mod tiers;
mod tiers_faults;
mod tree;
mod verified;
