//! Where a registry looks for what it does not have: its parent, then its remote store.
//!
//! What comes from there stays: manifests and tags at once, blobs when they are read or pulled. A name that is known here
//! is answered from here; `pull` asks again. While a source is out of reach, what is here keeps working.

mod keep;
mod parent;
mod remote;

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use helios_model::Manifest;
use helios_storage::{BlobInfo, Tree};
use helios_types::{Digest, ModelRef};

use parent::Parent;
pub use remote::PushReport;
use remote::Remote;

use crate::object::Bucket;
use crate::progress::Reporter;
use crate::transfer::Origin;
use crate::{RegistryClient, RegistryConfig, RegistryError, Resolved, Source};

/// The places of a configuration, in the order they are asked.
///
/// # Errors
/// [`RegistryError::InvalidRequest`] for an address that is none.
pub(crate) fn open(config: &RegistryConfig, id: &str) -> Result<Vec<Arc<dyn Upstream>>, RegistryError> {
    let fleet = &config.fleet;
    let mut upstreams: Vec<Arc<dyn Upstream>> = Vec::new();
    if let Some(parent) = &fleet.parent {
        upstreams.push(Arc::new(Parent(RegistryClient::of_child(parent, fleet.token.as_ref(), id)?)));
    }
    if let Some(remote) = open_remote(config)? {
        upstreams.push(Arc::new(remote));
    }
    Ok(upstreams)
}

/// The remote store of a configuration.
fn open_remote(config: &RegistryConfig) -> Result<Option<Remote>, RegistryError> {
    let Some(text) = &config.fleet.remote else { return Ok(None) };
    match text.parse()? {
        Source::Object(url) => Ok(Some(Remote(Bucket::open(&url, &config.fetch)?))),
        _ => Err(RegistryError::invalid_source(text, "a remote store is s3://, gs:// or az://")),
    }
}

/// A place that has models as a registry has them: names, manifests, blobs by digest.
pub(crate) trait Upstream: Debug + Send + Sync {
    /// Its address, as errors, logs and tag histories may show it.
    fn shown(&self) -> String;

    /// The version that a name points to there.
    ///
    /// # Errors
    /// With the code `model_not_found` if it does not know the name.
    fn resolve<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Resolved, RegistryError>>;

    /// Has it fetch a model from a source or its catalogue; `None` if it does not fetch.
    ///
    /// # Errors
    /// What it says.
    fn fetch<'a>(
        &'a self,
        spec: &'a str,
        reporter: &'a Reporter,
    ) -> BoxFuture<'a, Result<Option<Resolved>, RegistryError>>;

    /// The tree that ranges of a blob are checked against, where it is to be had.
    fn tree<'a>(&'a self, info: &'a BlobInfo) -> BoxFuture<'a, Option<Tree>>;

    /// The manifest of that digest.
    ///
    /// # Errors
    /// With the code `not_found` if it has none.
    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Arc<Manifest>, RegistryError>>;

    /// Where a blob is to be had.
    fn blob(&self, info: &BlobInfo) -> Box<dyn Origin>;
}
