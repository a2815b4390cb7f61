//! The backend that every system has: threads that call `pread` and `pwrite`.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::queue::{Direction, Queue, Request};

/// Enough to keep a disk's queue busy; more only wait.
const THREADS_MAX: usize = 8;

/// Threads that serve one queue; joined when dropped.
#[derive(Debug)]
pub(super) struct Threads {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(buffers: usize) -> io::Result<Self> {
        let mut started = Self { queue: Arc::default(), threads: Vec::new() };
        for number in 0..buffers.min(THREADS_MAX) {
            let queue = Arc::clone(&started.queue);
            let thread = Builder::new().name(format!("helios-io-{number}")).spawn(move || serve(&queue))?;
            started.threads.push(thread);
        }
        Ok(started)
    }

    pub(super) fn submit(&self, request: Request) {
        self.queue.push(request);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; its buffer is back in the pool.
            let _ = thread.join();
        }
    }
}

fn serve(queue: &Queue) {
    while let Some(request) = queue.pop() {
        let mut next = Some(request).filter(|request| !request.is_abandoned());
        while let Some(mut request) = next {
            let moved = transfer(&mut request);
            next = request.advance(moved);
        }
    }
}

/// One system call.
fn transfer(request: &mut Request) -> io::Result<usize> {
    let (offset, range) = request.rest();
    let file = Arc::clone(&request.file);
    let bytes = request.buffer.bytes_mut(range);
    match request.direction {
        Direction::Read => file.file().read_at(bytes, offset),
        Direction::Write => file.file().write_at(bytes, offset),
    }
}
