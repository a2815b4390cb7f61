//! Models in one file, for places without a network.
//!
//! An archive is an OCI image layout in a plain tar, always the same bytes for the same models:
//!
//! 1. `oci-layout` and `index.json`: the names with their tags, an OCI manifest and a manifest of Helios for each;
//! 2. `blobs/sha256/HEX` of the manifests of Helios, then of the OCI manifests;
//! 3. `blobs/sha256/HEX` of every file, once however many models have it.
//!
//! Other tools read it (`skopeo copy oci-archive:FILE`, `oras --oci-layout`). Helios reads what it wrote: the order above
//! lets an import know of every byte what it has to be before it comes.

mod export;
mod format;
mod import;
mod promised;
mod remote;
mod save;
mod tar_stream;
mod unpack;
mod verify;

pub use export::Archive;
pub use import::{ArchiveImport, ArchiveReport, ByteStream, ImportEvent};
pub use save::{ArchiveSource, Opened, SaveReport};

use serde::{Deserialize, Serialize};

use helios_types::{Digest, ModelRef};

/// A name in an archive, and the version that it points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedModel {
    /// Name and tag.
    pub model: ModelRef,
    /// The manifest.
    pub digest: Digest,
}
