//! The registry through its public interface: a store in a temporary folder, origins on loopback.

#![allow(clippy::disallowed_methods, reason = "tests touch files as anybody may")]

mod abuse;
mod archives;
mod convert;
mod dedup;
mod downloads;
mod families;
mod fleet;
mod gc;
mod imports;
mod lineage;
mod membership;
mod metadata;
mod models;
mod object_store;
mod origin;
mod over_http;
mod packages;
mod profile;
mod scrub;
mod simulation;
mod store;
mod tiers;
#[path = "../../../model/tests/it/tiny.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod tiny;
mod variants;
mod warm;
mod workers;
