//! One worker's `Watch` stream, kept open for as long as the worker is on the list.
//!
//! A stream that breaks, skips a number or falls silent at its start makes the worker not ready at once, and is opened
//! again after a pause that grows to [`PAUSE_MAX`]: a worker that comes back gets requests within about a second.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use helios_api::worker::{UpdateStream, WorkerError, v1};
use helios_runtime::Clock;
use helios_types::ErrorCode;

use crate::fleet::{TrackedWorker, View};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Longest wait for the answer to `Describe`, and for the first update.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Keeps `worker`'s view up to date until it leaves the list.
pub(crate) async fn watch(worker: Arc<TrackedWorker>) {
    let left = worker.left.clone();
    left.race(watch_again_and_again(&worker)).await;
    worker.set_view(None);
}

async fn watch_again_and_again(worker: &TrackedWorker) {
    let mut pause = PAUSE_MIN;
    loop {
        let mut was_reached = false;
        let lost = follow(worker, &mut was_reached).await;
        worker.set_view(None);
        if was_reached {
            tracing::warn!(worker = worker.member.id, error = %lost, "lost sight of a worker");
            pause = PAUSE_MIN;
        } else {
            tracing::debug!(worker = worker.member.id, error = %lost, "a worker does not answer");
        }
        Clock.sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Follows one stream to its end; says why it ended.
async fn follow(worker: &TrackedWorker, was_reached: &mut bool) -> WorkerError {
    let (mut view, mut updates) = match open(worker).await {
        Ok(opened) => opened,
        Err(error) => return error,
    };
    let mut sequence_due = None;
    loop {
        let update = match updates.next().await {
            Some(Ok(update)) => update,
            Some(Err(error)) => return error,
            None => return WorkerError::new(ErrorCode::Unavailable, "the watch stream ended"),
        };
        if sequence_due.is_some_and(|due| due != update.sequence) {
            let message = format!("watch update {} came out of turn", update.sequence);
            return WorkerError::new(ErrorCode::Upstream, message);
        }
        sequence_due = Some(update.sequence + 1);
        *was_reached = true;
        if let Some(status) = update.status {
            view.status = status;
            worker.set_view(Some(view.clone()));
        }
    }
}

/// Asks the worker who it is, and opens its stream.
async fn open(worker: &TrackedWorker) -> Result<(View, UpdateStream), WorkerError> {
    let remote = &worker.member.worker;
    let description = in_time(remote.describe()).await?;
    let model = description.model.unwrap_or_default();
    let expected = worker.member.manifest_digest.to_string();
    if model.manifest_digest != expected {
        let message = format!("serves {} where the list says {expected}", model.manifest_digest);
        return Err(WorkerError::new(ErrorCode::Upstream, message));
    }
    let numerics_id = description.protocol.unwrap_or_default().numerics_id;
    let memory_bytes = description.memory_bytes;
    let updates = in_time(remote.watch()).await?;
    Ok((View { model, numerics_id, memory_bytes, status: v1::Status::default() }, updates))
}

async fn in_time<T>(answer: impl Future<Output = Result<T, WorkerError>>) -> Result<T, WorkerError> {
    match Clock.timeout(ANSWER_MAX, answer).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(WorkerError::new(ErrorCode::Unavailable, elapsed.to_string())),
    }
}
