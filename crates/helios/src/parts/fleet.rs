//! The workers that hold a lease at a registry elsewhere, as the proxy wants them.
//!
//! While the registry is out of reach, and while a registry that has just started still waits for renewals, no list
//! comes, so that the last one stays in force.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use helios_api::worker::{GrpcWorker, GrpcWorkerOptions, Worker, WorkerError};
use helios_proxy::{Discovery, Member};
use helios_registry::{LeasedModel, MembersSnapshot, RegistryClient, RegistryError, WorkerLease};
use helios_runtime::Clock;

/// How long one question to the registry stays open.
const WAIT: Duration = Duration::from_secs(20);
/// How long a registry that cannot be reached is left alone.
const PAUSE: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pings go out this often, and a worker that leaves one unanswered as long is gone: 1.4 s at most, so that it stops
/// getting requests within 2 s.
const KEEP_ALIVE: Duration = Duration::from_millis(700);

/// Follows a registry's list of members.
pub(crate) struct RegistryFleet {
    registry: RegistryClient,
    cluster_token: Option<String>,
}

impl RegistryFleet {
    pub(crate) fn new(registry: RegistryClient, cluster_token: Option<String>) -> Self {
        Self { registry, cluster_token }
    }
}

impl Discovery for RegistryFleet {
    fn lists(&self) -> BoxStream<'static, Vec<Member>> {
        let follower = Follower {
            registry: self.registry.clone(),
            cluster_token: self.cluster_token.clone(),
            seen: None,
            known: HashMap::new(),
        };
        stream::unfold(follower, |mut follower| async move {
            let list = follower.next().await;
            Some((list, follower))
        })
        .boxed()
    }
}

struct Follower {
    registry: RegistryClient,
    cluster_token: Option<String>,
    seen: Option<u64>,
    /// Connections by worker id and address: the same worker keeps the same one.
    known: HashMap<(String, String), Arc<dyn Worker>>,
}

impl Follower {
    /// The next list that counts.
    async fn next(&mut self) -> Vec<Member> {
        loop {
            match self.registry.members(self.seen, WAIT).await {
                Ok(snapshot) if self.is_news(&snapshot) => return self.members(&snapshot),
                Ok(_) => {}
                Err(error) => self.pause(&error).await,
            }
        }
    }

    fn is_news(&mut self, snapshot: &MembersSnapshot) -> bool {
        let is_first = self.seen.is_none();
        let is_new = self.seen.replace(snapshot.version) != Some(snapshot.version);
        is_first || (is_new && !snapshot.rebuilding)
    }

    async fn pause(&self, error: &RegistryError) {
        tracing::warn!(%error, "the registry is out of reach; the list of workers stays as it is");
        Clock.sleep(PAUSE).await;
    }

    fn members(&mut self, snapshot: &MembersSnapshot) -> Vec<Member> {
        let mut members = Vec::new();
        let mut known = HashMap::new();
        for lease in &snapshot.workers {
            match self.connection(lease) {
                Ok(worker) => {
                    let models = lease.models.iter();
                    members.extend(models.map(|model| member(lease, model, worker.clone())));
                    known.insert((lease.id.clone(), lease.address.clone()), worker);
                }
                Err(error) => tracing::warn!(worker = lease.id, %error, "a worker's address cannot be used"),
            }
        }
        self.known = known;
        members
    }

    fn connection(&self, lease: &WorkerLease) -> Result<Arc<dyn Worker>, WorkerError> {
        if let Some(worker) = self.known.get(&(lease.id.clone(), lease.address.clone())) {
            return Ok(worker.clone());
        }
        let worker = GrpcWorker::new(&GrpcWorkerOptions {
            address: lease.address.clone(),
            cluster_token: self.cluster_token.clone(),
            connect_timeout: CONNECT_TIMEOUT,
            keep_alive: KEEP_ALIVE,
        })?;
        Ok(Arc::new(worker))
    }
}

fn member(lease: &WorkerLease, model: &LeasedModel, worker: Arc<dyn Worker>) -> Member {
    Member {
        id: lease.id.clone(),
        reference: model.reference.clone(),
        manifest_digest: model.manifest,
        worker,
    }
}
