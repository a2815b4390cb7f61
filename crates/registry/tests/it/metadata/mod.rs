//! The database of manifests, tags, blobs and records: one suite for its three implementations.

mod conformance;
mod made;
mod postgres;
mod simulated;
mod sqlite;
