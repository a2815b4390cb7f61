//! Which models to keep near and which to fetch before they are asked for: pure code over a history of uses.
//!
//! [`Predictor`] says how likely each model is among the next requests, from how often and how lately it was used, the
//! time of day, what usually follows what, and deployments. [`Policy`] keeps what has the most value, probability of use
//! x seconds saved / bytes, and prefetches what has more of it than what would have to leave, within a byte allowance
//! that only prefetches which were used pay back. [`replay`] runs policies over a trace, [`trace`] makes traces.

mod experts;
mod gate;
mod policy;
mod predictor;
mod random;
pub mod replay;
pub mod trace;

pub use gate::Gate;
pub use policy::{Policy, PolicyOptions};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was asked for.
    Request,
    /// A version of it was deployed: pushed, pulled or tagged.
    Deploy,
}

/// What holding a model costs and saves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelCost {
    /// Bytes it takes.
    pub bytes: u64,
    /// Seconds that a request waits when it has to be fetched.
    pub fetch_seconds: f64,
}
