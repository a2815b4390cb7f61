//! Models of the store in this process: opened, fetched if need be.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use helios_engine::Model;
use helios_model::Role;
use helios_registry::{
    FetchConfig, FleetConfig, MetadataConfig, ModelStore, ObjectOptions, Registry, RegistryConfig, Resolved,
    ScrubConfig, Secret, Source,
};
use helios_types::{Classify, Digest, ErrorCode, ModelRef};
use helios_worker::{ModelFiles, WorkerConfig};

use crate::config::Config;
use crate::environment;
use crate::progress::PullProgress;

/// Whether a text names a source instead of a model.
pub(crate) fn is_source(text: &str) -> bool {
    Source::has_scheme(text)
}

/// Opens the store under its lock.
pub(crate) async fn open_registry(config: &Config) -> anyhow::Result<Arc<Registry>> {
    Ok(Registry::open(config.store_dir()?, registry_config(config)?).await?)
}

/// As [`open_registry`], for a process that answers nobody: no worker could renew its lease with it, so that a collection need
/// not wait for that. Who maps files of this host is known from the store.
pub(crate) async fn open_registry_alone(config: &Config) -> anyhow::Result<Arc<Registry>> {
    let alone = RegistryConfig { members_rebuild: Duration::ZERO, ..registry_config(config)? };
    Ok(Registry::open(config.store_dir()?, alone).await?)
}

/// What the registry needs of the configuration.
pub(crate) fn registry_config(config: &Config) -> anyhow::Result<RegistryConfig> {
    let defaults = FetchConfig::default();
    let hub_url = config.store.hf_endpoint.clone().unwrap_or(defaults.hub_url.clone());
    let hub_token = config.store.hf_token.clone().map(Secret::from);
    let members_rebuild = Duration::from_millis(WorkerConfig::default().lease_ttl_ms * 2);
    let object_options = ObjectOptions::new(environment::object_stores());
    let fleet = FleetConfig {
        parent: config.store.parent.clone(),
        peers: config.store.peers.clone(),
        advertise: config.store.advertise.clone(),
        token: config.store.fleet_token.clone().map(Secret::from),
        remote: config.store.remote.clone(),
    };
    let metadata =
        config.store.metadata.as_deref().map_or(Ok(MetadataConfig::default()), MetadataConfig::parse)?;
    Ok(RegistryConfig {
        metadata,
        fleet,
        fetch: FetchConfig { hub_url, hub_token, object_options, ..defaults },
        members_rebuild,
        tiers: config.store.tier_directories(config.store_dir()?)?,
        deduplicate: config.store.deduplicate,
        prefetch: config.store.prefetch.into(),
        scrub: ScrubConfig {
            bytes_per_second: config.store.scrub.mb_per_second.saturating_mul(1_000_000),
            period: Duration::from_secs(config.store.scrub.period_days.saturating_mul(24 * 3600)),
        },
        ..RegistryConfig::default()
    })
}

/// The version that `name` means in the store; fetched first, with a progress bar, if it is not there.
pub(crate) async fn ensure(registry: &Arc<Registry>, name: &str) -> anyhow::Result<Resolved> {
    let reference = match name.parse::<Source>() {
        Ok(source) if is_source(name) => source.default_name()?,
        _ => name.parse::<ModelRef>()?,
    };
    match registry.resolve(&reference).await {
        Ok(resolved) => Ok(resolved),
        Err(error) if error.code() == ErrorCode::ModelNotFound => {
            let mut progress = PullProgress::new();
            let pulled = registry.pull(name, None, &mut |report| progress.report(&report)).await;
            progress.finish();
            pulled.with_context(|| format!("fetching {name} failed"))
        }
        Err(error) => Err(error.into()),
    }
}

/// A model of the store, its files opened and verified.
pub(crate) struct Opened {
    registry: Arc<Registry>,
    resolved: Resolved,
    files: ModelFiles,
}

/// Opens `name`, fetched first if it is not there.
pub(crate) async fn open(config: &Config, name: &str) -> anyhow::Result<Opened> {
    let registry = open_registry_alone(config).await?;
    let resolved = ensure(&registry, name).await?;
    let files = files(&ModelStore::Local(registry.clone()), &resolved).await?;
    Ok(Opened { registry, resolved, files })
}

/// The files of one version, from wherever the store is.
pub(crate) async fn files(store: &ModelStore, resolved: &Resolved) -> anyhow::Result<ModelFiles> {
    Ok(ModelFiles::open(store, resolved).await?)
}

impl Opened {
    /// The model, ready to compute. Blocks.
    pub(crate) fn load(&self) -> anyhow::Result<Arc<Model>> {
        Ok(Arc::new(self.files.weights.clone().parse()?))
    }

    /// Digest of the manifest.
    pub(crate) fn digest(&self) -> Digest {
        self.resolved.digest
    }

    /// The file with the weights, for programs that want a path.
    pub(crate) fn weights_path(&self) -> anyhow::Result<PathBuf> {
        let file = self.resolved.manifest.required(Role::Weights)?;
        let path = self.registry.blobs().path(&file.blob.digest);
        path.with_context(|| {
            format!("{} is not kept as one file: `helios dedup` made a recipe of it", file.path)
        })
    }
}
