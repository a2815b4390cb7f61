//! The store behind a verb: through the running server if one answers, else opened here under its lock.

use std::sync::Arc;

use helios_model::MemoryProfile;
use helios_registry::{
    ArchiveReport, ArchiveSource, ByteStream, DedupReport, GcReport, ModelSummary, Progress, PushReport,
    Registry, RegistryClient, RegistryError, Resolved, Secret, TagEntry, WarmLevel, WarmRecord,
};
use helios_storage::tiers::TierReport;
use helios_types::{Digest, ModelRef};

use crate::config::Config;
use crate::models;
use crate::server::Server;

/// Where a verb's work is done.
pub(crate) enum Store {
    /// By the server that has the store open.
    Server(RegistryClient),
    /// By this process.
    Here(Arc<Registry>),
}

impl Store {
    /// Finds the server, or opens the store.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        match Server::running().await? {
            Some(server) => {
                let key = server.key().map(|key| Secret::from(key.to_owned()));
                Ok(Self::Server(RegistryClient::new(server.base(), key.as_ref())?))
            }
            None => Ok(Self::Here(models::open_registry_alone(config).await?)),
        }
    }

    /// Every model, by name.
    pub(crate) async fn list(&self) -> Result<Vec<ModelSummary>, RegistryError> {
        match self {
            Self::Server(client) => client.list().await,
            Self::Here(registry) => registry.list().await,
        }
    }

    /// One model, and what its tag pointed to.
    pub(crate) async fn show(&self, model: &ModelRef) -> Result<(Resolved, Vec<TagEntry>), RegistryError> {
        match self {
            Self::Server(client) => client.model(model).await.map(|model| (model.resolved, model.history)),
            Self::Here(registry) => Ok((registry.resolve(model).await?, registry.history(model).await?)),
        }
    }

    /// The memory profile of a version.
    pub(crate) async fn profile(&self, resolved: &Resolved) -> Result<MemoryProfile, RegistryError> {
        match self {
            Self::Server(client) => client.profile(&resolved.digest).await,
            Self::Here(registry) => registry.profile(&resolved.manifest).await,
        }
    }

    /// Fetches a model.
    pub(crate) async fn pull(
        &self,
        spec: &str,
        name: Option<ModelRef>,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Resolved, RegistryError> {
        match self {
            Self::Server(client) => client.pull(spec, name, report).await,
            Self::Here(registry) => registry.pull(spec, name, report).await,
        }
    }

    /// Models as one archive.
    pub(crate) async fn archive(&self, models: &[ModelRef]) -> Result<ArchiveSource, RegistryError> {
        match self {
            Self::Server(client) => Ok(ArchiveSource::Elsewhere(client.clone(), models.to_vec())),
            Self::Here(registry) => Ok(ArchiveSource::Here(registry.archive(models).await?)),
        }
    }

    /// Brings the models of an archive in.
    pub(crate) async fn import_archive(
        &self,
        bytes: ByteStream,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<ArchiveReport, RegistryError> {
        match self {
            Self::Server(client) => client.import_archive(bytes, report).await,
            Self::Here(registry) => registry.import_archive(bytes, report).await,
        }
    }

    /// Gives a model another name.
    pub(crate) async fn tag(&self, from: &ModelRef, to: &ModelRef) -> Result<(), RegistryError> {
        match self {
            Self::Server(client) => client.tag(from, to).await,
            Self::Here(registry) => registry.tag(from, to).await.map(drop),
        }
    }

    /// Points a tag at an earlier version again.
    pub(crate) async fn rollback(
        &self,
        model: &ModelRef,
        to: &str,
    ) -> Result<(ModelRef, Digest), RegistryError> {
        match self {
            Self::Server(client) => client.rollback(model, to).await,
            Self::Here(registry) => {
                let Ok(target) = to.parse();
                let resolved = registry.rollback(model, &target).await?;
                Ok((resolved.reference, resolved.digest))
            }
        }
    }

    /// Removes a tag.
    pub(crate) async fn remove(&self, model: &ModelRef) -> Result<(), RegistryError> {
        match self {
            Self::Server(client) => client.remove(model).await,
            Self::Here(registry) => registry.remove(model).await,
        }
    }

    /// Puts a model into the remote store.
    pub(crate) async fn push(&self, model: &ModelRef) -> Result<PushReport, RegistryError> {
        match self {
            Self::Server(client) => client.push(model).await,
            Self::Here(registry) => registry.push(model).await,
        }
    }

    /// Keeps weight files that share tensors with others as recipes.
    pub(crate) async fn deduplicate(&self) -> Result<DedupReport, RegistryError> {
        match self {
            Self::Server(client) => client.deduplicate().await,
            Self::Here(registry) => registry.deduplicate().await,
        }
    }

    /// The directories with the blobs.
    pub(crate) async fn tiers(&self) -> Result<Vec<TierReport>, RegistryError> {
        match self {
            Self::Server(client) => client.tiers().await,
            Self::Here(registry) => registry.tiers().await,
        }
    }

    /// Which models are near, and why.
    pub(crate) async fn warm(&self) -> Result<Vec<WarmRecord>, RegistryError> {
        match self {
            Self::Server(client) => client.warm(None).await,
            Self::Here(registry) => registry.warm(None).await,
        }
    }

    /// Keeps a model near.
    pub(crate) async fn keep_warm(
        &self,
        model: &ModelRef,
        level: WarmLevel,
    ) -> Result<Vec<WarmRecord>, RegistryError> {
        match self {
            Self::Server(client) => client.keep_warm(model, level).await,
            Self::Here(registry) => registry.keep_warm(model, level).await,
        }
    }

    /// Keeps a model near no more.
    pub(crate) async fn keep_warm_no_more(&self, model: &ModelRef) -> Result<(), RegistryError> {
        match self {
            Self::Server(client) => client.keep_warm_no_more(model).await,
            Self::Here(registry) => registry.keep_warm_no_more(model).await,
        }
    }

    /// Frees what no tag refers to.
    pub(crate) async fn gc(&self) -> Result<GcReport, RegistryError> {
        match self {
            Self::Server(client) => client.gc().await,
            Self::Here(registry) => registry.gc().await,
        }
    }
}
