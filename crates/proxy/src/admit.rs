//! Whether there is room for one more request: a bounded number in flight, a bounded number waiting for a bounded
//! time, and 503 with `retry-after` for all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use helios_api::ApiError;
use helios_runtime::Clock;
use helios_types::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ProxyConfig;
use crate::metrics;

/// What a refused client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The places for requests.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    wait_max: Duration,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub(crate) fn new(config: &ProxyConfig) -> Self {
        Self {
            places: Arc::new(Semaphore::new(config.requests_in_flight_max.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            waiting_max: config.requests_waiting_max,
            wait_max: config.wait_max(),
        }
    }

    /// A place, now or after a bounded wait.
    pub(crate) async fn enter(&self) -> Result<Place, ApiError> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        let Some(_waiting) = Waiting::join(self) else {
            return Err(refused(format!("{} requests are waiting already", self.waiting_max)));
        };
        match Clock.timeout(self.wait_max, self.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            Ok(Err(_closed)) => Err(refused("the server is stopping".to_owned())),
            Err(elapsed) => Err(refused(format!("no place came free: {elapsed}"))),
        }
    }
}

fn refused(reason: String) -> ApiError {
    metrics::refused();
    let message = format!("the server is at its limit: {reason}");
    ApiError { retry_after: Some(RETRY_AFTER), ..ApiError::new(ErrorCode::Overloaded, message) }
}

/// One of the bounded number of requests that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(admission: &'a Admission) -> Option<Self> {
        let bounded = |waiting| (waiting < admission.waiting_max).then(|| waiting + 1);
        let joined = admission.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, bounded);
        joined.ok().map(|_| Self(&admission.waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use helios_types::ErrorCode;

    use super::Admission;
    use crate::ProxyConfig;

    #[tokio::test]
    async fn the_bounds_hold_and_places_come_back() {
        let config = ProxyConfig {
            requests_in_flight_max: 1,
            requests_waiting_max: 1,
            wait_ms_max: 20,
            ..ProxyConfig::default()
        };
        let admission = Admission::new(&config);
        let first = admission.enter().await.expect("a free place");
        let mut second = Box::pin(admission.enter());
        assert!((&mut second).now_or_never().is_none(), "the second waits");
        let third = admission.enter().await.expect_err("nobody else may wait");
        assert_eq!(third.code, ErrorCode::Overloaded);
        assert!(third.retry_after.is_some());
        drop(first);
        let second = second.await.expect("the place came free");
        let late = admission.enter().await.expect_err("the wait is bounded");
        assert_eq!(late.code, ErrorCode::Overloaded);
        drop(second);
        admission.enter().await.expect("everything was given back");
    }
}
