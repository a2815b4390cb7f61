//! The lease at a real registry: it appears, is renewed, survives the registry's restart, and goes away.

use std::net::SocketAddr;
use std::time::Duration;

use helios_registry::{MembersSnapshot, Registry, RegistryClient, RegistryConfig, http};
use helios_runtime::{Clock, Shutdown, Tasks, install_tls_provider};
use helios_worker::{Host, WorkerConfig, keep_lease};
use tokio::net::TcpListener;

use crate::harness::{PATIENCE, config, start, within};

const ADDRESS: &str = "http://127.0.0.1:8101";

/// A registry in a folder of its own, on a port of its own.
struct RegistryServer {
    address: SocketAddr,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

impl RegistryServer {
    async fn start(listener: TcpListener) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let registry = Registry::open(dir.path(), RegistryConfig::default()).await.expect("a registry");
        let address = listener.local_addr().expect("an address");
        let tasks = Tasks::new(Shutdown::default());
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("registry", async move {
            let served = axum::serve(listener, http::router(registry));
            // Ends at once, connections and all, as a killed process does.
            let _ended = shutdown.race(served.into_future()).await;
        });
        Self { address, tasks, _dir: dir }
    }

    fn client(&self) -> RegistryClient {
        install_tls_provider();
        RegistryClient::new(&format!("http://{}", self.address), None).expect("a good address")
    }
}

async fn listener(port: u16) -> TcpListener {
    helios_runtime::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.expect("the port")
}

/// Waits until the list of members satisfies `done`.
async fn members_until(client: &RegistryClient, done: impl Fn(&MembersSnapshot) -> bool) -> MembersSnapshot {
    within(async {
        loop {
            match client.members(None, Duration::ZERO).await {
                Ok(members) if done(&members) => return members,
                _ => Clock.sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

fn keep(host: &Host, client: &RegistryClient, config: WorkerConfig) -> Tasks {
    let tasks = Tasks::new(Shutdown::default());
    let (host, client, shutdown) = (host.clone(), client.clone(), tasks.shutdown().clone());
    tasks.spawn("lease", async move {
        keep_lease(&host, &client, ADDRESS.to_owned(), &config, &shutdown).await;
    });
    tasks
}

fn short_lease() -> WorkerConfig {
    WorkerConfig { lease_ttl_ms: 400, lease_renew_ms: 50, ..config() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_appears_outlives_its_term_and_is_given_back() {
    let (registry, host) = (RegistryServer::start(listener(0).await).await, start().await);
    let client = registry.client();
    let lease = keep(&host, &client, short_lease());
    let members = members_until(&client, |members| !members.workers.is_empty()).await;
    let worker = &members.workers[0];
    assert_eq!((worker.id.as_str(), worker.address.as_str()), (host.worker_id(), ADDRESS));
    assert_eq!(worker.models[0].reference.to_string(), "tiny:test");
    assert_eq!(worker.models[0].manifest, host.manifest());
    assert_eq!(&worker.numerics_id, host.numerics_id());
    // Three terms later it is there only because it was renewed.
    Clock.sleep(Duration::from_millis(1200)).await;
    members_until(&client, |members| members.workers.len() == 1).await;
    // Long terms from here on: that it goes away is not its running out.
    assert!(lease.stop(PATIENCE).await);
    let lease = keep(&host, &client, WorkerConfig { lease_ttl_ms: 60_000, ..short_lease() });
    members_until(&client, |members| members.workers.len() == 1).await;
    assert!(lease.stop(PATIENCE).await);
    let members = client.members(None, Duration::ZERO).await.expect("members");
    assert_eq!(members.workers.len(), 0);
    registry.tasks.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_nobody_renews_runs_out() {
    let (registry, host) = (RegistryServer::start(listener(0).await).await, start().await);
    let client = registry.client();
    let lease = host.lease(ADDRESS.to_owned());
    client.renew(&lease, Duration::from_millis(300)).await.expect("a lease");
    members_until(&client, |members| members.workers.is_empty()).await;
    registry.tasks.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_forgot_everything_hears_of_the_worker_again() {
    let (registry, host) = (RegistryServer::start(listener(0).await).await, start().await);
    let lease = keep(&host, &registry.client(), short_lease());
    members_until(&registry.client(), |members| members.workers.len() == 1).await;
    let port = registry.address.port();
    assert!(registry.tasks.stop(PATIENCE).await);
    drop(registry);
    // Long enough for several renewals to fail.
    Clock.sleep(Duration::from_millis(300)).await;
    let again = RegistryServer::start(listener(port).await).await;
    members_until(&again.client(), |members| members.workers.len() == 1).await;
    assert!(lease.stop(PATIENCE).await);
    again.tasks.stop(PATIENCE).await;
}
