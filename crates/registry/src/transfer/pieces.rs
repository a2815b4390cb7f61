//! The bytes of a file as batches in order: pieces fetched several at a time, or one stream.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, Stream};
use helios_runtime::Clock;

use super::patience::Patience;
use super::{Answer, Drip, Failure, PIECE_BYTES, Transfer};
use crate::{RegistryError, pace};

/// Bytes of a stream that go to the file at a time: a hop to a blocking thread for each is then free.
const BATCH_BYTES: u64 = 1 << 20;

/// Bytes that follow those before, and what ended them early. What came before a failure is kept.
pub(super) struct Batch {
    pub(super) chunks: Vec<Bytes>,
    pub(super) failure: Option<Failure>,
}

impl Batch {
    pub(super) fn len(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }
}

/// Fetches one file.
pub(super) struct Fetching<'a> {
    pub(super) transfer: &'a Transfer<'a>,
    pub(super) patience: &'a Patience<'a>,
}

impl<'a> Fetching<'a> {
    /// The file from where `answer` begins to its end at `total`: the piece of `answer`, and those behind it.
    pub(super) fn pieces(&'a self, answer: Answer, total: u64) -> impl Stream<Item = Batch> + 'a {
        let first = answer.start..piece_end(answer.start, total);
        let validator = answer.validator.clone();
        let rest = stream::unfold(first.end, move |start| async move {
            (start < total).then(|| (start..piece_end(start, total), piece_end(start, total)))
        });
        let first = stream::iter([(first, Some(answer))]);
        let pieces = first.chain(rest.map(|range| (range, None)));
        pieces
            .map(move |(range, answer)| self.piece(range, answer, total, validator.clone()))
            .buffered(self.transfer.limits.ranges.max(1))
    }

    /// One piece, asked for again until it is whole or patience ends.
    async fn piece(
        &self,
        range: Range<u64>,
        mut answer: Option<Answer>,
        total: u64,
        validator: Option<http::HeaderValue>,
    ) -> Batch {
        let mut batch = Batch { chunks: Vec::new(), failure: None };
        loop {
            let episode = self.patience.ready().await;
            let missing = range.start + batch.len()..range.end;
            let come = match answer.take() {
                Some(answer) => self.fill(&mut batch.chunks, answer, &missing).await,
                None => match self.transfer.origin.open(missing.clone(), validator.as_ref()).await {
                    Ok(answer) if !continues(&answer, &missing, total) => {
                        batch.failure = Some(Failure::Changed);
                        return batch;
                    }
                    Ok(answer) => self.fill(&mut batch.chunks, answer, &missing).await,
                    Err(error) => Err(error),
                },
            };
            let Err(error) = come else { return batch };
            if let Err(error) = self.patience.failed(episode, error) {
                batch.failure = Some(error.into());
                return batch;
            }
        }
    }

    /// Takes what is missing of a piece out of an answer.
    async fn fill(
        &self,
        chunks: &mut Vec<Bytes>,
        mut answer: Answer,
        missing: &Range<u64>,
    ) -> Result<(), RegistryError> {
        let mut left = missing.end - missing.start;
        let mut flow = Flow::new(self);
        while let Some(chunk) = flow.next(&mut answer).await? {
            if chunk.len() as u64 > left {
                return Err(
                    flow.lied(format!("more than the {} bytes asked for", missing.end - missing.start))
                );
            }
            left -= chunk.len() as u64;
            chunks.push(chunk);
        }
        if left > 0 {
            let problem = format!("it ended {left} bytes early");
            return Err(RegistryError::OriginUnreachable { url: self.transfer.origin.shown(), problem });
        }
        Ok(())
    }

    /// The rest of the file as it comes, at most `limit` bytes; exactly as many if `is_exact`.
    pub(super) fn stream(
        &'a self,
        answer: Answer,
        limit: u64,
        is_exact: bool,
    ) -> impl Stream<Item = Batch> + 'a {
        let state = Some((answer, limit, Flow::new(self)));
        stream::unfold(state, move |state| async move {
            let (mut answer, mut left, mut flow) = state?;
            let mut batch = Batch { chunks: Vec::new(), failure: None };
            while batch.len() < BATCH_BYTES {
                match flow.next(&mut answer).await {
                    Ok(Some(chunk)) if chunk.len() as u64 > left => {
                        batch.failure =
                            Some(flow.lied(format!("more than the {limit} bytes it should have")).into());
                        return Some((batch, None));
                    }
                    Ok(Some(chunk)) => {
                        left -= chunk.len() as u64;
                        batch.chunks.push(chunk);
                    }
                    Err(error) => {
                        batch.failure = Some(error.into());
                        return Some((batch, None));
                    }
                    Ok(None) if is_exact && left > 0 => {
                        batch.failure =
                            Some(flow.lied(format!("{} bytes, expected {limit}", limit - left)).into());
                        return Some((batch, None));
                    }
                    Ok(None) => return Some((batch, None)),
                }
            }
            Some((batch, Some((answer, left, flow))))
        })
    }
}

/// Watches bytes pass: counts them, and finds out silence and a drip.
struct Flow<'a> {
    fetching: &'a Fetching<'a>,
    drip: Drip,
}

impl<'a> Flow<'a> {
    fn new(fetching: &'a Fetching<'a>) -> Self {
        Self { fetching, drip: Drip::new(fetching.transfer.limits.stall_timeout) }
    }

    /// The next bytes. They are looked for before the time: a reader who was busy elsewhere does not blame the origin.
    async fn next(&mut self, answer: &mut Answer) -> Result<Option<Bytes>, RegistryError> {
        let limit = self.fetching.transfer.limits.stall_timeout;
        match Clock.timeout(limit, answer.body.next()).await {
            Err(_elapsed) => {
                let problem = "it stalled".to_owned();
                Err(RegistryError::OriginUnreachable { url: self.fetching.transfer.origin.shown(), problem })
            }
            Ok(None) => Ok(None),
            Ok(Some(chunk)) => {
                let chunk = self.pass(chunk?)?;
                pace::keep(chunk.len() as u64).await;
                Ok(Some(chunk))
            }
        }
    }

    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, RegistryError> {
        let origin = self.fetching.transfer.origin;
        self.fetching.patience.received(chunk.len());
        crate::metrics::fetched(origin.kind(), chunk.len());
        let passed = self.drip.pass(chunk.len());
        passed.map_err(|problem| RegistryError::OriginUnreachable { url: origin.shown(), problem })?;
        Ok(chunk)
    }

    fn lied(&self, problem: String) -> RegistryError {
        RegistryError::OriginLied { url: self.fetching.transfer.origin.shown(), problem }
    }
}

/// Whether an answer is of the same file and begins where it should.
fn continues(answer: &Answer, missing: &Range<u64>, total: u64) -> bool {
    answer.is_part && answer.start == missing.start && answer.length.is_none_or(|length| length == total)
}

/// The end of the piece that `start` lies in.
fn piece_end(start: u64, total: u64) -> u64 {
    ((start / PIECE_BYTES + 1) * PIECE_BYTES).min(total)
}
