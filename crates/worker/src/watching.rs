//! What a proxy hears of a worker: a snapshot first, then whatever changed, at a bounded rate.
//!
//! The first change after a quiet time is told at once, later ones together, at most once in [`UPDATE_INTERVAL`]. A
//! hash stands in at most one list of an update, so that the order in which a receiver applies them does not matter.
//! Lost changes force a new snapshot in the same stream.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use helios_api::worker::{UpdateStream, WorkerError, v1};
use helios_engine::{CacheChange, CacheDelta, EngineHandle, EngineStatus};
use helios_runtime::{Clock, Instant};
use helios_types::{BlockHash, ErrorCode};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};

/// Least time between two updates of one stream.
const UPDATE_INTERVAL: Duration = Duration::from_millis(50);

/// Most hashes in one message, which keeps it far below the 4 MiB that gRPC accepts by default.
const HASHES_PER_UPDATE: usize = 16_384;

/// The updates of `engine` from now on. Ends with an error when the engine ends.
pub(crate) async fn updates(
    engine: EngineHandle,
    draining: watch::Receiver<bool>,
    sequences_max: u32,
) -> Result<UpdateStream, WorkerError> {
    let watcher = Watcher::start(engine, draining, sequences_max).await?;
    let updates = stream::try_unfold(watcher, |mut watcher| async move {
        let update = watcher.next_update().await?;
        Ok(Some((update, watcher)))
    });
    Ok(updates.boxed())
}

/// The protocol's form of the engine's figures.
pub(crate) fn wire_status(status: &EngineStatus, draining: bool, sequences_max: u32) -> v1::Status {
    v1::Status {
        ready: status.ready,
        draining,
        queued_sequences: saturate(status.queued),
        running_sequences: saturate(status.running),
        queued_prefill_tokens: status.queued_prefill_tokens as u64,
        kv_blocks_used: saturate(status.kv_blocks_used),
        kv_blocks_total: saturate(status.kv_blocks_total),
        sequences_max,
    }
}

fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

struct Watcher {
    engine: EngineHandle,
    status: watch::Receiver<EngineStatus>,
    draining: watch::Receiver<bool>,
    sequences_max: u32,
    deltas: broadcast::Receiver<CacheDelta>,
    /// Number of the last delta that `changes`, or an update before, includes.
    delta_seen: u64,
    /// Whether deltas were lost.
    lost: bool,
    /// The last thing that happened to each hash since the last update: stored, or else removed.
    changes: BTreeMap<BlockHash, bool>,
    status_sent: v1::Status,
    waiting: VecDeque<v1::WatchUpdate>,
    sequence: u64,
    quiet_until: Instant,
}

impl Watcher {
    async fn start(
        engine: EngineHandle,
        draining: watch::Receiver<bool>,
        sequences_max: u32,
    ) -> Result<Self, WorkerError> {
        let feed = engine.cache_feed().await.map_err(|error| WorkerError::of(&error))?;
        let mut watcher = Self {
            status: engine.status(),
            engine,
            draining,
            sequences_max,
            deltas: feed.deltas,
            delta_seen: feed.sequence,
            lost: false,
            changes: BTreeMap::new(),
            status_sent: v1::Status::default(),
            waiting: VecDeque::new(),
            sequence: 0,
            quiet_until: Clock.now(),
        };
        watcher.enqueue_snapshot(&feed.stored);
        Ok(watcher)
    }

    async fn next_update(&mut self) -> Result<v1::WatchUpdate, WorkerError> {
        loop {
            if let Some(mut update) = self.waiting.pop_front() {
                self.sequence += 1;
                update.sequence = self.sequence;
                self.quiet_until = Clock.now() + UPDATE_INTERVAL;
                return Ok(update);
            }
            self.wait_for_change().await?;
            Clock.sleep(self.quiet_until.saturating_duration_since(Clock.now())).await;
            self.collect().await?;
        }
    }

    async fn wait_for_change(&mut self) -> Result<(), WorkerError> {
        tokio::select! {
            biased;
            changed = self.draining.changed() => changed.map_err(|_| ended()),
            changed = self.status.changed() => changed.map_err(|_| ended()),
            delta = self.deltas.recv() => match delta {
                Ok(delta) => { self.include(delta); Ok(()) }
                Err(RecvError::Lagged(_)) => { self.lost = true; Ok(()) }
                Err(RecvError::Closed) => Err(ended()),
            },
        }
    }

    /// Puts everything that has happened since the last update into `waiting`.
    async fn collect(&mut self) -> Result<(), WorkerError> {
        loop {
            match self.deltas.try_recv() {
                Ok(delta) => self.include(delta),
                Err(TryRecvError::Lagged(_)) => self.lost = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if self.lost {
            return self.resync().await;
        }
        self.enqueue_changes();
        Ok(())
    }

    fn include(&mut self, delta: CacheDelta) {
        if delta.sequence <= self.delta_seen {
            return;
        }
        self.lost |= delta.sequence != self.delta_seen + 1;
        self.delta_seen = delta.sequence;
        for change in delta.changes {
            match change {
                CacheChange::Stored(hash) => self.changes.insert(hash, true),
                CacheChange::Removed(hash) => self.changes.insert(hash, false),
            };
        }
    }

    async fn resync(&mut self) -> Result<(), WorkerError> {
        let feed = self.engine.cache_feed().await.map_err(|error| WorkerError::of(&error))?;
        self.deltas = feed.deltas;
        self.delta_seen = feed.sequence;
        self.lost = false;
        self.changes.clear();
        self.enqueue_snapshot(&feed.stored);
        Ok(())
    }

    /// The first message says that all before is void; the rest of a long list follows as changes.
    fn enqueue_snapshot(&mut self, stored: &[BlockHash]) {
        self.renew_status();
        let (first, rest) = stored.split_at(stored.len().min(HASHES_PER_UPDATE));
        let snapshot = v1::WatchUpdate { snapshot: true, ..self.update(first, &[]) };
        self.waiting.push_back(snapshot);
        for part in rest.chunks(HASHES_PER_UPDATE) {
            self.waiting.push_back(self.update(part, &[]));
        }
    }

    fn enqueue_changes(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        let (stored, removed): (Vec<_>, Vec<_>) = changes.into_iter().partition(|&(_, stored)| stored);
        let hashes = |changes: Vec<(BlockHash, bool)>| changes.into_iter().map(|(hash, _)| hash).collect();
        let (stored, removed): (Vec<_>, Vec<_>) = (hashes(stored), hashes(removed));
        let status_is_new = self.renew_status();
        for part in removed.chunks(HASHES_PER_UPDATE) {
            self.waiting.push_back(self.update(&[], part));
        }
        for part in stored.chunks(HASHES_PER_UPDATE) {
            self.waiting.push_back(self.update(part, &[]));
        }
        if self.waiting.is_empty() && status_is_new {
            self.waiting.push_back(self.update(&[], &[]));
        }
    }

    /// Looks at the figures anew; returns whether they differ from what was sent.
    fn renew_status(&mut self) -> bool {
        let draining = *self.draining.borrow_and_update();
        let status = wire_status(&self.status.borrow_and_update(), draining, self.sequences_max);
        let is_new = status != self.status_sent;
        self.status_sent = status;
        is_new
    }

    fn update(&self, stored: &[BlockHash], removed: &[BlockHash]) -> v1::WatchUpdate {
        let bytes = |hashes: &[BlockHash]| {
            hashes.iter().map(|hash| Bytes::copy_from_slice(hash.as_bytes())).collect::<Vec<_>>()
        };
        v1::WatchUpdate {
            status: Some(self.status_sent),
            blocks_stored: bytes(stored),
            blocks_removed: bytes(removed),
            ..v1::WatchUpdate::default()
        }
    }
}

fn ended() -> WorkerError {
    WorkerError::new(ErrorCode::Unavailable, "the worker has ended")
}
