//! What a registry knows of manifests, tags and blobs, behind one trait with three implementations: SQLite, PostgreSQL,
//! and a simulated one for crash tests. One conformance suite holds all three (`tests/it/conformance.rs`).
//!
//! - A [`Metadata::commit`] makes all of its changes or none, and they are durable when it returns. One follows the other,
//!   whichever process they come from.
//! - The database is an index: for its registry, manifests and tags are files too, and it can be made again from them.
//!   Records are the exception, they are only here.

#![forbid(unsafe_code)]

mod apply;
mod error;
mod schema;
mod simulated;
mod sql;
mod tags;
mod value;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use helios_model::Manifest;
use helios_storage::BlobInfo;
use helios_types::{Digest, ModelRef};

pub use error::MetadataError;
pub use simulated::{Fault, SimulatedMetadata};
pub use sql::SqlMetadata;
pub use tags::{ModelSummary, TagEntry};

/// Bytes of a record's value.
pub const RECORD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a record's kind or key.
pub const RECORD_KEY_BYTES_MAX: usize = 600;
/// Digests that one question of [`Metadata::referenced`] may name, and one answer of [`Metadata::blobs_after`].
pub const DIGESTS_MAX: usize = 500;

/// One step of a [`commit`](Metadata::commit).
#[derive(Clone, Debug)]
pub enum Change {
    /// A store has a manifest; nothing happens if that is known.
    PutManifest {
        /// Its digest.
        digest: Digest,
        /// The manifest.
        manifest: Arc<Manifest>,
        /// The id of the store: several may share a database.
        store: String,
    },
    /// A store gives a manifest up, unless some tag's history has it. It goes when no store has it any more; so do blobs
    /// that only it refers to.
    RemoveManifest {
        /// Its digest.
        digest: Digest,
        /// The id of the store.
        store: String,
    },
    /// A tag has this history, oldest first.
    SetTag {
        /// The tag.
        reference: ModelRef,
        /// What it pointed to; the last is what it points to. Without any, the tag goes.
        history: Vec<TagEntry>,
        /// What it was made from: if the tag has another history before the commit, there is none. `None` if that does
        /// not matter.
        from: Option<Vec<TagEntry>>,
    },
    /// A tag goes with its history.
    RemoveTag(ModelRef),
    /// A record is written, replacing the one of the same kind and key.
    PutRecord {
        /// What sort of record it is, such as `warm-pool`.
        kind: String,
        /// Its name among those of its kind.
        key: String,
        /// JSON, at most [`RECORD_BYTES_MAX`].
        value: String,
    },
    /// A record goes.
    RemoveRecord {
        /// Its kind.
        kind: String,
        /// Its key.
        key: String,
    },
}

/// How much a database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Manifests.
    pub manifests: u64,
    /// Blobs that manifests refer to.
    pub blobs: u64,
    /// Tags.
    pub tags: u64,
}

/// A database of manifests, tags, blobs and records. Its answers are of one moment each.
pub trait Metadata: Send + Sync + Debug {
    /// Makes all changes, in order, or none.
    ///
    /// # Errors
    /// [`MetadataError`]; whether the changes were made is then unknown, unless the error is
    /// [`MetadataError::OverLimit`] or [`MetadataError::Conflict`], which come before any of them.
    fn commit<'a>(&'a self, changes: &'a [Change]) -> BoxFuture<'a, Result<(), MetadataError>>;

    /// What a tag points to. O(log tags).
    fn current<'a>(&'a self, tag: &'a ModelRef) -> BoxFuture<'a, Result<Option<TagEntry>, MetadataError>>;

    /// What a tag pointed to, oldest first; empty if there is no such tag.
    fn history<'a>(&'a self, tag: &'a ModelRef) -> BoxFuture<'a, Result<Vec<TagEntry>, MetadataError>>;

    /// Every tag whose manifest is here, ordered by name and tag.
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelSummary>, MetadataError>>;

    /// The names of all tags, ordered.
    fn tags(&self) -> BoxFuture<'_, Result<Vec<ModelRef>, MetadataError>>;

    /// The tags of one name, ordered.
    fn tags_of<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ModelRef>, MetadataError>>;

    /// The bytes of a manifest.
    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Vec<u8>>, MetadataError>>;

    /// The manifest that came last of those with this blob among their files.
    fn manifest_with<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, Result<Option<Digest>, MetadataError>>;

    /// What the first manifest with this blob says of it.
    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<BlobInfo>, MetadataError>>;

    /// The first blobs that manifests refer to, at most [`DIGESTS_MAX`], of those whose digest is larger than `after`;
    /// ordered by digest.
    fn blobs_after<'a>(
        &'a self,
        after: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Vec<BlobInfo>, MetadataError>>;

    /// The manifests of a store that are in no tag's history.
    fn untagged<'a>(&'a self, store: &'a str) -> BoxFuture<'a, Result<Vec<Digest>, MetadataError>>;

    /// Blobs of those manifests that a manifest in some tag's history refers to, too: each with one of [`Self::untagged`].
    fn outlive<'a>(&'a self, store: &'a str) -> BoxFuture<'a, Result<Vec<(Digest, Digest)>, MetadataError>>;

    /// Those of `blobs` that some manifest refers to; at most [`DIGESTS_MAX`] are asked for at a time.
    fn referenced<'a>(&'a self, blobs: &'a [Digest]) -> BoxFuture<'a, Result<Vec<Digest>, MetadataError>>;

    /// A record's value.
    fn record<'a>(
        &'a self,
        kind: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, MetadataError>>;

    /// Keys and values of all records of a kind, ordered by key.
    fn records<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<Vec<(String, String)>, MetadataError>>;

    /// The kinds of records there are, and how many of each. O(records).
    fn record_kinds(&self) -> BoxFuture<'_, Result<BTreeMap<String, u64>, MetadataError>>;

    /// How much there is. O(manifests and blobs).
    fn counts(&self) -> BoxFuture<'_, Result<Counts, MetadataError>>;

    /// Writes a copy of the whole to a new file while all else goes on.
    ///
    /// # Errors
    /// [`MetadataError::Backup`] if the file is there or cannot be written; [`MetadataError::NoBackup`] where the database
    /// has tools of its own for that.
    fn backup<'a>(&'a self, file: &'a Path) -> BoxFuture<'a, Result<(), MetadataError>>;

    /// Lets go of the database; nothing may be asked afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Refuses changes over the bounds, before anything is written.
fn check(changes: &[Change]) -> Result<(), MetadataError> {
    let over = |what, bytes, bytes_max| Err(MetadataError::OverLimit { what, bytes, bytes_max });
    for change in changes {
        let Change::PutRecord { kind, key, value } = change else { continue };
        if value.len() > RECORD_BYTES_MAX {
            return over("value", value.len(), RECORD_BYTES_MAX);
        }
        if kind.len() > RECORD_KEY_BYTES_MAX || key.len() > RECORD_KEY_BYTES_MAX {
            return over("key", kind.len().max(key.len()), RECORD_KEY_BYTES_MAX);
        }
    }
    Ok(())
}
