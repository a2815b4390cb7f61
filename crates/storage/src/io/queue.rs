//! What waits for a backend: requests in order, each with the buffer it owns. Bounded by the pool, as each has one.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::file::{DIRECT_ALIGNMENT, IoFile};
use super::{Buffer, Reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// One read or write. Everything the kernel may touch lives here until it is done with it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) file: Arc<IoFile>,
    pub(super) direction: Direction,
    pub(super) buffer: Buffer,
    /// Where in the file the buffer's first byte lies.
    start: u64,
    /// Bytes to move, whole blocks in direct I/O.
    total: usize,
    /// Bytes moved.
    done: usize,
    /// What was asked for, counted in the buffer.
    wanted: Range<usize>,
    reply: Reply,
}

impl Request {
    /// `None` if the range cannot be read into the buffer, which the reply then says.
    pub(super) fn read(
        file: &Arc<IoFile>,
        offset: u64,
        length: usize,
        buffer: Buffer,
        reply: Reply,
    ) -> Option<Self> {
        let block = if file.is_direct() { DIRECT_ALIGNMENT } else { 1 };
        let skip = (offset % block as u64) as usize;
        let total = skip.checked_add(length).and_then(|end| end.checked_next_multiple_of(block));
        let Some(total) = total.filter(|total| *total <= buffer.capacity()) else {
            let capacity = buffer.capacity();
            refuse(reply, format!("{length} bytes from {offset} do not fit a buffer of {capacity}"));
            return None;
        };
        let (file, wanted) = (Arc::clone(file), skip..skip + length);
        let start = offset - skip as u64;
        Some(Self { file, direction: Direction::Read, buffer, start, total, done: 0, wanted, reply })
    }

    /// `None` if the buffer cannot be written there, which the reply then says.
    pub(super) fn write(file: &Arc<IoFile>, offset: u64, buffer: Buffer, reply: Reply) -> Option<Self> {
        let total = buffer.len();
        let aligned =
            offset.is_multiple_of(DIRECT_ALIGNMENT as u64) && total.is_multiple_of(DIRECT_ALIGNMENT);
        if file.is_direct() && !aligned {
            refuse(reply, format!("{total} bytes at {offset} are not whole blocks of {DIRECT_ALIGNMENT}"));
            return None;
        }
        let (file, wanted) = (Arc::clone(file), 0..total);
        Some(Self { file, direction: Direction::Write, buffer, start: offset, total, done: 0, wanted, reply })
    }

    /// Whether nobody waits for the outcome any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_canceled()
    }

    /// Whether there is nothing to move.
    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The next piece to move: offset in the file, range in the buffer.
    pub(super) fn rest(&self) -> (u64, Range<usize>) {
        (self.start + self.done as u64, self.done..self.total)
    }

    /// Notes the outcome of one system call; gives the request back while there is more to do, else replies.
    pub(super) fn advance(mut self, moved: io::Result<usize>) -> Option<Self> {
        let moved = match moved {
            Ok(0) if self.direction == Direction::Write && self.done < self.total => {
                self.fail(io::ErrorKind::WriteZero.into());
                return None;
            }
            Ok(moved) => moved,
            Err(error) if is_transient(&error) => return Some(self),
            Err(error) => {
                self.fail(error);
                return None;
            }
        };
        self.done += moved;
        // Direct I/O stops within a block only where the file ends, and cannot be taken up there.
        let ended = moved == 0 || self.file.is_direct() && !self.done.is_multiple_of(DIRECT_ALIGNMENT);
        if self.done < self.total && !ended {
            return Some(self);
        }
        self.finish();
        None
    }

    fn finish(mut self) {
        let end = self.wanted.end.min(self.done).max(self.wanted.start);
        self.buffer.set_content(self.wanted.start..end);
        // Nobody there: the buffer comes back and goes to the pool.
        let _ = self.reply.send(Ok(self.buffer));
    }

    /// Replies with an error; the buffer is back in the pool before that is seen.
    pub(super) fn fail(self, error: io::Error) {
        let Self { buffer, reply, .. } = self;
        drop(buffer);
        let _ = reply.send(Err(error));
    }

    /// Replies that the engine has stopped, and never gives back what the kernel may still write to.
    pub(super) fn abandon(self) {
        let Self { file, buffer, reply, .. } = self;
        std::mem::forget((file, buffer));
        let _ = reply.send(Err(stopped()));
    }
}

fn refuse(reply: Reply, problem: String) {
    let _ = reply.send(Err(io::Error::new(io::ErrorKind::InvalidInput, problem)));
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// Requests that no backend has begun.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    closed: bool,
}

impl Queue {
    /// Adds a request, or fails it if the queue is closed; true if it was empty.
    pub(super) fn push(&self, request: Request) -> bool {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            request.fail(stopped());
            return false;
        }
        state.requests.push_back(request);
        let was_empty = state.requests.len() == 1;
        drop(state);
        self.filled.notify_one();
        was_empty
    }

    /// Waits for a request; `None` once the queue is closed.
    pub(super) fn pop(&self) -> Option<Request> {
        let state = self.lock();
        let waiting = |state: &mut State| state.requests.is_empty() && !state.closed;
        let mut state = self.filled.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        state.requests.pop_front()
    }

    /// Takes everything that is there, and whether the queue is closed.
    pub(super) fn take(&self) -> (VecDeque<Request>, bool) {
        let mut state = self.lock();
        (std::mem::take(&mut state.requests), state.closed)
    }

    /// Lets nothing more in and fails what has not begun.
    pub(super) fn close(&self) {
        let requests = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.requests)
        };
        self.filled.notify_all();
        requests.into_iter().for_each(|request| request.fail(stopped()));
    }

    /// Whether nothing gets in any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn stopped() -> io::Error {
    io::Error::other("the I/O engine has stopped")
}
