//! The chunks of one answer, proven to be whole: every token once, in order, then a finish.
//!
//! Whatever breaks that (a gap, a repeat, a missing log-probability, an end without a finish, silence) is an error here,
//! so that nothing behind this file can take a broken stream for a complete one.

use std::time::Duration;

use futures::StreamExt;
use helios_api::worker::{ChunkStream, WorkerError, v1};
use helios_runtime::Clock;
use helios_types::ErrorCode;

use crate::fleet::Ticket;

/// A worker's answer. Dropping it cancels the request at the worker and takes it off the worker's load.
pub(crate) struct TokenStream {
    chunks: ChunkStream,
    /// Taken off the worker's load with the stream.
    ticket: Ticket,
    limits: Limits,
    next_index: u32,
    is_finished: bool,
}

/// What the request allows the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_tokens: u32,
    pub(crate) wants_logprobs: bool,
    pub(crate) chunk_wait_max: Duration,
}

impl TokenStream {
    pub(crate) fn new(chunks: ChunkStream, ticket: Ticket, limits: Limits) -> Self {
        Self { chunks, ticket, limits, next_index: 0, is_finished: false }
    }

    /// Id of the worker that answers.
    pub(crate) fn worker_id(&self) -> &str {
        &self.ticket.worker().member.id
    }

    /// The next chunk; `None` after the one with the finish.
    pub(crate) async fn next(&mut self) -> Result<Option<v1::GenerateChunk>, WorkerError> {
        if self.is_finished {
            return Ok(None);
        }
        let chunk = match Clock.timeout(self.limits.chunk_wait_max, self.chunks.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(error))) => return Err(error),
            Ok(None) => return Err(self.broken("ended its stream without a finish")),
            Err(elapsed) => {
                let message = format!("worker `{}` sent {elapsed}", self.worker_id());
                return Err(WorkerError::new(ErrorCode::DeadlineExceeded, message));
            }
        };
        self.check(&chunk)?;
        self.ticket.started();
        Ok(Some(chunk))
    }

    fn check(&mut self, chunk: &v1::GenerateChunk) -> Result<(), WorkerError> {
        if chunk.first_index != self.next_index {
            let problem = format!("sent token {} where {} was due", chunk.first_index, self.next_index);
            return Err(self.broken(&problem));
        }
        let room = self.limits.max_tokens - self.next_index;
        let tokens = u32::try_from(chunk.tokens.len()).unwrap_or(u32::MAX);
        if tokens > room {
            return Err(self.broken("sent more tokens than were asked for"));
        }
        if self.limits.wants_logprobs && chunk.logprobs.len() != chunk.tokens.len() {
            return Err(self.broken("sent tokens without their log-probabilities"));
        }
        self.next_index += tokens;
        self.is_finished = chunk.finish.is_some();
        Ok(())
    }

    fn broken(&self, problem: &str) -> WorkerError {
        WorkerError::new(ErrorCode::Upstream, format!("worker `{}` {problem}", self.worker_id()))
    }
}
