//! A warm-pool record: which model should be resident where, at which level, which it is, and why.

use helios_prefetch::View;
use helios_types::{Digest, ModelRef};
use serde::{Deserialize, Serialize};

/// How near a model is, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmLevel {
    /// All its files are on a disk of this store.
    Disk,
    /// Its weights are in memory and on a disk.
    Memory,
    /// A worker has it loaded.
    Loaded,
}

impl WarmLevel {
    /// As in records and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
            Self::Loaded => "loaded",
        }
    }
}

/// Where a record is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmPlace {
    /// The store of this registry.
    Store,
    /// The worker of that id.
    Worker(String),
    /// A worker is wanted; which one is up to those who start workers.
    AnyWorker,
}

impl std::fmt::Display for WarmPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store => f.write_str("store"),
            Self::Worker(id) => write!(f, "worker {id}"),
            Self::AnyWorker => f.write_str("any worker"),
        }
    }
}

/// Why a model is where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum WarmReason {
    /// The operator wants it so.
    Pinned,
    /// Workers hold leases on it.
    InUse {
        /// Their ids, in order.
        workers: Vec<String>,
    },
    /// It was here and made room for what was worth more.
    Evicted {
        /// When that was noticed, in milliseconds since 1970.
        at: u64,
        /// Probability that was given to a use within the hour.
        probability: f64,
    },
    /// What the history makes of it.
    Predicted {
        /// Probability of a use among the next requests.
        probability: f64,
        /// The view of the history that speaks most for it.
        view: Option<View>,
    },
    /// It was never asked for since the history began.
    NeverUsed,
}

impl std::fmt::Display for WarmReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |probability: &f64| (100.0 * probability).round();
        match self {
            Self::Pinned => f.write_str("pinned by the operator"),
            Self::InUse { workers } => write!(f, "in use by {}", workers.join(", ")),
            Self::Evicted { probability, .. } => {
                write!(f, "left for others: {} % likely within the hour", percent(probability))
            }
            Self::Predicted { probability, view: Some(view) } => {
                write!(f, "predicted: {} % likely soon ({view})", percent(probability))
            }
            Self::Predicted { probability, view: None } => {
                write!(f, "predicted: {} % likely soon", percent(probability))
            }
            Self::NeverUsed => f.write_str("never asked for"),
        }
    }
}

/// What is expected of a model: what a pool's size can follow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Probability that it is asked for within the next hour.
    pub probability_of_hour: f64,
    /// Minutes of the last 24 hours in which it was asked for.
    pub busy_minutes_of_day: u32,
}

/// One model at one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmRecord {
    /// Name and tag.
    pub model: ModelRef,
    /// The version that the tag points to, or that the worker has; `None` for a pin whose model is not known any more.
    pub manifest: Option<Digest>,
    /// Where.
    pub place: WarmPlace,
    /// The level it should have; `None` if nobody minds.
    pub wanted: Option<WarmLevel>,
    /// The level it has; `None` if it is not here, or not all of it.
    pub actual: Option<WarmLevel>,
    /// Why.
    pub reason: WarmReason,
    /// Since when the operator has wanted it, else since when it has been at its level as far as this process knows; in
    /// milliseconds since 1970.
    pub since: u64,
    /// Bytes of all its files, where known.
    pub bytes: u64,
    /// Bytes that are missing here; 0 at workers.
    pub missing_bytes: u64,
    /// What is expected of it; `None` for one that was never asked for.
    pub forecast: Option<Forecast>,
    /// Why the last attempt to fetch it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What the operator wants of a model: the contents of a record in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    pub(crate) level: WarmLevel,
    /// Since when, in milliseconds since 1970.
    pub(crate) since: u64,
}
