//! Asynchronous file I/O: ranges of files read into, and written from, pooled buffers.
//!
//! An [`IoEngine`] has one of two backends that behave the same (one conformance suite runs both): io_uring with
//! registered buffers, and a pool of threads that call `pread` and `pwrite`. Its invariants:
//! - bytes in flight are bounded by the pool; who wants a buffer while none is free waits;
//! - a buffer in flight belongs to the backend, not to the future that waits for it: dropping the future at any time
//!   neither leaks the buffer nor lets the kernel write into one that somebody else holds;
//! - futures need no runtime; [`block_on`] waits for one on an ordinary thread.

mod backend;
mod file;
mod pool;
mod queue;
mod threads;
mod uring;
mod wait;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures::channel::oneshot;

use backend::Backend;
pub use backend::{IoBackend, IoChoice, IoReport};
pub use file::{DIRECT_ALIGNMENT, IoFile};
use pool::Pool;
pub use pool::{Buffer, Region};
use queue::Request;
pub use wait::block_on;

/// Size of an engine's pool, which is also the bound on its bytes in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoOptions {
    /// Which backend.
    pub choice: IoChoice,
    /// Buffers in the pool, 1 to 32,768.
    pub buffers: usize,
    /// Bytes of one buffer: a power of two, 4 KiB to 1 GiB.
    pub buffer_bytes: usize,
}

impl Default for IoOptions {
    /// 32 buffers of 1 MiB: enough in flight to reach the disk's rate, little enough to stay in the last-level cache.
    fn default() -> Self {
        Self { choice: IoChoice::Auto, buffers: 32, buffer_bytes: 1 << 20 }
    }
}

/// Reads and writes ranges of files. Dropping it waits for what is in flight; what has not begun fails.
pub struct IoEngine {
    pool: Arc<Pool>,
    backend: Backend,
}

impl IoEngine {
    /// Makes the pool, faults it in, registers it where the kernel lets it, and starts the backend.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for options out of range; [`io::ErrorKind::Unsupported`] if io_uring was asked
    /// for and is not to be had; no memory.
    pub fn start(options: &IoOptions) -> io::Result<Self> {
        let pool = Arc::new(Pool::new(options.buffers, options.buffer_bytes)?);
        let backend = Backend::start(options.choice, &pool)?;
        Ok(Self { pool, backend })
    }

    /// The engine that this process shares, started at its first use.
    ///
    /// # Errors
    /// Those of [`IoEngine::start`].
    pub fn shared() -> io::Result<&'static Self> {
        static SHARED: OnceLock<Result<IoEngine, String>> = OnceLock::new();
        let options = || IoOptions { choice: IoChoice::of_process(), ..IoOptions::default() };
        let shared = SHARED.get_or_init(|| Self::start(&options()).map_err(|error| error.to_string()));
        shared.as_ref().map_err(|problem| io::Error::other(problem.as_str()))
    }

    /// Which backend runs, and why.
    pub fn report(&self) -> &IoReport {
        self.backend.report()
    }

    /// Buffers that nobody holds.
    pub fn free_buffers(&self) -> usize {
        self.pool.free()
    }

    /// Whether the backend broke: nothing is read or written through this engine any more.
    pub fn has_stopped(&self) -> bool {
        self.backend.has_stopped()
    }

    /// A free buffer, waiting for one where there is none; first come, first served.
    ///
    /// # Errors
    /// The engine has stopped.
    pub async fn buffer(&self) -> io::Result<Buffer> {
        Arc::clone(&self.pool).acquire().await
    }

    /// A free buffer, if there is one now.
    pub fn try_buffer(&self) -> Option<Buffer> {
        self.pool.acquire_run(1)?.pop()
    }

    /// Neighbouring buffers for `bytes` in one piece, or `None` where no such run is free now.
    pub fn run(&self, bytes: usize) -> Option<Vec<Buffer>> {
        self.pool.acquire_run(bytes.div_ceil(self.pool.buffer_bytes()))
    }

    /// Reads up to `length` bytes from `offset`; fewer only where the file ends. Any range, also of a file opened past
    /// the page cache, as long as the blocks it touches fit the buffer. The read is under way when this returns.
    pub fn read(&self, file: &Arc<IoFile>, offset: u64, length: usize, buffer: Buffer) -> Operation {
        self.begin(|reply| Request::read(file, offset, length, buffer, reply))
    }

    /// Writes the whole buffer at `offset` and gives it back. A file opened past the page cache takes whole blocks of
    /// [`DIRECT_ALIGNMENT`] bytes only. The write is under way when this returns.
    pub fn write(&self, file: &Arc<IoFile>, offset: u64, buffer: Buffer) -> Operation {
        self.begin(|reply| Request::write(file, offset, buffer, reply))
    }

    fn begin(&self, request: impl FnOnce(Reply) -> Option<Request>) -> Operation {
        let (reply, outcome) = oneshot::channel();
        if let Some(request) = request(reply) {
            self.backend.submit(request);
        }
        Operation(outcome)
    }
}

impl fmt::Debug for IoEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoEngine").field("report", self.report()).finish_non_exhaustive()
    }
}

/// Where a backend sends the outcome of a request.
type Reply = oneshot::Sender<io::Result<Buffer>>;

/// A read or write under way. Dropping it abandons the outcome: what has begun ends by itself, what has not is left out.
#[derive(Debug)]
pub struct Operation(oneshot::Receiver<io::Result<Buffer>>);

impl Operation {
    /// Blocks this thread until the operation is over.
    ///
    /// # Errors
    /// What the system said; the buffer is back in the pool.
    pub fn wait(self) -> io::Result<Buffer> {
        block_on(self)
    }
}

impl Future for Operation {
    type Output = io::Result<Buffer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(outcome.unwrap_or_else(|_| Err(io::Error::other("the I/O engine has stopped"))))
    }
}
