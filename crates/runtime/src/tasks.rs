//! Tasks with a name, an owner, a shutdown signal and an end that somebody waits for.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Clock;

/// Tells everything below its owner to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Says stop. Says nothing new the second time.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether stop was said.
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until stop is said.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }

    /// The future's output, or `None` if stop is said first.
    pub async fn race<F: Future>(&self, future: F) -> Option<F::Output> {
        self.0.run_until_cancelled(future).await
    }

    /// A signal that stops with this one, or earlier on its own.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}

/// The tasks of one owner. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
}

impl Tasks {
    /// Tasks that end when `shutdown` says so.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { tracker: TaskTracker::new(), shutdown }
    }

    /// The signal that tasks of this owner obey.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts a task; `name` stands in its logs.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        use tracing::Instrument;
        let _handle = self.tracker.spawn(future.instrument(tracing::debug_span!("task", name)));
    }

    /// Says stop and waits until every task has ended, at most `grace`. Returns whether all did.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.shutdown.trigger();
        self.tracker.close();
        Clock.timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Shutdown, Tasks};

    #[tokio::test]
    async fn stop_waits_for_tasks_that_obey_and_gives_up_on_others() {
        let obedient = Tasks::new(Shutdown::default());
        let signal = obedient.shutdown().clone();
        obedient.spawn("obeys", async move { signal.triggered().await });
        assert!(obedient.stop(Duration::from_secs(5)).await);

        let stubborn = Tasks::new(Shutdown::default());
        stubborn.spawn("never ends", std::future::pending());
        assert!(!stubborn.stop(Duration::from_millis(10)).await);
    }
}
