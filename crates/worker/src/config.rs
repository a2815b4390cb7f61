//! What the owner of a worker decides: memory, bounds, threads, the lease and the grace at the end.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::HostError;

const SEQUENCES_MAX: usize = 4096;
const QUEUE_MAX: usize = 65_536;
const THREADS_MAX: usize = 1024;

/// Settings of a worker. Every key may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Bytes of memory for KV blocks, shared evenly by the models of the process. Left out: the lesser of 25 % of the
    /// memory available to the cgroup and what `sequences_max` times the context needs.
    pub kv_memory: Option<u64>,
    /// Most sequences of one model in one step.
    pub sequences_max: usize,
    /// Most requests of one model that wait beyond those that run; more are refused as overload.
    pub queue_max: usize,
    /// Most tokens of prompt and answer together. Left out: the model's own limit.
    pub context_tokens_max: Option<usize>,
    /// Threads that compute. Left out: as many as the process may use.
    pub threads: Option<usize>,
    /// How long the registry keeps a worker that has fallen silent.
    pub lease_ttl_ms: u64,
    /// How often the lease is renewed.
    pub lease_renew_ms: u64,
    /// How long running streams may go on after the order to stop.
    pub grace_ms: u64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            kv_memory: None,
            sequences_max: 32,
            queue_max: 256,
            context_tokens_max: None,
            threads: None,
            lease_ttl_ms: 1500,
            lease_renew_ms: 500,
            grace_ms: 10_000,
        }
    }
}

impl WorkerConfig {
    /// Refuses values that no worker can run with.
    ///
    /// # Errors
    /// [`HostError::Config`] with the key at fault.
    pub fn validate(&self) -> Result<(), HostError> {
        let check = |good: bool, field, problem: String| match good {
            true => Ok(()),
            false => Err(HostError::Config { field, problem }),
        };
        let range = |field, value: usize, least: usize, most: usize| {
            check((least..=most).contains(&value), field, format!("is {value}, expected {least} to {most}"))
        };
        range("sequences_max", self.sequences_max, 1, SEQUENCES_MAX)?;
        range("queue_max", self.queue_max, 0, QUEUE_MAX)?;
        range("threads", self.threads.unwrap_or(1), 1, THREADS_MAX)?;
        check(self.kv_memory != Some(0), "kv_memory", "is 0".to_owned())?;
        check(self.context_tokens_max != Some(0), "context_tokens_max", "is 0".to_owned())?;
        check(self.lease_renew_ms > 0, "lease_renew_ms", "is 0".to_owned())?;
        // One renewal may be lost without the worker being taken for dead.
        let ttl_ms_min = self.lease_renew_ms.saturating_mul(2);
        let problem =
            format!("is {}, expected at least {ttl_ms_min}, twice `lease_renew_ms`", self.lease_ttl_ms);
        check(self.lease_ttl_ms >= ttl_ms_min, "lease_ttl_ms", problem)
    }

    /// `grace_ms` as a duration.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::WorkerConfig;
    use crate::HostError;

    type Change = fn(&mut WorkerConfig);

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        assert!(WorkerConfig::default().validate().is_ok());
        let cases: [(&str, Change); 7] = [
            ("sequences_max", |config| config.sequences_max = 0),
            ("queue_max", |config| config.queue_max = 65_537),
            ("threads", |config| config.threads = Some(0)),
            ("kv_memory", |config| config.kv_memory = Some(0)),
            ("context_tokens_max", |config| config.context_tokens_max = Some(0)),
            ("lease_renew_ms", |config| config.lease_renew_ms = 0),
            ("lease_ttl_ms", |config| config.lease_ttl_ms = 999),
        ];
        for (name, change) in cases {
            let mut config = WorkerConfig::default();
            change(&mut config);
            match config.validate() {
                Err(HostError::Config { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
