//! Another registry as parent.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use helios_model::Manifest;
use helios_storage::{BlobInfo, Tree};
use helios_types::{Classify, Digest, ErrorCode, ModelRef};

use super::Upstream;
use crate::progress::Reporter;
use crate::transfer::Origin;
use crate::{RegistryClient, RegistryError, Resolved};

/// A parent registry.
#[derive(Debug)]
pub(crate) struct Parent(pub(crate) RegistryClient);

impl Upstream for Parent {
    fn shown(&self) -> String {
        self.0.base().to_string()
    }

    fn resolve<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Resolved, RegistryError>> {
        self.0.resolve(model).boxed()
    }

    /// A name that the parent knows is taken as it stands there; anything else the parent pulls.
    fn fetch<'a>(
        &'a self,
        spec: &'a str,
        reporter: &'a Reporter,
    ) -> BoxFuture<'a, Result<Option<Resolved>, RegistryError>> {
        async move {
            if let Ok(model) = spec.parse::<ModelRef>() {
                match self.0.resolve(&model).await {
                    Err(error) if error.code() == ErrorCode::ModelNotFound => {}
                    resolved => return resolved.map(Some),
                }
            }
            let mut report = |progress| reporter.forward(progress);
            self.0.pull(spec, None, &mut report).await.map(Some)
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Arc<Manifest>, RegistryError>> {
        self.0.manifest(digest).boxed()
    }

    fn tree<'a>(&'a self, info: &'a BlobInfo) -> BoxFuture<'a, Option<Tree>> {
        let told = |result: Result<Tree, RegistryError>| match result {
            Ok(tree) => Some(tree),
            Err(error) => {
                tracing::info!(%error, digest = %info.digest, "a blob comes without its tree");
                None
            }
        };
        self.0.tree(info).map(told).boxed()
    }

    fn blob(&self, info: &BlobInfo) -> Box<dyn Origin> {
        Box::new(self.0.blob_origin(info.digest))
    }
}
