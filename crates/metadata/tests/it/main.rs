//! The database of manifests, tags, blobs and records: one suite for its three implementations.

#![allow(clippy::disallowed_methods, reason = "tests touch files as anybody may")]

mod conformance;
mod made;
mod postgres;
mod postgres_server;
mod simulated;
mod sqlite;
