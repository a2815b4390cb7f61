//! One registry as a node of its fleet: whom it asks, what it shares, whom it leaves alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helios_runtime::{Clock, Instant};
use helios_types::Digest;

use super::wire::{Ask, Holdings, Place};
use super::{Share, Tracker};
use crate::{FleetConfig, RegistryClient, RegistryError};

/// How long a peer that lied or failed is left alone.
const DROP_TIME: Duration = Duration::from_secs(30);
/// How long a tracker has for an answer, which takes it microseconds.
const TRACKER_WAIT_MAX: Duration = Duration::from_secs(3);
/// Downloads remembered at a time; the oldest goes when there are more.
const SHARES_MAX: usize = 256;
/// Peers left alone at a time; more than that and the origin is the better choice.
const DROPPED_MAX: usize = 64;

/// What a registry knows of its fleet.
#[derive(Debug)]
pub(crate) struct Swarm {
    config: FleetConfig,
    tracker: Tracker,
    /// Blobs being fetched, and those fetched lately, which no manifest may name yet.
    shares: Mutex<HashMap<Digest, (Instant, Arc<Share>)>>,
    /// Clients of peers, by address.
    clients: Mutex<HashMap<String, RegistryClient>>,
    /// Peers to be left alone, until when.
    dropped: Mutex<HashMap<String, Instant>>,
}

impl Swarm {
    pub(crate) fn new(config: FleetConfig) -> Self {
        let (tracker, shares) = (Tracker::default(), Mutex::default());
        Self { config, tracker, shares, clients: Mutex::default(), dropped: Mutex::default() }
    }

    /// Whether there is anybody to share with.
    pub(crate) fn is_alone(&self) -> bool {
        self.config.parent.is_none() && self.config.peers.is_empty()
    }

    pub(crate) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Shares a blob that is being fetched, or just was.
    pub(crate) fn begin(&self, digest: Digest, share: Arc<Share>) {
        let mut shares = lock(&self.shares);
        if shares.len() >= SHARES_MAX
            && let Some(oldest) =
                shares.iter().min_by_key(|(_, (since, _))| *since).map(|(digest, _)| *digest)
        {
            shares.remove(&oldest);
        }
        shares.insert(digest, (Clock.now(), share));
    }

    /// The blob's download, if it is being fetched or was lately.
    pub(crate) fn share(&self, digest: &Digest) -> Option<Arc<Share>> {
        lock(&self.shares).get(digest).map(|(_, share)| Arc::clone(share))
    }

    /// Shares a blob no more.
    pub(crate) fn forget(&self, digest: &Digest) {
        lock(&self.shares).remove(digest);
    }

    /// Asks the blob's tracker; `None` if none answers.
    pub(crate) async fn ask(&self, digest: Digest, ask: Ask) -> Option<Place> {
        let ask = Ask { node: self.config.advertise.clone(), avoid: self.dropped(), ..ask };
        for address in self.trackers(&digest) {
            if Some(&address) == self.config.advertise.as_ref() {
                return self.tracker.ask(digest, &ask).ok();
            }
            if ask.avoid.contains(&address) {
                continue;
            }
            let answer = match self.client(&address) {
                Ok(client) => Clock.timeout(TRACKER_WAIT_MAX, client.ask_tracker(&digest, &ask)).await,
                Err(error) => Ok(Err(error)),
            };
            match answer.unwrap_or_else(|_elapsed| Err(silent(&address))) {
                Ok(place) => return Some(place),
                Err(error) => self.leave_alone(&address, &error),
            }
        }
        None
    }

    /// Tells every tracker which blobs are here whole.
    pub(crate) async fn announce(&self, blobs: &[Digest]) {
        let Some(node) = &self.config.advertise else { return };
        let mut by_tracker: HashMap<String, Vec<Digest>> = HashMap::new();
        for digest in blobs {
            if let Some(tracker) = self.trackers(digest).into_iter().next() {
                by_tracker.entry(tracker).or_default().push(*digest);
            }
        }
        for (address, blobs) in by_tracker {
            let holdings = Holdings { node: node.clone(), blobs };
            let told = match self.client(&address) {
                Ok(_) if address == *node => self.tracker.hold(holdings),
                Ok(client) => client.announce(&holdings).await,
                Err(error) => Err(error),
            };
            if let Err(error) = told {
                tracing::info!(tracker = address, %error, "a tracker was not told what is here");
            }
        }
    }

    /// The blob's trackers, best first: the parent, or the peers in the order of a rendezvous hash (Thaler and
    /// Ravishankar, "Using name-based mappings to increase hit rates", 1998).
    fn trackers(&self, digest: &Digest) -> Vec<String> {
        if let Some(parent) = &self.config.parent {
            return vec![parent.clone()];
        }
        let own = self.config.advertise.iter().filter(|own| !self.config.peers.contains(own));
        let mut trackers: Vec<String> = self.config.peers.iter().chain(own).cloned().collect();
        trackers.sort_by_cached_key(|address| {
            crate::registry::digest_of(format!("{digest} {address}").as_bytes())
        });
        trackers
    }

    /// The client of a node.
    pub(crate) fn client(&self, address: &str) -> Result<RegistryClient, RegistryError> {
        if let Some(client) = lock(&self.clients).get(address) {
            return Ok(client.clone());
        }
        let client = RegistryClient::new(address, self.config.token.as_ref())?;
        lock(&self.clients).insert(address.to_owned(), client.clone());
        Ok(client)
    }

    /// Leaves a node alone for a while.
    pub(crate) fn leave_alone(&self, address: &str, error: &RegistryError) {
        tracing::warn!(peer = address, %error, "a peer is left alone for a while");
        crate::metrics::peer_dropped();
        let mut dropped = lock(&self.dropped);
        if dropped.len() < DROPPED_MAX {
            dropped.insert(address.to_owned(), Clock.now() + DROP_TIME);
        }
    }

    fn dropped(&self) -> Vec<String> {
        let mut dropped = lock(&self.dropped);
        dropped.retain(|_, until| *until > Clock.now());
        dropped.keys().cloned().collect()
    }
}

fn silent(address: &str) -> RegistryError {
    let problem = format!("no answer within {} s", TRACKER_WAIT_MAX.as_secs());
    RegistryError::RegistryUnreachable { url: address.to_owned(), problem }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
