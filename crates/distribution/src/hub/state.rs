//! What the calls share, and what most of them begin with: a repository, a version of it, its files.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use helios_model::{FileEntry, Manifest, is_derived};
use helios_registry::protocol::BodyPieces;
use helios_registry::{Registry, RegistryError};
use helios_types::{Digest, ModelRef};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::error::HubError;
use crate::names;
use crate::versions::{Versions, commit_of};

/// Bytes of a JSON body: lists of files, each with a sample.
const JSON_BYTES_MAX: usize = 16 << 20;

/// Bounds that an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a file that travels inside a commit; larger ones go by LFS.
    pub commit_file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { commit_file_bytes: 512 << 20 }
    }
}

/// The protocol over one registry.
pub(super) struct Hub {
    pub(super) registry: Arc<Registry>,
    pub(super) limits: Limits,
    /// Commits are made one after the other: each builds on what its parent is at that moment.
    pub(super) commits: Mutex<()>,
}

/// One version of a repository.
pub(super) struct Version {
    pub(super) digest: Digest,
    pub(super) manifest: Arc<Manifest>,
    /// A name that points to it now, if one does.
    pub(super) model: Option<ModelRef>,
    /// When a tag was moved there, in milliseconds since 1970.
    pub(super) at: u64,
}

impl Hub {
    pub(super) fn new(registry: Arc<Registry>, limits: Limits) -> Self {
        Self { registry, limits, commits: Mutex::default() }
    }

    /// The versions of a repository.
    pub(super) async fn versions(&self, repository: &str) -> Result<Versions, HubError> {
        let versions = Versions::of(&self.registry, names::model_name(repository)).await?;
        versions.ok_or_else(|| HubError::no_repository(repository))
    }

    /// One version of a repository.
    pub(super) async fn version(&self, repository: &str, revision: &str) -> Result<Version, HubError> {
        let versions = self.versions(repository).await?;
        let entry = versions.find(revision).ok_or_else(|| HubError::no_revision(repository, revision))?;
        let manifest = self.registry.manifest(&entry.digest).await?;
        let model = versions.current().find(|(_, current)| current.digest == entry.digest);
        let model = model.map(|(reference, _)| reference.clone());
        Ok(Version { digest: entry.digest, manifest, model, at: entry.at })
    }
}

impl Version {
    /// Its commit.
    pub(super) fn commit(&self) -> String {
        commit_of(&self.digest)
    }

    /// The files it came with.
    pub(super) fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.manifest.files.iter().filter(|file| !is_derived(&file.path))
    }

    /// One of them.
    pub(super) fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files().find(|file| file.path == path)
    }

    /// The header that names the commit in every answer about files.
    pub(super) fn header(&self) -> (HeaderName, HeaderValue) {
        let commit = HeaderValue::from_str(&self.commit()).expect("invariant: hex digits are ASCII");
        (HeaderName::from_static("x-repo-commit"), commit)
    }
}

/// A body of JSON.
pub(super) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, HubError> {
    let body = BodyPieces::of(request.into_body()).whole(JSON_BYTES_MAX).await?;
    serde_json::from_slice(&body)
        .map_err(|error| HubError::bad_request(format!("the body is not what this call takes: {error}")))
}

/// The raw body of a call whose form is its own.
pub(super) async fn body(request: Request) -> Result<bytes::Bytes, RegistryError> {
    BodyPieces::of(request.into_body()).whole(JSON_BYTES_MAX).await
}

/// The address under which the client called, `http://HOST:PORT`; what it gets back begins with it.
pub(super) fn base(headers: &HeaderMap) -> String {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = match text(HeaderName::from_static("x-forwarded-proto")) {
        Some("https") => "https",
        _ => "http",
    };
    format!("{scheme}://{}", text(HOST).unwrap_or("127.0.0.1"))
}

/// The bearer's key that came with the request.
pub(super) fn key(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
