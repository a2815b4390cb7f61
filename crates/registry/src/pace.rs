//! A bound on the rate of what is fetched in the background. It goes with the task: fetches inside [`scope`] share one
//! rate, others have none. While somebody outside waits for what is fetched inside, that has no bound either.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use helios_runtime::{Clock, Instant};
use tokio::sync::watch;

tokio::task_local! {
    static SCOPE: Arc<Scope>;
}

/// A rate that several fetches share.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When what came so far has had its time.
    free_at: Mutex<Instant>,
}

impl Pace {
    /// A rate; 0 bounds nothing.
    pub(crate) fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self { bytes_per_second, free_at: Mutex::new(Clock.now()) })
    }

    /// How long to wait before the next bytes, now that so many came.
    pub(crate) fn take(&self, bytes: u64) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let now = Clock.now();
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = now.max(*free_at) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        free_at.saturating_duration_since(now)
    }
}

/// Work that keeps to a rate.
#[derive(Debug)]
pub(crate) struct Scope {
    pace: Arc<Pace>,
    /// How many outside wait for what is fetched inside.
    waiting: watch::Sender<usize>,
}

impl Scope {
    /// So many outside begin to wait for what is fetched inside.
    pub(crate) fn waits_begin(&self, count: usize) {
        self.waiting.send_modify(|waiting| *waiting += count);
    }

    /// So many wait no longer.
    pub(crate) fn waits_end(&self, count: usize) {
        self.waiting.send_modify(|waiting| *waiting -= count);
    }
}

/// Runs `work` at that rate.
pub(crate) async fn scope<F: Future>(pace: Arc<Pace>, work: F) -> F::Output {
    SCOPE.scope(Arc::new(Scope { pace, waiting: watch::Sender::new(0) }), work).await
}

/// The scope that this task is in.
pub(crate) fn current() -> Option<Arc<Scope>> {
    SCOPE.try_with(Arc::clone).ok()
}

/// Whether this task keeps to a rate: it is in a scope, and nobody outside waits.
pub(crate) fn is_bound() -> bool {
    current().is_some_and(|scope| *scope.waiting.borrow() == 0)
}

/// Waits, within a scope, until `bytes` that came have had their time, or somebody outside waits for more.
pub(crate) async fn keep(bytes: u64) {
    let Some(scope) = current() else { return };
    let mut waiting = scope.waiting.subscribe();
    if *waiting.borrow_and_update() > 0 {
        return;
    }
    let wait = scope.pace.take(bytes);
    if !wait.is_zero() {
        tokio::select! {
            () = Clock.sleep(wait) => {}
            _waited_for = waiting.wait_for(|waiting| *waiting > 0) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Pace, keep, scope};

    #[tokio::test]
    async fn fetches_share_the_rate_and_others_have_none() {
        let pace = Pace::new(1_000_000);
        let waits: Vec<Duration> = (0..20).map(|_| pace.take(500_000_000)).collect();
        assert!(waits.is_sorted(), "each waits for those before: {waits:?}");
        let last = waits[19].as_secs();
        assert!((9_000..=10_000).contains(&last), "20 times 500 s, less what the test took: {last}");
        keep(u64::MAX).await;
        scope(Pace::new(0), keep(u64::MAX)).await;
    }
}
