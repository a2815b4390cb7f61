//! A folder of an object store as a registry that answers no questions: `blobs/sha256/HEX`, `manifests/HEX.json` and
//! `tags/NAME/@TAG.json`, as in a store's own folder. Any number of registries may read it and push to it.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use helios_model::Manifest;
use helios_runtime::Clock;
use helios_storage::{Blob, BlobInfo, Tree};
use helios_types::{Digest, ModelRef};
use serde::{Deserialize, Serialize};

use super::Upstream;
use crate::elsewhere::PUSHED;
use crate::object::Bucket;
use crate::progress::Reporter;
use crate::transfer::Origin;
use crate::{Registry, RegistryError, Resolved, TagEntry, catalogue, registry};

/// Bytes of a manifest or of a tag's history.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// A remote store.
#[derive(Debug)]
pub(crate) struct Remote(pub(crate) Bucket);

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReport {
    /// Blobs that went up.
    pub blobs_pushed: usize,
    /// Blobs that were there already.
    pub blobs_there: usize,
    /// Bytes that went up.
    pub bytes_pushed: u64,
}

impl Remote {
    async fn history(&self, model: &ModelRef) -> Result<Vec<TagEntry>, RegistryError> {
        let file = self.0.file(&tag_name(model));
        let Some(bytes) = file.read(DOCUMENT_BYTES_MAX).await? else { return Ok(Vec::new()) };
        serde_json::from_slice(&bytes).map_err(|error| RegistryError::InvalidManifest {
            subject: file.shown(),
            problem: error.to_string(),
        })
    }

    async fn manifest_of(&self, digest: &Digest) -> Result<Arc<Manifest>, RegistryError> {
        let bytes = self.0.file(&manifest_name(digest)).read(DOCUMENT_BYTES_MAX).await?;
        let bytes = bytes.ok_or(RegistryError::UnknownDigest { kind: "manifest", digest: *digest })?;
        registry::parse_manifest(digest, &bytes).map(Arc::new)
    }

    async fn find(&self, model: &ModelRef) -> Result<Resolved, RegistryError> {
        let default = catalogue::find(model).map(catalogue::CatalogueModel::reference);
        for reference in std::iter::once(model.clone()).chain(default) {
            if let Some(entry) = self.history(&reference).await?.pop() {
                let manifest = self.manifest_of(&entry.digest).await?;
                return Ok(Resolved { reference, digest: entry.digest, manifest });
            }
        }
        let hint = format!("`helios push` puts models into {}", self.0.shown());
        Err(RegistryError::ModelNotFound { model: model.to_string(), suggestion: None, hint })
    }

    /// Blobs first, the tag last: what a tag names is there.
    async fn push(&self, registry: &Arc<Registry>, resolved: &Resolved) -> Result<PushReport, RegistryError> {
        let mut report = PushReport::default();
        for file in &resolved.manifest.files {
            let object = self.0.file(&blob_name(&file.blob.digest));
            if object.size().await? == Some(file.blob.size) {
                report.blobs_there += 1;
                continue;
            }
            object.write(registry.file(file).await?).await?;
            report.blobs_pushed += 1;
            report.bytes_pushed += file.blob.size;
        }
        let manifest = resolved.manifest.to_bytes();
        self.0.file(&manifest_name(&resolved.digest)).write(Blob::from_vec(manifest)).await?;
        let mut history = self.history(&resolved.reference).await?;
        if history.last().is_none_or(|last| last.digest != resolved.digest) {
            let source = resolved.reference.to_string();
            history.push(TagEntry { digest: resolved.digest, at: Clock.unix_ms(), source });
            let bytes = serde_json::to_vec(&history).expect("invariant: a history has only string keys");
            self.0.file(&tag_name(&resolved.reference)).write(Blob::from_vec(bytes)).await?;
        }
        Ok(report)
    }
}

impl Registry {
    /// Puts a model into the remote store: the blobs that are not there, the manifest, and its name. Two who push one
    /// name at the same moment leave one of both; neither leaves a name without its files.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] without a remote store; [`RegistryError::ModelNotFound`]; what the store says.
    pub async fn push(self: &Arc<Self>, model: &ModelRef) -> Result<PushReport, RegistryError> {
        let remote = super::open_remote(self.config())?.ok_or_else(|| {
            registry::invalid_request(
                "there is no remote store to push to\nhint: set store.remote to s3://BUCKET/FOLDER",
            )
        })?;
        let resolved = self.resolve(model).await?;
        let report = remote.push(self, &resolved).await?;
        // The push is done and stays so: without its record the weights only keep their last copy here after a restart.
        if let Err(error) = self.put_record(PUSHED, &resolved.digest.to_string(), &Clock.unix_ms()).await {
            tracing::warn!(digest = %resolved.digest, %error, "it is not remembered that a version was pushed");
        }
        self.note_elsewhere(resolved.digest, &resolved.manifest, "", true);
        Ok(report)
    }
}

impl Upstream for Remote {
    fn shown(&self) -> String {
        self.0.shown().to_owned()
    }

    fn resolve<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Resolved, RegistryError>> {
        self.find(model).boxed()
    }

    /// Only what is there under a name: it fetches nothing itself.
    fn fetch<'a>(
        &'a self,
        spec: &'a str,
        _reporter: &'a Reporter,
    ) -> BoxFuture<'a, Result<Option<Resolved>, RegistryError>> {
        async move {
            match spec.parse::<ModelRef>() {
                Ok(model) => self.find(&model).await.map(Some),
                Err(_) => Ok(None),
            }
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Arc<Manifest>, RegistryError>> {
        self.manifest_of(digest).boxed()
    }

    fn tree<'a>(&'a self, _info: &'a BlobInfo) -> BoxFuture<'a, Option<Tree>> {
        std::future::ready(None).boxed()
    }

    fn blob(&self, info: &BlobInfo) -> Box<dyn Origin> {
        Box::new(self.0.file(&blob_name(&info.digest)))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn manifest_name(digest: &Digest) -> String {
    format!("manifests/{}.json", digest.hex())
}

fn tag_name(model: &ModelRef) -> String {
    format!("tags/{}/@{}.json", model.name(), model.tag())
}
