//! Whether a directory can be used: failures, and when it is asked again.

use serde::{Deserialize, Serialize};

use crate::StorageError;

/// Wait before the first new attempt after a failure, in milliseconds; doubles with each.
const BACKOFF_MS_MIN: u64 = 1_000;
/// Longest wait between attempts.
const BACKOFF_MS_MAX: u64 = 60_000;

/// Whether a directory is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierState {
    /// Read and written.
    #[default]
    Up,
    /// Read, not written: its file system had no room.
    Full,
    /// Asked only for what is nowhere else: it failed.
    Down,
}

/// The last failure of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierFailure {
    /// What happened.
    pub problem: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The health of one directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    state: TierState,
    /// Failures since it was last up.
    failures: u32,
    retry_at_ms: u64,
    last_failure: Option<TierFailure>,
}

impl Health {
    pub(crate) fn state(&self) -> TierState {
        self.state
    }

    pub(crate) fn last_failure(&self) -> Option<&TierFailure> {
        self.last_failure.as_ref()
    }

    /// Whether a wait is over and it should be tried again.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        // A wall clock that was set back must not make the wait longer than the longest.
        self.state != TierState::Up
            && (now_ms >= self.retry_at_ms || self.retry_at_ms - now_ms > BACKOFF_MS_MAX)
    }

    /// Milliseconds until it is tried again; `None` if it is up.
    pub(crate) fn retry_in_ms(&self, now_ms: u64) -> Option<u64> {
        (self.state != TierState::Up).then(|| self.retry_at_ms.saturating_sub(now_ms))
    }

    /// Takes note of an error of an operation there. Returns the new state if that changed.
    pub(crate) fn failed(&mut self, error: &StorageError, now_ms: u64) -> Option<TierState> {
        let state = state_after(error)?;
        self.failures += 1;
        let doublings = (self.failures - 1).min(16);
        self.retry_at_ms = now_ms + (BACKOFF_MS_MIN << doublings).min(BACKOFF_MS_MAX);
        let problem = error.to_string().lines().next().unwrap_or_default().to_owned();
        self.last_failure = Some(TierFailure { problem, at_ms: now_ms });
        let changed = self.state != state;
        self.state = state;
        changed.then_some(state)
    }

    /// Takes note of success. Returns whether it was not up before.
    pub(crate) fn recovered(&mut self) -> bool {
        self.failures = 0;
        std::mem::take(&mut self.state) != TierState::Up
    }
}

/// Whether an error says something about the directory, and not about the blob or the caller.
pub(crate) fn is_of_directory(error: &StorageError) -> bool {
    state_after(error).is_some()
}

/// What an error says about the directory; `None` if it is about the blob or the caller.
fn state_after(error: &StorageError) -> Option<TierState> {
    match error {
        StorageError::StorageFull { .. } => Some(TierState::Full),
        StorageError::Io { .. } | StorageError::TierAbsent { .. } => Some(TierState::Down),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{BACKOFF_MS_MAX, BACKOFF_MS_MIN, Health, TierState};
    use crate::StorageError;
    use std::io;
    use std::path::Path;

    fn error(kind: io::ErrorKind) -> StorageError {
        StorageError::io("write", Path::new("/tier/file"), kind.into())
    }

    #[test]
    fn failures_back_off_up_to_the_bound_and_success_ends_it() {
        let mut health = Health::default();
        assert_eq!(health.failed(&error(io::ErrorKind::PermissionDenied), 0), Some(TierState::Down));
        assert_eq!(health.retry_in_ms(0), Some(BACKOFF_MS_MIN));
        assert!(!health.is_due(BACKOFF_MS_MIN - 1) && health.is_due(BACKOFF_MS_MIN));
        assert_eq!(health.failed(&error(io::ErrorKind::PermissionDenied), 0), None);
        assert_eq!(health.retry_in_ms(0), Some(2 * BACKOFF_MS_MIN));
        for _ in 0..100 {
            health.failed(&error(io::ErrorKind::PermissionDenied), 0);
        }
        assert_eq!(health.retry_in_ms(0), Some(BACKOFF_MS_MAX));
        assert!(health.recovered() && !health.recovered());
        assert_eq!((health.state(), health.retry_in_ms(0)), (TierState::Up, None));
        assert!(health.last_failure().is_some_and(|failure| failure.problem.contains("/tier/file")));
    }

    #[test]
    fn a_full_disk_is_still_read_and_a_wrong_blob_is_no_failure() {
        let mut health = Health::default();
        let digest = helios_types::Digest::from_bytes([1; 32]);
        assert_eq!(health.failed(&StorageError::BlobMissing { digest }, 0), None);
        assert_eq!(health.state(), TierState::Up);
        assert_eq!(health.failed(&error(io::ErrorKind::StorageFull), 0), Some(TierState::Full));
        assert_eq!(health.state(), TierState::Full);
    }
}
