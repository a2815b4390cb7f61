//! What a protocol over a [`Registry`] is made of, beside what the registry offers everybody. For the crate above this
//! one in which other tools' languages are spoken, `helios-distribution`, and nobody else.
//!
//! A file that a client sends is an [`Incoming`], ends in the store pinned by an [`Intake`], and becomes part of a
//! version by [`Registry::add_version`] while the intake is held; a file that a client wants is answered by
//! [`answer_file`]. Bodies are [`BodyPieces`], bounded in size and in silence.

use std::sync::Arc;

use axum::http::{HeaderMap, Method};
use axum::response::Response;
use helios_metadata::TagEntry;
use helios_model::Manifest;
use helios_storage::BlobInfo;
use helios_types::{Digest, ModelRef};

pub use crate::artifact::{Artifact, Descriptor, TITLE};
use crate::content::Content;
pub use crate::demand::Download;
pub use crate::http::encoding::check_encoding;
use crate::http::ranged;
pub use crate::incoming::{BodyPieces, Incoming};
pub use crate::names::{check_new, is_reserved};
pub use crate::pins::Intake;
pub use crate::query::Query;
pub use crate::registry::digest_of;
use crate::{Registry, RegistryError};

/// The answer to `GET` or `HEAD` of a file: whole or a range, as its headers ask.
///
/// # Errors
/// [`RegistryError::Storage`] if the file is gone or corrupt.
pub async fn answer_file(
    content: &Content,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, RegistryError> {
    ranged::answer(content, method, headers).await
}

impl Registry {
    /// The tags of one name with what each pointed to, oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`].
    pub async fn tags_of(&self, name: &str) -> Result<Vec<(ModelRef, Vec<TagEntry>)>, RegistryError> {
        let mut tags = Vec::new();
        for reference in self.metadata().tags_of(name).await? {
            let history = self.metadata().history(&reference).await?;
            tags.push((reference, history));
        }
        Ok(tags)
    }

    /// What the manifests say of a blob.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDigest`]; [`RegistryError::Metadata`].
    pub async fn blob_info(&self, digest: &Digest) -> Result<BlobInfo, RegistryError> {
        let info = self.metadata().blob(digest).await?;
        info.ok_or(RegistryError::UnknownDigest { kind: "blob", digest: *digest })
    }

    /// The newest manifest that has this blob among its files.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`].
    pub async fn manifest_with(
        &self,
        blob: &Digest,
    ) -> Result<Option<(Digest, Arc<Manifest>)>, RegistryError> {
        let Some(digest) = self.metadata().manifest_with(blob).await? else { return Ok(None) };
        Ok(self.load(&digest).await?.map(|manifest| (digest, manifest)))
    }

    /// An intake for one pull or push.
    pub fn intake(&self) -> Arc<Intake> {
        Arc::new(Intake::new(Arc::clone(self.blobs()), Arc::clone(self.pins())))
    }

    /// Bytes that a file of a model may have.
    pub fn file_bytes_max(&self) -> u64 {
        self.config().fetch.file_bytes_max
    }
}
