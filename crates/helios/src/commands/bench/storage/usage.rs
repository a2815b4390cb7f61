//! Time and processor time of one load in this process: threads of the kernel that work for it (io_uring's) included.

use std::time::Duration;

use anyhow::Context;
use helios_runtime::{Clock, Instant};

/// Ticks of `/proc` a second: fixed in Linux' interface to programs.
const TICKS: f64 = 100.0;

/// What one load took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Bytes loaded.
    pub(super) bytes: u64,
    /// From the first call to the last byte.
    pub(super) seconds: f64,
    /// User and system time of all threads.
    pub(super) cpu_seconds: f64,
}

impl Load {
    /// GB (10^9 bytes) a second.
    pub(super) fn rate(&self) -> f64 {
        self.bytes as f64 / 1e9 / self.seconds
    }

    /// Processor seconds a GB.
    pub(super) fn cpu_per_gb(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 / 1e9)
    }
}

/// Runs `load`, which says how many bytes it loaded, and keeps what it returns until the clocks have stopped.
pub(super) fn timed<T>(load: impl FnOnce() -> anyhow::Result<(u64, T)>) -> anyhow::Result<(Load, T)> {
    let (cpu, began) = (cpu_seconds()?, Clock.now());
    let (bytes, kept) = load()?;
    let seconds = since(began).as_secs_f64();
    Ok((Load { bytes, seconds, cpu_seconds: cpu_seconds()? - cpu }, kept))
}

fn since(began: Instant) -> Duration {
    Clock.now() - began
}

/// User and system time of this process so far.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat failed")?;
    // Fields count from 1 and the second may hold spaces: 14 and 15 are user and system ticks.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>();
    Ok(ticks.context("/proc/self/stat has no times")? / TICKS)
}

/// Bytes of memory that belong to this process alone and came from no file.
pub(super) fn anonymous_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status failed")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("/proc/self/status has no RssAnon")? * 1024)
}
