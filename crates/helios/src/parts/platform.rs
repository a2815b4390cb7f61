//! Everything in one process: registry, a worker for each model, and the proxy in front of them.

use std::sync::Arc;

use helios_api::worker::Worker;
use helios_proxy::{InProcess, Member, Parts, Proxy, ProxyConfig};
use helios_registry::{FromSource, ModelStore, Registry, Resolved};
use helios_runtime::telemetry::Metrics;
use helios_runtime::{Shutdown, Tasks};
use helios_types::ModelRef;
use helios_worker::{Host, Machine};
use tokio::net::TcpListener;

use super::{StoreTexts, mounts};
use crate::config::Config;
use crate::models;

/// A whole Helios, ready to answer.
pub(crate) struct Platform {
    proxy: Proxy,
    hosts: Vec<Served>,
    tasks: Tasks,
    config: Config,
}

/// One model that is served here.
pub(crate) struct Served {
    pub(crate) reference: ModelRef,
    pub(crate) host: Host,
}

impl Platform {
    /// Loads `names`, fetched first where they are not in the store, until each has produced a token.
    pub(crate) async fn start(
        config: &Config,
        registry: Arc<Registry>,
        names: &[String],
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let mut resolved = Vec::new();
        for name in names {
            resolved.push(models::ensure(&registry, name).await?);
        }
        let store = ModelStore::Local(registry.clone());
        let machine = Machine::new(&config.worker, resolved.len())?;
        let mut hosts = Vec::new();
        for model in &resolved {
            let host = Host::start(&machine, models::files(&store, model).await?).await?;
            hosts.push(Served { reference: model.reference.clone(), host });
        }
        let tasks = Tasks::new(Shutdown::default());
        registry.keep_scrubbed(&tasks, Arc::new(FromSource));
        registry.keep_prefetched(&tasks);
        let members = resolved.iter().zip(&hosts).map(|(model, served)| member(model, served)).collect();
        let parts = Parts {
            config: ProxyConfig { models: references(&resolved), ..config.proxy.clone() },
            models: Arc::new(StoreTexts::new(store, &tasks)),
            discovery: Arc::new(InProcess::new(members)),
            metrics,
            mounts: mounts(&registry, config.store.hub_limits()?),
        };
        helios_registry::describe_metrics();
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("announce", async move { registry.announce(&shutdown).await });
        Ok(Self { proxy: Proxy::start(parts, &tasks), hosts, tasks, config: config.clone() })
    }

    /// The models that are served.
    pub(crate) fn served(&self) -> &[Served] {
        &self.hosts
    }

    /// Answers until `shutdown`, then lets open answers end within their grace.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: &Shutdown) {
        let listening = Tasks::new(shutdown.child());
        self.proxy.serve(listener, &listening).await;
        self.tasks.stop(self.config.worker.grace()).await;
        for served in &self.hosts {
            served.host.stop(self.config.worker.grace()).await;
        }
    }
}

fn references(models: &[Resolved]) -> Vec<ModelRef> {
    models.iter().map(|model| model.reference.clone()).collect()
}

fn member(model: &Resolved, served: &Served) -> Member {
    let worker: Arc<dyn Worker> = Arc::new(served.host.clone());
    Member {
        id: served.host.worker_id().to_owned(),
        reference: model.reference.clone(),
        manifest_digest: model.digest,
        worker,
    }
}
