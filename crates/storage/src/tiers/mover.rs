//! The thread that moves blobs and looks after the directories.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use helios_runtime::{Clock, Instant};

use super::state::SavedState;
use super::{Tiers, now_ms};
use crate::StorageError;

/// How often directories that failed are looked at, and budgets are held.
const TICK: Duration = Duration::from_secs(1);

/// How often what was learned is saved. Losing a minute of it costs nothing to speak of.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// Moves blobs in the background until dropped.
#[derive(Debug)]
pub struct Mover {
    tiers: Arc<Tiers>,
    thread: Option<JoinHandle<()>>,
}

impl Mover {
    /// Starts the thread; none where there is nothing to decide.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the system gives no thread.
    pub fn start(tiers: &Arc<Tiers>) -> Result<Self, StorageError> {
        let thread = if tiers.keeps_books() {
            let moving = Arc::clone(tiers);
            let started =
                std::thread::Builder::new().name("helios-tiers".to_owned()).spawn(move || run(&moving));
            Some(started.map_err(|error| {
                StorageError::io("start a thread for", tiers.directories[tiers.main].dir(), error)
            })?)
        } else {
            None
        };
        Ok(Self { tiers: Arc::clone(tiers), thread })
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.tiers.queue.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that moves blobs panicked");
        }
    }
}

fn run(tiers: &Arc<Tiers>) {
    tiers.probe();
    let mut saved_at = Clock.now();
    while !tiers.queue.is_stopping() {
        tiers.settle();
        tiers.look_after();
        if saved_at.elapsed() >= SAVE_INTERVAL {
            saved_at = save(tiers);
        }
        tiers.queue.wait(TICK);
    }
    save(tiers);
}

fn save(tiers: &Tiers) -> Instant {
    if let Err(error) = tiers.save() {
        tracing::warn!(%error, "what the tiers have learned is not saved");
    }
    Clock.now()
}

impl Tiers {
    /// Tries directories that failed, notes what file systems have left, and holds budgets. Blocks.
    pub fn look_after(self: &Arc<Self>) {
        self.revive(now_ms());
        self.ledger().readers.forget_closed();
        for id in 0..self.directories.len() {
            self.refresh(id);
            self.trim(id);
        }
    }

    /// Measures directories that were never measured. Blocks for some milliseconds each.
    fn probe(&self) {
        for (id, directory) in self.directories.iter().enumerate() {
            if let Err(error) = directory.probe() {
                self.note_failure(id, &error);
            }
            self.refresh(id);
        }
    }

    /// Remembers what was learned.
    ///
    /// # Errors
    /// [`StorageError::StorageFull`] or [`StorageError::Io`]; what was saved before stays.
    pub fn save(&self) -> Result<(), StorageError> {
        let directories = self.directories.iter().map(|one| (one.dir().to_owned(), one.saved()));
        let uses = self.ledger().predictor.history();
        SavedState { directories: directories.collect(), uses }
            .save(&self.files, self.directories[self.main].dir())
    }
}
