//! How often and when a transfer asks again: one policy for all its ranges.
//!
//! A failure counts once for all ranges that were asked for before it, and is forgotten when enough has come since. So
//! an origin that goes away for a moment costs one attempt and not eight, and one that drips is given up like one that
//! is silent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use helios_runtime::{Clock, Instant};
use helios_types::Classify;

use crate::{FetchConfig, RegistryError};

/// Bytes that must come between two failures for the first to be forgotten.
const PROGRESS_BYTES_MIN: u64 = 1 << 20;

/// The patience with one origin during one transfer.
pub(super) struct Patience<'a> {
    limits: &'a FetchConfig,
    /// Bytes that came, in all ranges.
    received: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures so far, ever: tells whether one was counted since a range was asked for.
    episode: u64,
    /// Failures without progress between them.
    failures: u32,
    /// What had come at the last one.
    received: u64,
    /// Nobody asks before.
    resume_at: Option<Instant>,
    /// Whether there is none left.
    is_over: bool,
}

/// The answer to a small question, asked again as a transfer would be.
///
/// # Errors
/// What `ask` says, once patience with it ends.
pub(crate) async fn patiently<'a, T>(
    limits: &FetchConfig,
    ask: impl Fn() -> BoxFuture<'a, Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    let patience = Patience::new(limits);
    loop {
        let episode = patience.ready().await;
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => patience.failed(episode, error)?,
        }
    }
}

impl<'a> Patience<'a> {
    pub(super) fn new(limits: &'a FetchConfig) -> Self {
        Self { limits, received: AtomicU64::new(0), state: Mutex::default() }
    }

    /// Notes bytes that came.
    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until the origin may be asked; the result goes to [`failed`](Self::failed) with what comes of it.
    pub(super) async fn ready(&self) -> u64 {
        loop {
            let (episode, resume_at) = {
                let state = self.lock();
                (state.episode, state.resume_at)
            };
            let Some(wait) = resume_at.map(|at| at.saturating_duration_since(Clock.now())) else {
                return episode;
            };
            if wait.is_zero() {
                return episode;
            }
            Clock.sleep(wait).await;
        }
    }

    /// Notes a failure; if it may be tried again, [`ready`](Self::ready) says when.
    ///
    /// # Errors
    /// The error, if it will not go away, was met too often, or wants a longer wait than allowed.
    pub(super) fn failed(&self, episode: u64, error: RegistryError) -> Result<(), RegistryError> {
        let asked_wait = error.retry_after().unwrap_or(Duration::ZERO);
        if !error.is_transient() || asked_wait > self.limits.retry_after_max {
            return Err(error);
        }
        let mut state = self.lock();
        if state.is_over {
            return Err(error);
        }
        if state.episode != episode {
            return Ok(());
        }
        let received = self.received.load(Ordering::Relaxed);
        let progressed = received >= state.received + PROGRESS_BYTES_MIN;
        state.failures = if progressed { 1 } else { state.failures + 1 };
        if state.failures >= self.limits.attempts_max {
            state.is_over = true;
            return Err(error);
        }
        let doubled = self.limits.backoff_min.saturating_mul(1 << (state.failures - 1).min(16));
        let wait = doubled.min(self.limits.backoff_max).max(asked_wait);
        state.episode += 1;
        state.received = received;
        state.resume_at = Some(Clock.now() + wait);
        tracing::info!(%error, ?wait, "an origin is asked again");
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Patience;
    use crate::{FetchConfig, RegistryError};

    fn busy(retry_after: Option<Duration>) -> RegistryError {
        RegistryError::OriginStatus { url: "http://x/".to_owned(), status: 429, hint: "wait", retry_after }
    }

    #[tokio::test]
    async fn ranges_that_fail_together_count_once_and_progress_is_forgiven() {
        let limits =
            FetchConfig { attempts_max: 3, backoff_min: Duration::from_millis(1), ..FetchConfig::default() };
        let patience = Patience::new(&limits);
        for _ in 0..4 {
            let episode = patience.ready().await;
            for _range in 0..8 {
                assert!(patience.failed(episode, busy(None)).is_ok());
            }
            patience.received(2 << 20);
        }
        let episode = patience.ready().await;
        assert!(patience.failed(episode, busy(None)).is_ok());
        let episode = patience.ready().await;
        assert!(patience.failed(episode, busy(None)).is_ok());
        let episode = patience.ready().await;
        assert!(patience.failed(episode, busy(None)).is_err(), "three in a row without progress");
    }

    #[tokio::test]
    async fn the_origin_s_wish_is_waited_for_and_an_absurd_one_is_an_error() {
        let limits = FetchConfig { retry_after_max: Duration::from_secs(60), ..FetchConfig::default() };
        let patience = Patience::new(&limits);
        let (before, minute) = (helios_runtime::Clock.now(), Duration::from_secs(60));
        patience.failed(0, busy(Some(minute))).expect("worth waiting for");
        let resume_at = patience.lock().resume_at.expect("a wait");
        assert!(resume_at >= before + minute);
        assert!(patience.failed(1, busy(Some(Duration::from_secs(3600)))).is_err());
    }
}
