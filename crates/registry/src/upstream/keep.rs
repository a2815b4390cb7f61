//! What comes from upstream is kept here.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use helios_model::Manifest;
use helios_storage::{BlobInfo, StorageError};
use helios_types::{Classify, Digest, ErrorCode, ModelRef};

use super::Upstream;
use crate::fetch::{Context, Wanted};
use crate::progress::Reporter;
use crate::{Registry, RegistryError, Resolved};

impl Registry {
    /// The version that a name points to upstream, known here from now on. `missing` is the error if nobody knows it.
    pub(crate) async fn resolve_upstream(
        self: &Arc<Self>,
        model: &ModelRef,
        missing: RegistryError,
    ) -> Result<Resolved, RegistryError> {
        for upstream in self.upstreams() {
            match upstream.resolve(model).await {
                Ok(found) => {
                    let (digest, manifest) = self.add_manifest((*found.manifest).clone()).await?;
                    return self.point(found.reference, digest, manifest, upstream.shown()).await;
                }
                Err(error) if error.code() == ErrorCode::ModelNotFound => {}
                Err(error) => return Err(not_here(format!("model `{model}`"), error)),
            }
        }
        Err(missing)
    }

    /// The manifest of that digest from upstream.
    pub(crate) async fn manifest_upstream(
        self: &Arc<Self>,
        digest: &Digest,
        missing: RegistryError,
    ) -> Result<Arc<Manifest>, RegistryError> {
        for upstream in self.upstreams() {
            match upstream.manifest(digest).await {
                Ok(found) => return Ok(self.add_manifest((*found).clone()).await?.1),
                Err(error) if error.code() == ErrorCode::NotFound => {}
                Err(error) => return Err(not_here(format!("manifest {digest}"), error)),
            }
        }
        Err(missing)
    }

    /// Brings a blob that a manifest names from elsewhere, unless it is here.
    pub(crate) async fn ensure_blob(self: &Arc<Self>, info: &BlobInfo) -> Result<(), RegistryError> {
        if self.blobs().contains(&info.digest) { Ok(()) } else { self.bring_back(*info).await }
    }

    /// Brings all files of a version from elsewhere that are not here.
    pub(crate) async fn ensure_files(self: &Arc<Self>, manifest: &Manifest) -> Result<(), RegistryError> {
        for file in &manifest.files {
            self.ensure_blob(&file.blob).await?;
        }
        Ok(())
    }

    /// Brings a blob that is not here: from upstream, with the fleet, else from the source of a version that has it; boxed,
    /// since a source may itself be a version that has to be brought back.
    pub(crate) fn bring_back(self: &Arc<Self>, info: BlobInfo) -> BoxFuture<'_, Result<(), RegistryError>> {
        let bring = async move {
            let (reporter, _progress) = Reporter::new();
            let context = Context::new(Arc::clone(self), reporter);
            let upstream = context.bring_upstream(&info, &info.digest.to_string()).await;
            let Err(failure) = upstream else { return Ok(()) };
            let refetched = crate::pull::refetch(self, info.digest).await;
            refetched.map_err(|error| if self.upstreams().is_empty() { error } else { failure })
        };
        bring.boxed()
    }
}

impl Context {
    /// A model as upstream has it or fetches it, with all its blobs; `None` if nobody upstream knows it.
    pub(crate) async fn fetch_upstream(
        &self,
        spec: &str,
    ) -> Result<Option<(Digest, Arc<Manifest>, String)>, RegistryError> {
        for upstream in self.registry.upstreams() {
            let Some(found) = self.fetch_from(&**upstream, spec).await? else { continue };
            let (digest, manifest) = self.registry.add_manifest((*found.manifest).clone()).await?;
            for file in &manifest.files {
                self.bring_upstream(&file.blob, &file.path).await?;
            }
            return Ok(Some((digest, manifest, upstream.shown())));
        }
        Ok(None)
    }

    async fn fetch_from(
        &self,
        upstream: &dyn Upstream,
        spec: &str,
    ) -> Result<Option<Resolved>, RegistryError> {
        match upstream.fetch(spec, &self.reporter).await {
            Err(error) if error.code() == ErrorCode::ModelNotFound => Ok(None),
            Err(error) if error.code() == ErrorCode::Unavailable => Err(not_here(format!("`{spec}`"), error)),
            found => found,
        }
    }

    /// Brings a blob from the first upstream that has it.
    async fn bring_upstream(&self, info: &BlobInfo, name: &str) -> Result<(), RegistryError> {
        let mut last = None;
        for upstream in self.registry.upstreams() {
            let origin = upstream.blob(info);
            let tree = if self.shares(info.size) { upstream.tree(info).await } else { None };
            match self.bring(Wanted::of_blob(name, info), tree, &*origin).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        let missing = StorageError::BlobMissing { digest: info.digest };
        Err(last.map_or_else(|| missing.into(), |error| not_here(format!("blob {}", info.digest), error)))
    }
}

/// The error for what is not here while it cannot be asked for elsewhere.
fn not_here(what: String, error: RegistryError) -> RegistryError {
    match error {
        error @ RegistryError::RegistryUnreachable { .. } => {
            RegistryError::UpstreamSilent { what, source: Box::new(error) }
        }
        error => error,
    }
}
