//! Telling a slow answer from one that never ends: silence is found by a time-out, a byte now and then by this.

use std::time::Duration;

use helios_runtime::{Clock, Instant};

/// Bytes that must come within each time that silence may last.
const BYTES_MIN: u64 = 16 << 10;

/// Watches the bytes of one answer.
pub(crate) struct Drip {
    silence_max: Duration,
    since: Instant,
    bytes: u64,
}

impl Drip {
    /// Begins to watch an answer that may be silent for so long.
    pub(crate) fn new(silence_max: Duration) -> Self {
        Self { silence_max, since: Clock.now(), bytes: 0 }
    }

    /// Notes bytes that came.
    ///
    /// # Errors
    /// What is wrong, if they are too few for their time.
    pub(crate) fn pass(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes += bytes as u64;
        let elapsed = self.since.elapsed();
        if elapsed < self.silence_max {
            return Ok(());
        }
        if self.bytes < BYTES_MIN {
            return Err(format!("it drips: {} bytes in {elapsed:.0?}", self.bytes));
        }
        (self.since, self.bytes) = (Clock.now(), 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BYTES_MIN, Drip};

    #[test]
    fn few_bytes_are_a_drip_when_their_time_is_over_and_enough_are_not() {
        let mut patient = Drip::new(Duration::from_secs(3600));
        assert!((0..1000).all(|_| patient.pass(1).is_ok()));
        let mut hasty = Drip::new(Duration::ZERO);
        hasty.pass(BYTES_MIN as usize).expect("enough");
        assert!(hasty.pass(BYTES_MIN as usize - 1).expect_err("too few").contains("it drips"));
    }
}
