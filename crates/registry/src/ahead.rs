//! The prefetcher: looks at the history from time to time, and fetches what is wanted near and is not here - first what
//! the operator wants, then what is likely to be asked for, within its allowance.
//!
//! The allowance is what fetching on demand earns ([`Gate`](helios_prefetch::Gate)) and what the configuration grants. A
//! fetch is cancelled by the end of its task; what came stays for the next.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use helios_runtime::{Clock, Tasks};
use helios_storage::tiers::TierRoom;

use crate::demand::{Order, Why};
use crate::pace::{self, Pace};
use crate::{Registry, RegistryError};

/// Longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Shortest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Looks take a twentieth of the time at most: one at 1,024 models asks the database 2,048 times.
const PAUSE_FACTOR: u32 = 20;
/// How often the history is kept. Losing a minute of it costs nothing to speak of.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// How much is fetched ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefetchConfig {
    /// Whether what is likely to be asked for is fetched ahead. The history is kept, and what the operator wants is
    /// fetched, in any case.
    pub enabled: bool,
    /// Bytes that may be fetched in vain each hour, beside the 3 % of what is fetched on demand.
    pub bytes_per_hour: u64,
    /// Models fetched at a time.
    pub models_at_a_time: usize,
    /// Bytes a second of all of them together; 0 bounds nothing.
    pub bytes_per_second: u64,
}

impl Default for PrefetchConfig {
    /// A gigabit a second at most, and in vain no more than what is earned.
    fn default() -> Self {
        Self { enabled: true, bytes_per_hour: 0, models_at_a_time: 1, bytes_per_second: 125_000_000 }
    }
}

/// What a pass of the prefetcher did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefetchReport {
    /// Models fetched because the operator wants them.
    pub pinned: usize,
    /// Models fetched because they are likely to be asked for.
    pub predicted: usize,
    /// Models that could not be fetched.
    pub failed: usize,
}

/// A fetch that ended: the bytes that are missing still, and why.
struct Fetched {
    order: Order,
    missing_bytes: u64,
    problem: Option<String>,
}

/// The fetches under way.
struct Ahead {
    registry: Arc<Registry>,
    pace: Arc<Pace>,
    room: Option<TierRoom>,
    running: FuturesUnordered<BoxFuture<'static, Fetched>>,
    report: PrefetchReport,
}

impl Registry {
    /// Keeps the history of uses and what is wanted near, in the background, until `tasks` stop.
    pub fn keep_prefetched(self: &Arc<Self>, tasks: &Tasks) {
        let (registry, shutdown) = (Arc::clone(self), tasks.shutdown().clone());
        tasks.spawn("prefetcher", async move {
            let mut ahead = Ahead::new(&registry);
            shutdown.race(ahead.run()).await;
            drop(ahead);
            registry.demand().give_up();
            registry.save_history().await;
        });
    }

    /// One pass of the prefetcher: a look, and all fetches that follow from it. Not beside
    /// [`keep_prefetched`](Self::keep_prefetched). The history is kept.
    ///
    /// # Errors
    /// [`RegistryError::Metadata`]. A model that cannot be fetched is no error of the pass.
    pub async fn prefetch(self: &Arc<Self>) -> Result<PrefetchReport, RegistryError> {
        let mut ahead = Ahead::new(self);
        ahead.room = Some(self.look().await?);
        ahead.start();
        while let Some(fetched) = ahead.running.next().await {
            ahead.settle(fetched);
            ahead.start();
        }
        self.save_history().await;
        Ok(ahead.report)
    }
}

impl Ahead {
    fn new(registry: &Arc<Registry>) -> Self {
        Self {
            registry: Arc::clone(registry),
            pace: Pace::new(registry.config().prefetch.bytes_per_second),
            room: None,
            running: FuturesUnordered::new(),
            report: PrefetchReport::default(),
        }
    }

    async fn run(&mut self) {
        let mut saved_at = Clock.now();
        loop {
            let began = Clock.now();
            match self.look().await {
                Ok(room) => self.room = Some(room),
                Err(error) => tracing::warn!(%error, "the demand for models cannot be looked at"),
            }
            let pause = PAUSE_MIN.max(PAUSE_FACTOR * began.elapsed());
            self.fetch_for(pause).await;
            if saved_at.elapsed() >= SAVE_EVERY {
                self.registry.save_history().await;
                saved_at = Clock.now();
            }
        }
    }

    /// Looks, while what was begun goes on: somebody may wait for it. What ends meanwhile counts behind the look, which may
    /// have seen it unfinished.
    async fn look(&mut self) -> Result<TierRoom, RegistryError> {
        let registry = Arc::clone(&self.registry);
        let mut look = std::pin::pin!(registry.look());
        let mut ended = Vec::new();
        let room = loop {
            tokio::select! {
                biased;
                room = &mut look => break room,
                Some(fetched) = self.running.next(), if !self.running.is_empty() => ended.push(fetched),
            }
        };
        ended.into_iter().for_each(|fetched| self.settle(fetched));
        room
    }

    /// Fetches until it is time for another look: when something changed, but not before `pause` is over.
    async fn fetch_for(&mut self, pause: Duration) {
        let registry = Arc::clone(&self.registry);
        let wait = async move {
            Clock.sleep(pause).await;
            let _changed_or_not = Clock.timeout(LOOK_EVERY, registry.demand().changed()).await;
        };
        let mut wait = std::pin::pin!(wait);
        loop {
            self.start();
            tokio::select! {
                biased;
                () = &mut wait => return,
                Some(fetched) = self.running.next(), if !self.running.is_empty() => {
                    self.settle(fetched);
                }
            }
        }
    }

    /// Begins what is to be fetched, as many at a time as may be.
    fn start(&mut self) {
        let Some(room) = self.room else { return };
        let registry = &self.registry;
        while self.running.len() < registry.config().prefetch.models_at_a_time.max(1) {
            let Some(order) = registry.demand().next_order(room) else { return };
            tracing::info!(model = %order.model, why = ?order.why, "a model is fetched ahead");
            let (registry, pace) = (Arc::clone(registry), Arc::clone(&self.pace));
            self.running.push(Box::pin(pace::scope(pace, fetch(registry, order))));
        }
    }

    fn settle(&mut self, fetched: Fetched) {
        let Fetched { order, missing_bytes, problem } = fetched;
        match (&problem, order.why) {
            (Some(problem), _) => {
                self.report.failed += 1;
                tracing::warn!(model = %order.model, problem, "a model could not be fetched ahead");
            }
            (None, Why::Pinned) => self.report.pinned += 1,
            (None, Why::Predicted) => self.report.predicted += 1,
        }
        self.registry.demand().fetched(&order, missing_bytes, problem);
    }
}

async fn fetch(registry: Arc<Registry>, order: Order) -> Fetched {
    let problem = bring(&registry, &order).await.err().map(|error| error.to_string());
    let missing_bytes = missing_bytes(&registry, &order).await;
    let problem = problem.or_else(|| {
        let nobody = "no parent, remote store or source has all of it\nhint: `helios pull` it again";
        (missing_bytes > 0).then(|| nobody.to_owned())
    });
    Fetched { order, missing_bytes, problem }
}

/// Brings what is missing of a model, file after file.
async fn bring(registry: &Arc<Registry>, order: &Order) -> Result<(), RegistryError> {
    // Whoever holds the manifest keeps what came from leaving while the rest is on its way.
    let _held = registry.manifest(&order.digest).await?;
    for blob in registry.missing_of(&order.digest).await? {
        registry.ensure_blob(&blob).await?;
    }
    Ok(())
}

/// What is missing of a model now; nothing of one that is not known any more.
async fn missing_bytes(registry: &Arc<Registry>, order: &Order) -> u64 {
    let missing = registry.missing_of(&order.digest).await.unwrap_or_default();
    missing.iter().map(|blob| blob.size).sum()
}
