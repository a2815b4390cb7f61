//! What a tier is made of, and what is assumed of it until it has been measured.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The kind of a local directory. The fourth tier, remote, is not a directory: see [`Keeper`](super::Keeper).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierKind {
    /// Host memory: a directory on tmpfs, mapped in place by every process. Lost at a restart of the machine, so that it
    /// never holds the only copy of a blob.
    Memory,
    /// Flash on PCIe.
    Nvme,
    /// Any slower disk.
    Ssd,
}

impl TierKind {
    /// Bytes per second assumed before the first measurement.
    pub(crate) fn assumed_bytes_per_second(self) -> f64 {
        match self {
            Self::Memory => 6e9,
            Self::Nvme => 2e9,
            Self::Ssd => 4e8,
        }
    }

    /// Seconds from asking to the first byte: what a small blob costs.
    pub(crate) fn first_byte_seconds(self) -> f64 {
        match self {
            Self::Memory => 0.0,
            Self::Nvme => 1e-4,
            Self::Ssd => 2e-4,
        }
    }

    /// Whether what is written there is still there after a restart of the machine.
    pub fn is_durable(self) -> bool {
        self != Self::Memory
    }

    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Nvme => "nvme",
            Self::Ssd => "ssd",
        }
    }
}

/// One directory of a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierDirectory {
    /// What it is made of.
    pub kind: TierKind,
    /// Where it is; created if need be.
    pub dir: PathBuf,
    /// Most bytes of blobs in it; `None` leaves that to its file system.
    pub budget_bytes: Option<u64>,
}

/// How strongly a blob is wanted near: what a pin or a warm-pool record asks of the tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residency {
    /// On the fastest disk, and kept there.
    Disk,
    /// In host memory and on a disk, and kept there.
    Memory,
}
