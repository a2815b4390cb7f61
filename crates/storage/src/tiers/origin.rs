//! The remote tier: where a blob that is on no local directory can be had.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use helios_types::Digest;

use crate::{BlobInfo, BlobWriter, StorageError};

/// A fetch under way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<BlobInfo, StorageError>> + Send + 'a>>;

/// A place elsewhere that has blobs: an object store, another registry, a peer, a hub.
///
/// An origin is believed nothing: what it brings counts only after the writer's commit found the digest it should have.
pub trait Origin: Debug + Send + Sync {
    /// Its name in logs, metrics and lists, without credentials.
    fn name(&self) -> String;

    /// Whether a blob could be fetched from here again, as far as known without asking anybody. Only blobs of which
    /// some origin says so may lose their last local copy.
    fn can_fetch(&self, digest: &Digest) -> bool;

    /// Brings the blob: writes what `writer` does not have yet, and commits it with the blob's digest. Dropping the
    /// future cancels; what was written stays for the next attempt.
    ///
    /// # Errors
    /// [`StorageError::Origin`] for a failure there; whatever the writer says.
    fn fetch<'a>(&'a self, info: &'a BlobInfo, writer: BlobWriter) -> Fetching<'a>;
}
