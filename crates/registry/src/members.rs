//! Who serves what right now: leases of workers, in memory.
//!
//! A lease ends by itself unless it is renewed. After a restart of the registry the list is empty until the workers
//! have renewed; until then snapshots say [`rebuilding`](MembersSnapshot::rebuilding), so that nobody mistakes an
//! incomplete list for a fleet that is gone, and nothing is collected or leaves.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helios_runtime::{Clock, Instant};
use helios_types::{Digest, ErrorCode, ModelRef, NumericsId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::RegistryError;

/// Longest lease; a worker that wants to live longer renews.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(60);

/// Workers of one registry.
const WORKERS_MAX: usize = 10_000;
/// Models of one worker.
const MODELS_MAX: usize = 64;
/// Bytes of a worker's id and address.
const TEXT_BYTES_MAX: usize = 500;

/// What a worker does of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerRole {
    /// Prefill and decode.
    #[default]
    Unified,
    /// Prefill only.
    Prefill,
    /// Decode only.
    Decode,
}

/// A model that a worker serves or is about to load.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeasedModel {
    /// The name it is served under.
    pub reference: ModelRef,
    /// The version; its files are safe from garbage collection while the lease lives.
    pub manifest: Digest,
}

/// What a worker says about itself when it renews.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkerLease {
    /// Its name, unique in the fleet.
    pub id: String,
    /// Where proxies reach it, such as `http://127.0.0.1:8101`.
    pub address: String,
    /// What it serves.
    pub models: Vec<LeasedModel>,
    /// What it does of a request.
    #[serde(default)]
    pub role: WorkerRole,
    /// The name of its arithmetic.
    pub numerics_id: NumericsId,
}

/// The live workers at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersSnapshot {
    /// Changes whenever anything else here does; never goes back, not even over a restart.
    pub version: u64,
    /// Whether the registry started so recently that workers may not have renewed yet.
    pub rebuilding: bool,
    /// The workers, ordered by id.
    pub workers: Vec<WorkerLease>,
}

/// The leases.
#[derive(Debug)]
pub struct Members {
    state: Mutex<State>,
    /// The state's version, for those who wait for the next.
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    version: u64,
    /// The end of rebuilding, until it is reached.
    rebuilt_at: Option<Instant>,
    leases: BTreeMap<String, Lease>,
}

#[derive(Debug)]
struct Lease {
    worker: WorkerLease,
    ends_at: Instant,
}

impl Members {
    /// No members yet; `rebuild` is how long that may be an effect of a restart.
    pub fn new(rebuild: Duration) -> Self {
        // Milliseconds since 1970 plus changes: larger than every version of an earlier start, as long as changes
        // come more slowly than a thousand a second.
        let version = Clock.unix_ms();
        let rebuilt_at = Some(Clock.now() + rebuild);
        let state = State { version, rebuilt_at, leases: BTreeMap::new() };
        Self { state: Mutex::new(state), version: watch::Sender::new(version) }
    }

    /// Begins or renews a lease; what the worker says replaces what it said before.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] for a lease over the bounds, or when there are too many workers.
    pub fn renew(&self, worker: WorkerLease, ttl: Duration) -> Result<(), RegistryError> {
        validate(&worker)?;
        let now = Clock.now();
        self.with_state(|state| {
            if state.leases.len() >= WORKERS_MAX && !state.leases.contains_key(&worker.id) {
                return Err(RegistryError::InvalidRequest {
                    problem: format!("there are {WORKERS_MAX} workers already"),
                    code: ErrorCode::Overloaded,
                });
            }
            let ends_at = now + ttl.min(LEASE_TTL_MAX);
            match state.leases.get_mut(&worker.id) {
                Some(lease) if lease.worker == worker => lease.ends_at = ends_at,
                _ => {
                    let id = worker.id.clone();
                    state.leases.insert(id, Lease { worker, ends_at });
                    state.version += 1;
                }
            }
            Ok(())
        })
    }

    /// Ends a lease. Returns whether there was one.
    pub fn leave(&self, id: &str) -> bool {
        self.with_state(|state| {
            let left = state.leases.remove(id).is_some();
            state.version += u64::from(left);
            left
        })
    }

    /// The live workers.
    pub fn snapshot(&self) -> MembersSnapshot {
        self.with_state(|state| state.snapshot())
    }

    /// Waits until the version is another than `seen`, and returns the live workers.
    pub async fn changed(&self, seen: u64) -> MembersSnapshot {
        let mut version = self.version.subscribe();
        loop {
            version.mark_unchanged();
            let (snapshot, next_change) = self.with_state(|state| (state.snapshot(), state.next_change()));
            if snapshot.version != seen {
                return snapshot;
            }
            let renewed = async { version.changed().await.is_ok() };
            match next_change {
                Some(at) => drop(Clock.timeout(at.saturating_duration_since(Clock.now()), renewed).await),
                None => drop(renewed.await),
            }
        }
    }

    /// Waits until workers that were here before a restart had time to renew.
    pub async fn rebuilt(&self) {
        let mut snapshot = self.snapshot();
        while snapshot.rebuilding {
            snapshot = self.changed(snapshot.version).await;
        }
    }

    /// The manifests that live leases hold.
    pub fn leased_manifests(&self) -> HashSet<Digest> {
        let workers = self.snapshot().workers;
        workers.iter().flat_map(|worker| &worker.models).map(|model| model.manifest).collect()
    }

    /// Runs `work` on the state after everything whose time has come has happened, and tells those who wait.
    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.advance(Clock.now());
        let result = work(&mut state);
        let version = state.version;
        self.version.send_if_modified(|sent| std::mem::replace(sent, version) != version);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends leases and rebuilding whose time has come.
    fn advance(&mut self, now: Instant) {
        let before = self.leases.len();
        self.leases.retain(|_, lease| lease.ends_at > now);
        let rebuilt = self.rebuilt_at.is_some_and(|at| at <= now);
        if rebuilt {
            self.rebuilt_at = None;
        }
        self.version += u64::from(rebuilt || self.leases.len() != before);
    }

    /// When time alone changes the state next.
    fn next_change(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.ends_at).chain(self.rebuilt_at).min()
    }

    fn snapshot(&self) -> MembersSnapshot {
        MembersSnapshot {
            version: self.version,
            rebuilding: self.rebuilt_at.is_some(),
            workers: self.leases.values().map(|lease| lease.worker.clone()).collect(),
        }
    }
}

fn validate(worker: &WorkerLease) -> Result<(), RegistryError> {
    let invalid =
        |problem: String| RegistryError::InvalidRequest { problem, code: ErrorCode::InvalidRequest };
    for (field, text) in [("id", &worker.id), ("address", &worker.address)] {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) {
            return Err(invalid(format!(
                "`{field}` of a lease has 1 to {TEXT_BYTES_MAX} printable characters"
            )));
        }
    }
    if worker.models.len() > MODELS_MAX {
        return Err(invalid(format!("{} models in a lease, at most {MODELS_MAX}", worker.models.len())));
    }
    Ok(())
}
