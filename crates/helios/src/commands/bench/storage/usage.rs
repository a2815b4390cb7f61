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
    cpu_seconds_of(std::process::id()).context("/proc has no times of this process")
}

/// User and system time of a process so far; `None` if it has gone.
pub(super) fn cpu_seconds_of(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Fields count from 1 and the second may hold spaces: 14 and 15 are user and system ticks.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>();
    Some(ticks.ok()? / TICKS)
}

/// Most memory of a process that was resident at a time; `None` if it has gone.
pub(super) fn memory_bytes_max_of(process: u32) -> Option<u64> {
    status_bytes(process, "VmHWM:")
}

/// Bytes of memory that belong to this process alone and came from no file.
pub(super) fn anonymous_bytes() -> anyhow::Result<u64> {
    status_bytes(std::process::id(), "RssAnon:").context("/proc/self/status has no RssAnon")
}

fn status_bytes(process: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
