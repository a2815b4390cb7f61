//! The io_uring backend: one thread owns the ring, submits what the queue holds and completes what the kernel returns.
//!
//! One thread, because requests of a thread that ends are cancelled by the kernel, and because a ring with a single
//! issuer completes without interrupting anybody. A pipe, read through the ring itself, wakes it for new requests.

#![allow(unsafe_code)]

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{IoUring, Probe, opcode, squeue};

use super::pool::Pool;
use super::queue::{Direction, Queue, Request};

/// Marks the completion of the pipe's read; requests count from 0.
const WAKE: u64 = u64::MAX;
/// Most that one registered buffer may have; the pool is registered in pieces of this size.
const REGISTERED_BYTES_MAX: usize = 1 << 30;
/// How long a kernel that is short of memory for requests is left alone.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(1);
/// What the backend needs of the kernel: Linux 5.6.
const OPCODES: [u8; 4] =
    [opcode::Read::CODE, opcode::Write::CODE, opcode::ReadFixed::CODE, opcode::WriteFixed::CODE];

/// Handle of the thread with the ring; joined when dropped.
pub(super) struct Uring {
    queue: Arc<Queue>,
    wake: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

impl Uring {
    /// Starts the thread; says whether the pool could be registered.
    ///
    /// # Errors
    /// The kernel has no io_uring, or forbids it.
    pub(super) fn start(pool: &Arc<Pool>) -> io::Result<(Self, bool)> {
        let (woken, wake) = io::pipe()?;
        let queue = Arc::<Queue>::default();
        let (started, outcome) = mpsc::channel();
        let (pool, for_driver) = (Arc::clone(pool), Arc::clone(&queue));
        let thread = Builder::new().name("helios-io-uring".to_owned()).spawn(move || {
            match Driver::new(pool, for_driver, woken) {
                Ok(driver) => {
                    let _ = started.send(Ok(driver.registered));
                    driver.run();
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        let registered = outcome.recv().map_err(io::Error::other)??;
        Ok((Self { queue, wake, thread: Some(thread) }, registered))
    }

    pub(super) fn submit(&self, request: Request) {
        if self.queue.push(request) {
            self.wake();
        }
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.queue.is_closed()
    }

    fn wake(&self) {
        // The reader goes away only when the driver ends, which fails the queue's requests itself.
        let _ = (&self.wake).write_all(&[1]);
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.queue.close();
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's state. Whatever the kernel may write to stays in `flying` until its completion was seen.
struct Driver {
    ring: IoUring,
    queue: Arc<Queue>,
    /// Registered with the ring, and so kept for longer than it.
    pool: Arc<Pool>,
    registered: bool,
    flying: Vec<Option<Request>>,
    vacant: Vec<usize>,
    wake_pipe: PipeReader,
    /// Where the pipe's bytes go.
    wake_bytes: Vec<u8>,
    wake_armed: bool,
}

impl Driver {
    fn new(pool: Arc<Pool>, queue: Arc<Queue>, wake_pipe: PipeReader) -> io::Result<Self> {
        let buffers = pool.buffers();
        let ring = build_ring(buffers as u32 + 1)?;
        let registered = register(&ring, &pool).is_ok();
        Ok(Self {
            ring,
            queue,
            pool,
            registered,
            flying: (0..buffers).map(|_| None).collect(),
            vacant: (0..buffers).rev().collect(),
            wake_pipe,
            wake_bytes: vec![0; 64],
            wake_armed: false,
        })
    }

    fn run(mut self) {
        loop {
            let (requests, closed) = self.queue.take();
            for request in requests.into_iter().filter(|request| !request.is_abandoned()) {
                self.launch(request);
            }
            if closed && self.is_idle() && !self.wake_armed {
                return;
            }
            if !closed && !self.wake_armed {
                self.arm_wake();
            }
            match self.ring.submit_and_wait(1) {
                Err(error) if is_shortage(&error) => thread::sleep(SHORTAGE_PAUSE),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    tracing::error!(%error, "io_uring failed; its engine stops");
                    return;
                }
                _ => {}
            }
            self.complete();
        }
    }

    fn is_idle(&self) -> bool {
        self.vacant.len() == self.flying.len()
    }

    /// Puts a request into a place and before the kernel.
    fn launch(&mut self, request: Request) {
        if request.is_empty() {
            request.advance(Ok(0));
            return;
        }
        let place =
            self.vacant.pop().expect("invariant: as many places as buffers, and every request has one");
        self.submit(place, request);
    }

    fn submit(&mut self, place: usize, request: Request) {
        let entry = self.entry(&request).user_data(place as u64);
        self.flying[place] = Some(request);
        self.push(&entry);
    }

    fn entry(&self, request: &Request) -> squeue::Entry {
        let (offset, range) = request.rest();
        let fd = Fd(request.file.file().as_raw_fd());
        // SAFETY: `rest` lies in the slot.
        let address = unsafe { request.buffer.start().add(range.start) };
        let (length, index) = (range.len() as u32, (request.buffer.offset() / REGISTERED_BYTES_MAX) as u16);
        match (request.direction, self.registered) {
            (Direction::Read, true) => {
                opcode::ReadFixed::new(fd, address, length, index).offset(offset).build()
            }
            (Direction::Read, false) => opcode::Read::new(fd, address, length).offset(offset).build(),
            (Direction::Write, true) => {
                opcode::WriteFixed::new(fd, address, length, index).offset(offset).build()
            }
            (Direction::Write, false) => opcode::Write::new(fd, address, length).offset(offset).build(),
        }
    }

    fn arm_wake(&mut self) {
        let (address, length) = (self.wake_bytes.as_mut_ptr(), self.wake_bytes.len() as u32);
        let read = opcode::Read::new(Fd(self.wake_pipe.as_raw_fd()), address, length).build();
        self.push(&read.user_data(WAKE));
        self.wake_armed = true;
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: file, buffer and pipe of the entry belong to the driver, which keeps them until the completion was
        // seen, and leaks them if it cannot wait for that (`drop`).
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("invariant: the ring has a place for every buffer and the pipe");
    }

    fn complete(&mut self) {
        let completions: Vec<(u64, i32)> =
            self.ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        for (place, result) in completions {
            if place == WAKE {
                self.wake_armed = false;
                continue;
            }
            let place = place as usize;
            let request = self.flying[place].take();
            let request = request.expect("invariant: a completion belongs to a request under way");
            let moved = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            match request.advance(moved) {
                Some(rest) => self.submit(place, rest),
                None => self.vacant.push(place),
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.queue.close();
        if !self.is_idle() || self.wake_armed {
            // The ring broke, or the driver panicked: the kernel may still write into what is under way, so that it
            // must never be handed out again.
            self.pool.close();
            self.flying.drain(..).flatten().for_each(Request::abandon);
            std::mem::forget(std::mem::take(&mut self.wake_bytes));
        }
    }
}

/// Whether the kernel wants completions taken, or has no memory for requests just now.
fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, ResourceBusy, WouldBlock};
    matches!(error.kind(), ResourceBusy | WouldBlock | OutOfMemory)
}

/// A ring that its thread alone submits to and that completes only when asked (Linux 6.1), or a plain one.
fn build_ring(entries: u32) -> io::Result<IoUring> {
    let tuned = IoUring::builder().setup_clamp().setup_single_issuer().setup_defer_taskrun().build(entries);
    let ring = match tuned {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            IoUring::builder().setup_clamp().build(entries)
        }
        tuned => tuned,
    }?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if OPCODES.iter().all(|code| probe.is_supported(*code)) {
        return Ok(ring);
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring cannot read and write ranges"))
}

/// Registers the whole pool, once. Fails where the limit on locked memory is below the pool's size.
fn register(ring: &IoUring, pool: &Pool) -> io::Result<()> {
    let bytes = pool.buffers() * pool.buffer_bytes();
    let pieces = (0..bytes).step_by(REGISTERED_BYTES_MAX).map(|start| libc::iovec {
        iov_base: pool.first().wrapping_add(start).cast(),
        iov_len: REGISTERED_BYTES_MAX.min(bytes - start),
    });
    let pieces: Vec<_> = pieces.collect();
    // SAFETY: the pieces lie in the pool's mapping, which the driver keeps for longer than its ring.
    unsafe { ring.submitter().register_buffers(&pieces) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use futures::channel::oneshot;

    use super::Driver;
    use crate::io::block_on;
    use crate::io::file::IoFile;
    use crate::io::pool::Pool;
    use crate::io::queue::{Queue, Request};

    #[test]
    fn what_was_under_way_when_the_ring_broke_fails_and_its_buffer_is_never_given_out_again() {
        let pool = Arc::new(Pool::new(2, 4096).expect("a pool"));
        let (woken, _wake) = io::pipe().expect("a pipe");
        let Ok(mut driver) = Driver::new(Arc::clone(&pool), Arc::<Queue>::default(), woken) else { return };
        // Nobody ever writes: the read is under way until the ring goes.
        let (silent, _writer) = io::pipe().expect("a pipe");
        let file = Arc::new(IoFile::buffered(File::from(OwnedFd::from(silent))));
        let buffer = block_on(Arc::clone(&pool).acquire()).expect("a buffer");
        let (reply, outcome) = oneshot::channel();
        driver.launch(Request::read(&file, 0, 100, buffer, reply).expect("it fits"));
        driver.ring.submit().expect("submitted");
        drop(driver);
        let error = block_on(outcome).expect("an answer").expect_err("the ring is gone");
        assert!(error.to_string().contains("stopped"), "{error}");
        assert_eq!(pool.free(), 1, "the kernel may still write into the other");
        let error = block_on(pool.acquire()).expect_err("nobody waits for ever");
        assert!(error.to_string().contains("stopped"), "{error}");
    }
}
