//! The clock: monotonic time, wall time, sleeping and time-outs.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment of monotonic time.
pub type Instant = tokio::time::Instant;

/// A future did not finish in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing within {0:?}")]
pub struct Elapsed(pub Duration);

/// Where time comes from. Follows tokio's clock, which a simulation pauses and advances.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Monotonic time.
    #[allow(clippy::disallowed_methods)]
    pub fn now(self) -> Instant {
        Instant::now()
    }

    /// Milliseconds since 1970, for what people read and files keep.
    #[allow(clippy::disallowed_methods)]
    pub fn unix_ms(self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits.
    #[allow(clippy::disallowed_methods)]
    pub async fn sleep(self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// The future's output, or [`Elapsed`] after `limit`.
    ///
    /// # Errors
    /// [`Elapsed`] if the future is not done in time; it is dropped then.
    #[allow(clippy::disallowed_methods)]
    pub async fn timeout<F: Future>(self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(limit, future).await.map_err(|_| Elapsed(limit))
    }
}
