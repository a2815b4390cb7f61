//! The worker's place in the registry's list: renewed while it runs, given back when it ends.
//!
//! The registry keeps leases in memory. After its restart, or an outage, the next renewal begins a new lease: there is
//! nothing else to do. Failed renewals are tried again sooner than the next is due, with growing and scattered delays.

use std::time::Duration;

use helios_registry::{LeasedModel, RegistryClient, RegistryError, WorkerLease, WorkerRole};
use helios_runtime::{Clock, Shutdown, random_u64};

use crate::{Host, WorkerConfig};

/// Delay after the first failure; doubles with each, up to the renewal interval.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);

/// Keeps `host`, reached at `address` (such as `http://127.0.0.1:8101`), in the list of `registry` until `shutdown`,
/// then takes it off.
pub async fn keep_lease(
    host: &Host,
    registry: &RegistryClient,
    address: String,
    config: &WorkerConfig,
    shutdown: &Shutdown,
) {
    let lease = Lease {
        worker: host.lease(address),
        registry,
        ttl: Duration::from_millis(config.lease_ttl_ms),
        interval: Duration::from_millis(config.lease_renew_ms),
    };
    lease.keep(shutdown).await;
    lease.leave().await;
}

impl Host {
    /// What the registry is told of this worker.
    pub fn lease(&self, address: String) -> WorkerLease {
        WorkerLease {
            id: self.worker_id().to_owned(),
            address,
            models: vec![LeasedModel { reference: self.reference().clone(), manifest: self.manifest() }],
            role: WorkerRole::Unified,
            numerics_id: self.numerics_id().clone(),
        }
    }
}

struct Lease<'a> {
    worker: WorkerLease,
    registry: &'a RegistryClient,
    ttl: Duration,
    interval: Duration,
}

impl Lease<'_> {
    async fn keep(&self, shutdown: &Shutdown) {
        let mut failures = 0_u32;
        loop {
            let Some(renewed) = shutdown.race(self.renew()).await else { return };
            match &renewed {
                Ok(()) if failures > 0 => {
                    tracing::info!(failures, "the registry has the worker's lease again")
                }
                Ok(()) => {}
                Err(problem) if failures == 0 => {
                    tracing::warn!(problem, "the lease was not renewed; trying again")
                }
                Err(problem) => tracing::debug!(problem, failures, "the lease was not renewed"),
            }
            failures = if renewed.is_ok() { 0 } else { failures.saturating_add(1) };
            let delay = delay(failures, self.interval, random_u64());
            if shutdown.race(Clock.sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    async fn renew(&self) -> Result<(), String> {
        self.bounded(self.registry.renew(&self.worker, self.ttl)).await
    }

    /// Tells the registry at once what it would find out when the lease runs out.
    async fn leave(&self) {
        if let Err(problem) = self.bounded(self.registry.leave(&self.worker.id)).await {
            tracing::warn!(problem, "the lease was not given back and has to run out");
        }
    }

    async fn bounded(&self, call: impl Future<Output = Result<(), RegistryError>>) -> Result<(), String> {
        match Clock.timeout(self.ttl, call).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(elapsed) => Err(elapsed.to_string()),
        }
    }
}

/// Time to the next renewal: the interval after a success, else a scattered and growing part of it.
fn delay(failures: u32, interval: Duration, random: u64) -> Duration {
    if failures == 0 {
        return interval;
    }
    let doublings = (failures - 1).min(16);
    let most = (RETRY_DELAY_MIN * (1 << doublings)).min(interval);
    // From half of it to all of it, so that workers do not come back in step after an outage.
    most / 2 + (most / 2).mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{RETRY_DELAY_MIN, delay};

    #[test]
    fn retries_grow_scatter_and_never_wait_longer_than_a_renewal() {
        let interval = Duration::from_millis(500);
        assert_eq!(delay(0, interval, 7), interval);
        for failures in 1..100 {
            let (least, most) = (delay(failures, interval, 0), delay(failures, interval, u64::MAX));
            assert!(least < most && most <= interval, "{failures}: {least:?} to {most:?}");
            assert!(least >= RETRY_DELAY_MIN / 2);
            assert!(delay(failures + 1, interval, 0) >= least);
        }
    }
}
