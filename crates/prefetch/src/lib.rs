//! Which models to keep near and which to fetch before they are asked for: pure code over a history of uses.
//!
//! [`Predictor`] says how likely each model is among the next requests, from how often and how lately it was used, the
//! time of day, what usually follows what, and deployments. [`Policy`] keeps what has the most value, probability of use
//! x seconds saved / bytes, and prefetches what has more of it than what would have to leave, within a byte allowance
//! that only prefetches which were used pay back. [`replay`] runs policies over a trace, [`trace`] makes traces.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

mod experts;
mod gate;
mod policy;
mod predictor;
mod random;
pub mod replay;
pub mod trace;

pub use gate::Gate;
pub use policy::{Policy, PolicyOptions, Tier};
pub use predictor::Predictor;

/// A model, counted from 0 by whoever keeps the history.
pub type ModelIndex = usize;

/// Something that happened to a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Seconds since midnight of the first day.
    pub at: f64,
    /// The model.
    pub model: ModelIndex,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It was asked for.
    Request,
    /// A version of it was deployed: pushed, pulled or tagged.
    Deploy,
}

/// What a [`Predictor`] can go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// How often it was asked for among the last requests.
    OftenLately,
    /// How often it was asked for since long.
    Often,
    /// How many requests ago it was asked for.
    Recently,
    /// What is asked for at this time of the day.
    TimeOfDay,
    /// What is asked for behind the last model.
    Follows,
    /// What was deployed a moment ago.
    Deployed,
}

impl View {
    /// As people are told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OftenLately => "often lately",
            Self::Often => "often",
            Self::Recently => "recently",
            Self::TimeOfDay => "time of day",
            Self::Follows => "what usually follows",
            Self::Deployed => "just deployed",
        }
    }
}

impl std::fmt::Display for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What holding a model costs and saves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ModelCost {
    /// Bytes it takes.
    pub bytes: u64,
    /// Seconds that a request waits when it has to be fetched.
    pub fetch_seconds: f64,
}
