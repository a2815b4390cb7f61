//! The workers that hold a lease at a registry elsewhere, as the proxy wants them.
//!
//! While the registry is out of reach, no list comes, so that the last one stays in force. A registry that has just
//! started still waits for renewals: until then its lists add workers and remove none.

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
            leases: Vec::new(),
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
    /// The leases that count.
    leases: Vec<WorkerLease>,
    /// Connections by worker id and address: the same worker keeps the same one.
    known: HashMap<(String, String), Arc<dyn Worker>>,
}

impl Follower {
    /// The next list.
    async fn next(&mut self) -> Vec<Member> {
        loop {
            match self.registry.members(self.seen, WAIT).await {
                Ok(snapshot) if self.seen.replace(snapshot.version) != Some(snapshot.version) => {
                    self.leases = merged(&self.leases, &snapshot);
                    return self.members();
                }
                Ok(_) => {}
                Err(error) => self.pause(&error).await,
            }
        }
    }

    async fn pause(&self, error: &RegistryError) {
        tracing::warn!(%error, "the registry is out of reach; the list of workers stays as it is");
        Clock.sleep(PAUSE).await;
    }

    fn members(&mut self) -> Vec<Member> {
        let mut members = Vec::new();
        let mut known = HashMap::new();
        for lease in &self.leases {
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

/// The leases that count after `snapshot`: its own, and while it may be incomplete those from before.
fn merged(before: &[WorkerLease], snapshot: &MembersSnapshot) -> Vec<WorkerLease> {
    let is_gone = |lease: &&WorkerLease| !snapshot.workers.iter().any(|worker| worker.id == lease.id);
    let kept = before.iter().filter(|lease| snapshot.rebuilding && is_gone(lease));
    snapshot.workers.iter().chain(kept).cloned().collect()
}

fn member(lease: &WorkerLease, model: &LeasedModel, worker: Arc<dyn Worker>) -> Member {
    Member {
        id: lease.id.clone(),
        reference: model.reference.clone(),
        manifest_digest: model.manifest,
        worker,
    }
}

#[cfg(test)]
mod tests {
    use helios_registry::{MembersSnapshot, WorkerLease, WorkerRole};

    use super::merged;

    fn lease(id: &str) -> WorkerLease {
        let (id, address) = (id.to_owned(), "http://127.0.0.1:1".to_owned());
        let numerics_id = "any".to_owned().into();
        WorkerLease { id, address, models: Vec::new(), role: WorkerRole::Unified, numerics_id }
    }

    #[test]
    fn a_registry_that_rebuilds_adds_workers_and_removes_none() {
        let before = [lease("a"), lease("b")];
        let ids = |rebuilding| {
            let snapshot = MembersSnapshot { version: 1, rebuilding, workers: vec![lease("b"), lease("c")] };
            merged(&before, &snapshot).iter().map(|lease| lease.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(true), ["b", "c", "a"]);
        assert_eq!(ids(false), ["b", "c"]);
    }
}
