//! What a pull says while it runs.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a pull is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Asking the source what there is.
    #[default]
    Resolving,
    /// Bytes arrive.
    Downloading,
    /// Files are copied into the store.
    Copying,
    /// Files are written in the other form.
    Converting,
    /// Headers are read and derived files made.
    Importing,
    /// Models go into an archive.
    Exporting,
    /// Files come out of an archive.
    Unpacking,
}

/// How far a pull is. Several reports may be merged into the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// The file in work; empty where none is.
    pub file: String,
    /// Bytes of that file there.
    pub done: u64,
    /// Bytes it will have, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// Where a pull reports to: the latest report replaces the one before.
#[derive(Clone, Debug)]
pub(crate) struct Reporter(watch::Sender<Progress>);

impl Reporter {
    pub(crate) fn new() -> (Self, watch::Receiver<Progress>) {
        let (sender, receiver) = watch::channel(Progress::default());
        (Self(sender), receiver)
    }

    /// Reports a file in work.
    pub(crate) fn file(&self, phase: Phase, file: &str, done: u64, total: Option<u64>) {
        self.0.send_replace(Progress { phase, file: file.to_owned(), done, total });
    }

    /// Passes on what another registry reports.
    pub(crate) fn forward(&self, progress: Progress) {
        self.0.send_replace(progress);
    }

    /// Reports a phase that has no file.
    pub(crate) fn phase(&self, phase: Phase) {
        self.file(phase, "", 0, None);
    }
}
