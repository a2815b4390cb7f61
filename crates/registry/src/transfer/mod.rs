//! Bringing one file from where it is into the store: in parallel ranges where they are understood, as one stream where
//! they are not; resumed after interruption, bounded in memory, checked.
//!
//! A file is cut into pieces of [`PIECE_BYTES`]. Several are fetched at a time, and they are written in order, so that
//! what is there is always a prefix and a later attempt goes on behind it. Memory is bounded by the pieces between the
//! origin and the file: [`FetchConfig::ranges`] being fetched, one waiting, one being written.
//!
//! A partial file is kept under what identifies its contents: the digest where it is known, else the address with the
//! origin's validator (a strong ETag or the time of change) and the boot of the machine. Without either it is begun anew
//! each time. Within one
//! transfer the same holds: a range is asked for with the validator, so that a file that changed comes whole.

mod answer;
mod download;
mod drip;
mod patience;
mod pieces;
mod turns;
mod write;

use std::ops::Range;

use futures::future::BoxFuture;
use helios_storage::{BlobWriter, Tiers};
use helios_types::Digest;
use http::HeaderValue;

pub(crate) use answer::{Answer, range_header};
pub(crate) use download::{download, fetch_blob};
pub(crate) use drip::Drip;
pub(crate) use patience::patiently;
pub(crate) use turns::Turns;

use crate::{FetchConfig, RegistryError};

/// Bytes of a piece: enough that asking for it costs little, few enough that ten of them leave a pull below 64 MB (of
/// 4 MiB each they made 76 MB, 18 of which are the program's own pages).
pub(crate) const PIECE_BYTES: u64 = 2 << 20;

/// Where the bytes of a file come from, as metrics tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// A hub or any other HTTP server.
    Origin,
    /// The parent registry.
    Parent,
    /// Another registry of the fleet.
    Peer,
    /// An object store.
    ObjectStore,
    /// Several, each counted where it is asked.
    Counted,
}

impl SourceKind {
    /// The label in metrics.
    pub(crate) fn label(self) -> Option<&'static str> {
        match self {
            Self::Origin => Some("origin"),
            Self::Parent => Some("parent"),
            Self::Peer => Some("peer"),
            Self::ObjectStore => Some("object_store"),
            Self::Counted => None,
        }
    }
}

/// A place that has one file.
pub(crate) trait Origin: Send + Sync {
    /// Its address, as errors and logs may show it.
    fn shown(&self) -> String;

    /// What tells its file from others, never shown.
    fn address(&self) -> String {
        self.shown()
    }

    /// What it counts as.
    fn kind(&self) -> SourceKind;

    /// Asks for bytes of the file. With a `validator`, for the whole file instead if it is not that file any more. A
    /// place that does not understand ranges answers with the whole file.
    fn open<'a>(
        &'a self,
        range: Range<u64>,
        validator: Option<&'a HeaderValue>,
    ) -> BoxFuture<'a, Result<Answer, RegistryError>>;
}

/// One file to be brought.
pub(crate) struct Transfer<'a> {
    pub(crate) origin: &'a dyn Origin,
    pub(crate) blobs: &'a std::sync::Arc<Tiers>,
    pub(crate) limits: &'a FetchConfig,
    /// What tells this file from others with the same validator, such as its address.
    pub(crate) address: String,
    pub(crate) digest: Option<Digest>,
    pub(crate) size: Option<u64>,
    /// Gets the bytes there and those there will be.
    pub(crate) report: &'a (dyn Fn(u64, Option<u64>) + Send + Sync),
}

/// A file of which some bytes are here.
struct Partial {
    writer: BlobWriter,
    /// What identifies the contents at the origin.
    validator: Option<HeaderValue>,
}

/// Why fetching stopped.
enum Failure {
    /// The file at the origin is not the one begun, or ranges are not understood any more.
    Changed,
    /// This; what is transient was tried again often enough.
    Final(RegistryError),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Final(error)
    }
}
