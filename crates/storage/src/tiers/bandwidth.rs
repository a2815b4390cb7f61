//! Measured bandwidth: a moving average over real transfers, begun by a short probe.

use std::io;
use std::path::Path;
use std::time::Duration;

use helios_runtime::Clock;

use crate::StorageError;
use crate::disk::{Disk, OpenMode};

/// Share of the newest transfer in the average: ten transfers make an old value all but disappear.
const NEWEST_SHARE: f64 = 0.25;

/// Transfers below this many bytes measure latency, not bandwidth.
const BYTES_MIN: u64 = 1 << 20;

/// Bytes that a probe writes and reads: some milliseconds on NVMe, a tenth of a second on a slow disk.
const PROBE_BYTES: usize = 16 << 20;

/// The file of a probe.
const PROBE_FILE: &str = ".tmp-probe";

/// Bytes per second in one direction; unknown until the first transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bandwidth(Option<f64>);

impl Bandwidth {
    /// What an earlier process measured.
    pub(crate) fn from_measured(bytes_per_second: Option<u64>) -> Self {
        Self(bytes_per_second.filter(|rate| *rate > 0).map(|rate| rate as f64))
    }

    /// Takes a transfer into the average; one too short to say anything is left out.
    pub(crate) fn record(&mut self, bytes: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if bytes < BYTES_MIN || seconds <= 0.0 {
            return;
        }
        let newest = bytes as f64 / seconds;
        self.0 = Some(self.0.map_or(newest, |average| average + NEWEST_SHARE * (newest - average)));
    }

    /// The average in bytes per second, if something was measured.
    pub(crate) fn measured(self) -> Option<u64> {
        self.0.map(|rate| rate as u64)
    }

    /// The average, or what is assumed without one.
    pub(crate) fn or_assumed(self, bytes_per_second: f64) -> f64 {
        self.0.unwrap_or(bytes_per_second)
    }
}

/// Writes a file to `dir`, makes it durable, drops it from the page cache and reads it again. Returns the average of
/// reading and of writing. Blocks for as long as that takes.
///
/// # Errors
/// [`StorageError::StorageFull`] or [`StorageError::Io`].
pub(crate) fn probe(disk: &dyn Disk, dir: &Path) -> Result<(Bandwidth, Bandwidth), StorageError> {
    let path = dir.join(PROBE_FILE);
    let measured = measure(disk, &path).map_err(|error| StorageError::io("probe", &path, error));
    // What could not be written need not be there.
    let _absent = disk.remove_file(&path);
    measured
}

fn measure(disk: &dyn Disk, path: &Path) -> io::Result<(Bandwidth, Bandwidth)> {
    let file = disk.open(path, OpenMode::OpenOrCreate)?;
    let mut buffer = incompressible(PROBE_BYTES);
    let (mut read, mut write) = (Bandwidth::default(), Bandwidth::default());
    let began = Clock.now();
    file.write_all_at(&buffer, 0)?;
    file.sync()?;
    write.record(PROBE_BYTES as u64, began.elapsed());
    if let Some(file) = file.system_file() {
        // On tmpfs there is nothing to drop, and the copy from memory is what is measured.
        let _advice = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
    let began = Clock.now();
    let mut done = 0;
    while done < PROBE_BYTES {
        match file.read_at(&mut buffer[done..], done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => done += length,
        }
    }
    read.record(PROBE_BYTES as u64, began.elapsed());
    Ok((read, write))
}

/// Bytes that no disk makes smaller (splitmix64).
fn incompressible(length: usize) -> Vec<u8> {
    let mut state = 0_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Bandwidth, probe};
    use crate::RealDisk;
    use std::time::Duration;

    #[test]
    fn the_average_follows_transfers_and_ignores_short_ones() {
        let mut bandwidth = Bandwidth::default();
        bandwidth.record(1000, Duration::from_secs(1));
        assert_eq!(bandwidth, Bandwidth::default());
        bandwidth.record(100 << 20, Duration::from_secs(1));
        assert_eq!(bandwidth.measured(), Some(100 << 20));
        (0..40).for_each(|_| bandwidth.record(200 << 20, Duration::from_secs(1)));
        let measured = bandwidth.measured().expect("measured");
        assert!(measured.abs_diff(200 << 20) < 1 << 16, "{measured}");
        assert_eq!(Bandwidth::from_measured(bandwidth.measured()).measured(), Some(measured));
    }

    #[test]
    fn a_probe_measures_both_directions_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let (read, write) = probe(&RealDisk, dir.path()).expect("probed");
        assert!(read.measured() > Some(0) && write.measured() > Some(0));
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
        assert!(probe(&RealDisk, &dir.path().join("none")).is_err());
    }
}
