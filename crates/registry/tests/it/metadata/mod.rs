//! The database of manifests, tags, blobs and records: one suite for its three implementations.

mod conformance;
mod crashes;
pub(crate) mod made;
mod postgres;
mod scale;
mod simulated;
mod sqlite;
