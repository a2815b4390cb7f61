//! A folder for a store, and the tiny models that are put into it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use helios_registry::{FetchConfig, FleetConfig, RebuildProgress, Registry, RegistryConfig, RegistryError};
use tempfile::TempDir;

pub(crate) use crate::tiny::*;

/// A folder for a store and for what is put into it.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        helios_runtime::install_tls_provider();
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) async fn open(&self) -> Arc<Registry> {
        self.open_with(FetchConfig::default()).await
    }

    pub(crate) async fn open_with(&self, fetch: FetchConfig) -> Arc<Registry> {
        let fetch = FetchConfig { stall_timeout: Duration::from_millis(300), ..fetch };
        self.open_in(FleetConfig::default(), fetch).await
    }

    pub(crate) async fn open_in(&self, fleet: FleetConfig, fetch: FetchConfig) -> Arc<Registry> {
        let (gc_grace, members_rebuild) = (Duration::ZERO, Duration::ZERO);
        let config = RegistryConfig { fetch, fleet, gc_grace, members_rebuild, ..RegistryConfig::default() };
        self.open_as(config).await
    }

    /// With a time for which collections spare what was handed out.
    pub(crate) async fn open_with_grace(&self, gc_grace: Duration) -> Arc<Registry> {
        let members_rebuild = Duration::ZERO;
        self.open_as(RegistryConfig { gc_grace, members_rebuild, ..RegistryConfig::default() }).await
    }

    pub(crate) async fn open_as(&self, config: RegistryConfig) -> Arc<Registry> {
        let fetch = FetchConfig {
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(5),
            ..config.fetch
        };
        let config = RegistryConfig { fetch, ..config };
        loop {
            match Registry::open(&self.store(), config.clone()).await {
                // A process that another test has just forked holds our lock until it runs its own program.
                Err(RegistryError::StoreInUse { .. }) => tokio::task::yield_now().await,
                result => return result.expect("the store opens"),
            }
        }
    }

    /// Makes the database again from the files.
    pub(crate) async fn rebuild(&self) -> helios_metadata::Counts {
        self.rebuild_as(&RegistryConfig::default(), |_| {}).await
    }

    /// As [`rebuild`](Self::rebuild), of the database that `config` names, with reports.
    pub(crate) async fn rebuild_as(
        &self,
        config: &RegistryConfig,
        report: impl FnMut(RebuildProgress) + Clone + Send + 'static,
    ) -> helios_metadata::Counts {
        loop {
            match Registry::rebuild(&self.store(), config, report.clone()).await {
                Err(RegistryError::StoreInUse { .. }) => tokio::task::yield_now().await,
                result => return result.expect("rebuilt"),
            }
        }
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        path
    }
}
