//! Opens the stream of one request: picks a worker, and before the first token tries one other if the first is gone or
//! full. Once a token has arrived, the request belongs to its worker.

use std::sync::Arc;
use std::time::Duration;

use helios_api::ApiError;
use helios_api::worker::{WorkerError, v1};
use helios_types::ErrorCode;

use crate::fleet::{Fleet, TrackedWorker};
use crate::metrics;
use crate::route::{Need, Router};
use crate::token_stream::{Limits, TokenStream};

/// Workers tried for one request.
const ATTEMPTS_MAX: usize = 2;

/// Chunks without a token that a stream may begin with: one with the prompt's figures, and some slack.
const OPENING_CHUNKS_MAX: usize = 8;

/// What a client without a ready worker is told to wait: a load takes about this long.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A stream that has shown its first token, or its end.
pub(crate) struct Opened {
    /// What has been read: at least one chunk; the last has a token or a finish.
    pub(crate) opening: Vec<v1::GenerateChunk>,
    pub(crate) rest: TokenStream,
}

/// Opens a stream for `request` on a worker that meets `need`.
///
/// # Errors
/// `Unavailable` if no worker is ready; the worker's error if it cannot answer either.
pub(crate) async fn dispatch(
    fleet: &Fleet,
    router: &Router,
    need: Need,
    limits: Limits,
    request: &v1::GenerateRequest,
) -> Result<Opened, ApiError> {
    let mut failed: Option<(Arc<TrackedWorker>, WorkerError)> = None;
    for _ in 0..ATTEMPTS_MAX {
        let except = failed.as_ref().map(|(worker, _)| worker.as_ref());
        let Some(worker) = router.pick(fleet, need, except) else { break };
        match open(&worker, limits, request.clone()).await {
            Ok(opened) => return Ok(opened),
            Err(error) if is_elsewhere(error.code) => {
                metrics::retried();
                tracing::warn!(worker = worker.member.id, %error, "a worker failed before its first token");
                failed = Some((worker, error));
            }
            Err(error) => return Err(client_error(error)),
        }
    }
    Err(failed.map_or_else(none_ready, |(_, error)| client_error(error)))
}

/// Whether another worker may do better.
fn is_elsewhere(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unavailable | ErrorCode::Overloaded)
}

async fn open(
    worker: &Arc<TrackedWorker>,
    limits: Limits,
    request: v1::GenerateRequest,
) -> Result<Opened, WorkerError> {
    let ticket = worker.ticket(request.prompt.len() as u64);
    let chunks = match helios_runtime::Clock
        .timeout(limits.chunk_wait_max, worker.member.worker.generate(request))
        .await
    {
        Ok(chunks) => chunks?,
        Err(elapsed) => return Err(WorkerError::new(ErrorCode::DeadlineExceeded, elapsed.to_string())),
    };
    let mut rest = TokenStream::new(chunks, ticket, limits);
    let mut opening = Vec::with_capacity(1);
    while opening.len() < OPENING_CHUNKS_MAX {
        let Some(chunk) = rest.next().await? else { break };
        let begins = !chunk.tokens.is_empty() || chunk.finish.is_some();
        opening.push(chunk);
        if begins {
            return Ok(Opened { opening, rest });
        }
    }
    let message = format!("worker `{}` sent {OPENING_CHUNKS_MAX} chunks without a token", rest.worker_id());
    Err(WorkerError::new(ErrorCode::Upstream, message))
}

fn none_ready() -> ApiError {
    let message = "no worker of this model is ready for the request";
    ApiError { retry_after: Some(RETRY_AFTER), ..ApiError::new(ErrorCode::Unavailable, message) }
}

/// A worker's error as its client sees it.
pub(crate) fn client_error(error: WorkerError) -> ApiError {
    let retry_after = is_elsewhere(error.code).then_some(RETRY_AFTER);
    ApiError { retry_after, ..ApiError::new(error.code, error.message) }
}
