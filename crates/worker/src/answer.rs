//! One running request: the engine's events become the protocol's chunks.
//!
//! Tokens that are ready together travel in one chunk. A stream ends after a chunk with `finish`, or with an error;
//! whatever else the engine does (stopping, vanishing, miscounting) becomes an error too, never a clean end. Dropping
//! the stream drops the events, which cancels the request within one step.

use futures::{StreamExt, stream};
use helios_api::worker::{ChunkStream, WorkerError, v1};
use helios_engine::{Event, Events, FinishReason, Token, TokenLogprobs};
use helios_types::ErrorCode;
use tokio::sync::watch;

/// Most tokens in one chunk: a reader that fell behind gets several small messages rather than one of any size.
const CHUNK_TOKENS_MAX: usize = 256;

/// A place in the count of running answers; frees itself.
pub(crate) struct InFlight(watch::Sender<usize>);

impl InFlight {
    pub(crate) fn enter(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|running| *running += 1);
        Self(count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

/// The chunks of `events`, the first token of which has index `first_index`.
pub(crate) fn chunks(events: Events, first_index: usize, in_flight: InFlight) -> ChunkStream {
    let answer =
        Answer { events, next_index: first_index, ended: false, failure: None, _in_flight: in_flight };
    stream::try_unfold(answer, |mut answer| async move {
        Ok(answer.next_chunk().await?.map(|chunk| (chunk, answer)))
    })
    .boxed()
}

struct Answer {
    events: Events,
    next_index: usize,
    ended: bool,
    /// Told after the tokens that were ready before it.
    failure: Option<WorkerError>,
    _in_flight: InFlight,
}

impl Answer {
    /// The next chunk with tokens or a finish; `None` after the finish.
    async fn next_chunk(&mut self) -> Result<Option<v1::GenerateChunk>, WorkerError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.ended {
            return Ok(None);
        }
        let mut chunk =
            v1::GenerateChunk { first_index: wire(self.next_index), ..v1::GenerateChunk::default() };
        while !self.ended && chunk.tokens.len() < CHUNK_TOKENS_MAX {
            let event = if chunk.tokens.is_empty() {
                self.events.next().await.ok_or_else(vanished)?
            } else {
                let Some(event) = self.events.try_next() else { break };
                event
            };
            match self.apply(event, &mut chunk) {
                Ok(()) => {}
                Err(error) if chunk.tokens.is_empty() => return Err(error),
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        Ok(Some(chunk))
    }

    fn apply(&mut self, event: Event, chunk: &mut v1::GenerateChunk) -> Result<(), WorkerError> {
        match event {
            Event::Started { prompt_tokens, cached_tokens } => {
                let prompt = chunk.prompt.get_or_insert_default();
                prompt.prompt_tokens = wire(prompt_tokens);
                prompt.cached_tokens = wire(cached_tokens);
            }
            Event::PromptLogprobs(logprobs) => {
                let prompt = chunk.prompt.get_or_insert_default();
                prompt.logprobs = logprobs.into_iter().flatten().map(wire_logprobs).collect();
            }
            Event::Token(token) => self.push(token, chunk)?,
            Event::Finished(finish) => {
                chunk.finish = Some(wire_finish(finish.reason)?);
                self.ended = true;
            }
            Event::Failed(error) => return Err(WorkerError::of(&error)),
        }
        Ok(())
    }

    fn push(&mut self, token: Token, chunk: &mut v1::GenerateChunk) -> Result<(), WorkerError> {
        if token.index != self.next_index {
            let message = format!("the engine gave token {} where {} was due", token.index, self.next_index);
            return Err(WorkerError::new(ErrorCode::Internal, message));
        }
        self.next_index += 1;
        chunk.tokens.push(token.id);
        chunk.logprobs.extend(token.logprobs.map(wire_logprobs));
        Ok(())
    }
}

fn wire_finish(reason: FinishReason) -> Result<v1::Finish, WorkerError> {
    let (reason, stop_token) = match reason {
        FinishReason::Stop { token } => (v1::FinishReason::Stop, Some(token)),
        FinishReason::Length => (v1::FinishReason::Length, None),
        FinishReason::Cancelled => {
            return Err(WorkerError::new(ErrorCode::Unavailable, "the worker was shut down"));
        }
    };
    Ok(v1::Finish { reason: reason.into(), stop_token })
}

fn wire_logprobs(logprobs: TokenLogprobs) -> v1::TokenLogprobs {
    let TokenLogprobs { id, logprob, top } = logprobs;
    // The engine ranks only the alternatives it reports; 0 says that the token is behind all of them.
    let rank = top.iter().position(|&(token, _)| token == id).map_or(0, |place| place + 1);
    let top = top.into_iter().map(|(token, logprob)| v1::Alternative { token, logprob }).collect();
    v1::TokenLogprobs { token: id, logprob, rank: wire(rank), top }
}

/// A count as the wire has it.
fn wire(count: usize) -> u32 {
    u32::try_from(count).expect("invariant: tokens of one sequence are far below 2^32")
}

fn vanished() -> WorkerError {
    WorkerError::new(ErrorCode::Internal, "the engine left the answer without an end")
}
