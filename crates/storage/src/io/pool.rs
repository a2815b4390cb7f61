//! The buffers: one anonymous mapping, faulted in once, cut into slots of equal size.
//!
//! Fresh memory, not the disk, decides how long a load takes where a hypervisor backs it lazily (2.7 GB: 7.5 s the first
//! time, 0.14 s after that), so that slots are used again and never given back to the system. A slot has one
//! [`Buffer`] at most; who drops it hands the slot to the next that waits.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;
use memmap2::{Advice, MmapMut, MmapOptions};

use super::queue::stopped;

const BUFFERS_MAX: usize = 32_768;
const BUFFER_BYTES_MIN: usize = 4096;
const BUFFER_BYTES_MAX: usize = 1 << 30;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The memory of one engine.
pub(super) struct Pool {
    /// Keeps the mapping; touched through `first` alone.
    _memory: MmapMut,
    /// Beginning of slot 0, aligned to a huge page.
    first: NonNull<u8>,
    buffer_bytes: usize,
    slots: Mutex<Slots>,
}

// SAFETY: `first` points into the mapping that the pool owns; bytes of a slot are reached only through its one buffer.
unsafe impl Send for Pool {}
// SAFETY: as above; everything else in the pool is behind a lock.
unsafe impl Sync for Pool {}

struct Slots {
    is_free: Vec<bool>,
    free: usize,
    /// Who waits for a buffer, in order; those who went away are taken out when the next one comes.
    waiting: VecDeque<oneshot::Sender<Buffer>>,
    /// Whether the backend broke, so that buffers may never come back.
    closed: bool,
}

impl Pool {
    pub(super) fn new(buffers: usize, buffer_bytes: usize) -> io::Result<Self> {
        let in_range = (1..=BUFFERS_MAX).contains(&buffers)
            && (BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX).contains(&buffer_bytes)
            && buffer_bytes.is_power_of_two();
        if !in_range {
            let problem = format!("a pool cannot have {buffers} buffers of {buffer_bytes} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let bytes = buffers * buffer_bytes;
        let mut memory = MmapOptions::new().len(bytes + HUGE_PAGE_BYTES).map_anon()?;
        let skip = memory.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // Both are about speed alone: a kernel that refuses them still has the memory.
        let _ = memory.advise_range(Advice::HugePage, skip, bytes);
        let _ = memory.advise_range(Advice::PopulateWrite, skip, bytes);
        let first = NonNull::from(&mut memory[skip]);
        let slots =
            Slots { is_free: vec![true; buffers], free: buffers, waiting: VecDeque::new(), closed: false };
        Ok(Self { _memory: memory, first, buffer_bytes, slots: Mutex::new(slots) })
    }

    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Buffers that nobody holds.
    pub(super) fn free(&self) -> usize {
        self.lock().free
    }

    /// Buffers in all.
    pub(super) fn buffers(&self) -> usize {
        self.lock().is_free.len()
    }

    /// Where slot 0 begins; the others follow without gaps.
    pub(super) fn first(&self) -> *mut u8 {
        self.first.as_ptr()
    }

    pub(super) async fn acquire(self: Arc<Self>) -> io::Result<Buffer> {
        let granted = {
            let mut slots = self.lock();
            if slots.closed {
                return Err(stopped());
            }
            if let Some(slot) = slots.take_run(1) {
                return Ok(Buffer::new(&self, slot));
            }
            let (grant, granted) = oneshot::channel();
            slots.waiting.retain(|waiter| !waiter.is_canceled());
            slots.waiting.push_back(grant);
            granted
        };
        granted.await.map_err(|_| stopped())
    }

    /// Gives nobody anything any more, and tells those who wait.
    pub(super) fn close(&self) {
        let mut slots = self.lock();
        slots.closed = true;
        slots.waiting.clear();
    }

    pub(super) fn acquire_run(self: &Arc<Self>, buffers: usize) -> Option<Vec<Buffer>> {
        let first = self.lock().take_run(buffers)?;
        Some((first..first + buffers).map(|slot| Buffer::new(self, slot)).collect())
    }

    /// Gives a slot to the first who still waits, or back to the pool. Nothing is sent under the lock: a buffer that
    /// comes back takes it again.
    fn release(self: Arc<Self>, slot: usize) {
        loop {
            let waiter = {
                let mut slots = self.lock();
                let Some(waiter) = slots.waiting.pop_front() else {
                    slots.is_free[slot] = true;
                    slots.free += 1;
                    return;
                };
                waiter
            };
            match waiter.send(Buffer::new(&self, slot)) {
                Ok(()) => return,
                Err(mut refused) => refused.pool = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Takes the first `length` neighbouring free slots. O(slots).
    fn take_run(&mut self, length: usize) -> Option<usize> {
        if length == 0 || self.free < length {
            return None;
        }
        let mut run = 0;
        let last = self.is_free.iter().position(|free| {
            run = if *free { run + 1 } else { 0 };
            run == length
        })?;
        let first = last + 1 - length;
        self.is_free[first..=last].fill(false);
        self.free -= length;
        Some(first)
    }
}

/// A piece of the pool that is its holder's alone: `len` bytes of content within a fixed capacity.
pub struct Buffer {
    /// `None` only in a buffer that no longer owns its slot.
    pool: Option<Arc<Pool>>,
    slot: usize,
    content: Range<usize>,
}

impl Buffer {
    fn new(pool: &Arc<Pool>, slot: usize) -> Self {
        Self { pool: Some(Arc::clone(pool)), slot, content: 0..0 }
    }

    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.pool().buffer_bytes
    }

    /// Makes the first `length` bytes its content, whatever an earlier use left in them.
    ///
    /// # Panics
    /// If `length` exceeds the capacity.
    pub fn set_len(&mut self, length: usize) {
        self.set_content(0..length);
    }

    pub(super) fn set_content(&mut self, content: Range<usize>) {
        assert!(content.end <= self.capacity(), "{content:?} in a buffer of {} bytes", self.capacity());
        self.content = content;
    }

    /// Beginning of the slot, for the backends.
    pub(super) fn start(&self) -> *mut u8 {
        // SAFETY: slots are counted when the pool is made, so that the offset is inside its mapping.
        unsafe { self.pool().first.add(self.offset()) }.as_ptr()
    }

    /// Bytes of the pool before the slot.
    pub(super) fn offset(&self) -> usize {
        self.slot * self.pool().buffer_bytes
    }

    /// The bytes from `from` to `to` of the slot, content or not.
    pub(super) fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.capacity());
        // SAFETY: inside the slot, as just checked, and the slot is this buffer's alone, which is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start().add(range.start), range.len()) }
    }

    fn pool(&self) -> &Arc<Pool> {
        self.pool.as_ref().expect("invariant: only a buffer about to be dropped has no pool")
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the content is inside the slot, the slot is this buffer's alone, and its memory was written by the
        // kernel when it was faulted in.
        unsafe { std::slice::from_raw_parts(self.start().add(self.content.start), self.content.len()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes_mut(self.content.clone())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.release(self.slot);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}, {} bytes)", self.slot, self.content.len())
    }
}

/// Neighbouring buffers as one slice; read-only, and back in the pool when dropped.
#[derive(Debug)]
pub struct Region {
    buffers: Vec<Buffer>,
    length: usize,
}

impl Region {
    /// Joins buffers that follow each other in one pool, all but the last filled to the brim; `None` for any others.
    pub fn join(buffers: Vec<Buffer>) -> Option<Self> {
        let follows = |pair: &[Buffer]| {
            Arc::ptr_eq(pair[0].pool(), pair[1].pool())
                && pair[0].slot + 1 == pair[1].slot
                && pair[0].content == (0..pair[0].capacity())
        };
        let last = buffers.last()?;
        if last.content.start != 0 || !buffers.windows(2).all(follows) {
            return None;
        }
        let length = buffers.iter().map(|buffer| buffer.content.len()).sum();
        Some(Self { buffers, length })
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffers' contents follow each other without gaps in one mapping, as `join` checked, and are the
        // region's alone, which gives them out for reading only.
        unsafe { std::slice::from_raw_parts(self.buffers[0].start(), self.length) }
    }
}
