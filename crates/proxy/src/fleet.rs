//! The workers this proxy knows: the list from [`Discovery`], each with one task that watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use helios_api::worker::v1;
use helios_runtime::{Clock, Shutdown, Tasks};
use helios_types::Digest;
use tokio::sync::watch;

use crate::watch::watch as watch_worker;
use crate::{Discovery, Member};

/// The workers, as of now.
pub(crate) struct Fleet {
    workers: RwLock<Arc<[Arc<TrackedWorker>]>>,
    replaced: watch::Sender<()>,
}

impl Fleet {
    /// Follows `discovery` until `tasks` end.
    pub(crate) fn start(discovery: Arc<dyn Discovery>, tasks: &Tasks) -> Arc<Self> {
        let fleet = Arc::new(Self { workers: RwLock::new(Arc::new([])), replaced: watch::Sender::new(()) });
        let (follower, owner) = (fleet.clone(), tasks.clone());
        tasks.spawn("follow discovery", async move {
            let mut lists = discovery.lists();
            while let Some(Some(list)) = owner.shutdown().race(lists.next()).await {
                follower.replace(list, &owner);
            }
        });
        fleet
    }

    /// Everyone on the list, ready or not.
    pub(crate) fn workers(&self) -> Arc<[Arc<TrackedWorker>]> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps whom the new list still has, starts to watch who is new, and lets go of the rest.
    fn replace(&self, list: Vec<Member>, tasks: &Tasks) {
        let before = self.workers();
        let mut now = Vec::with_capacity(list.len());
        for member in list {
            let known = before.iter().find(|known| known.is(&member));
            now.push(known.cloned().unwrap_or_else(|| TrackedWorker::start(member, tasks)));
        }
        for gone in before.iter().filter(|old| !now.iter().any(|kept| Arc::ptr_eq(kept, old))) {
            tracing::info!(worker = gone.member.id, model = %gone.member.reference, "worker left");
            gone.left.trigger();
            gone.set_view(None);
        }
        *self.workers.write().unwrap_or_else(PoisonError::into_inner) = now.into();
        self.replaced.send_replace(());
    }

    /// Tells of every new list, and of the present one at first.
    pub(crate) fn replacements(&self) -> watch::Receiver<()> {
        let mut replaced = self.replaced.subscribe();
        replaced.mark_changed();
        replaced
    }

    /// Largest context that a reachable worker of this version offers.
    pub(crate) fn context_tokens_max(&self, manifest_digest: Digest) -> Option<u32> {
        let workers = self.workers();
        let serving = workers.iter().filter(|worker| worker.member.manifest_digest == manifest_digest);
        serving.filter_map(|worker| worker.view().map(|view| view.model.context_tokens_max)).max()
    }
}

/// What a worker last said of itself.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) model: v1::ModelInfo,
    pub(crate) numerics_id: String,
    pub(crate) memory_bytes: u64,
    pub(crate) status: v1::Status,
}

/// A member of the list, with what it and this proxy know of its load.
pub(crate) struct TrackedWorker {
    pub(crate) member: Member,
    pub(crate) joined_unix_ms: u64,
    /// Said when the list no longer has it.
    pub(crate) left: Shutdown,
    /// `None` while nobody answers there.
    view: RwLock<Option<Arc<View>>>,
    /// Streams of this proxy that are open.
    in_flight: AtomicU64,
    /// Prompt tokens of those that have not shown a token yet.
    unread_tokens: AtomicU64,
}

impl TrackedWorker {
    fn start(member: Member, tasks: &Tasks) -> Arc<Self> {
        tracing::info!(worker = member.id, model = %member.reference, "worker joined");
        let tracked = Arc::new(Self::new(member, tasks.shutdown().child()));
        tasks.spawn("watch worker", watch_worker(tracked.clone()));
        tracked
    }

    pub(crate) fn new(member: Member, left: Shutdown) -> Self {
        let (in_flight, unread_tokens) = (AtomicU64::new(0), AtomicU64::new(0));
        let joined_unix_ms = Clock.unix_ms();
        Self { member, joined_unix_ms, left, view: RwLock::new(None), in_flight, unread_tokens }
    }

    fn is(&self, member: &Member) -> bool {
        self.member.id == member.id
            && self.member.reference == member.reference
            && self.member.manifest_digest == member.manifest_digest
            && Arc::ptr_eq(&self.member.worker, &member.worker)
    }

    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_view(&self, view: Option<View>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view.map(Arc::new);
    }

    /// Whether it has made a token since it loaded its model, and takes requests.
    pub(crate) fn is_ready(&self) -> bool {
        self.view().is_some_and(|view| view.status.ready && !view.status.draining)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn unread_tokens(&self) -> u64 {
        self.unread_tokens.load(Ordering::Relaxed)
    }

    /// Counts a stream to this worker for as long as the ticket lives.
    pub(crate) fn ticket(self: &Arc<Self>, prompt_tokens: u64) -> Ticket {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.unread_tokens.fetch_add(prompt_tokens, Ordering::Relaxed);
        Ticket { worker: self.clone(), unread_tokens: prompt_tokens }
    }
}

/// One open stream, as the load of its worker.
pub(crate) struct Ticket {
    worker: Arc<TrackedWorker>,
    unread_tokens: u64,
}

impl Ticket {
    pub(crate) fn worker(&self) -> &TrackedWorker {
        &self.worker
    }

    /// The prompt has been read.
    pub(crate) fn started(&mut self) {
        self.worker.unread_tokens.fetch_sub(std::mem::take(&mut self.unread_tokens), Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.started();
        self.worker.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
