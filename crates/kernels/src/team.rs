//! A fixed set of threads that run short loops together.
//!
//! A run is one fork and join. Items are handed out one at a time from a counter, so a thread that the operating
//! system holds back delays nothing but its own item; nothing a run computes may depend on who runs which item. Idle
//! threads spin for a bounded moment, because the next run of a forward pass follows within microseconds, then park.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};

use crate::disjoint::Disjoint;

/// Pauses before a waiting thread parks: some ten microseconds, the length of a gap between two runs of a step.
const SPINS_MAX: u32 = 1_000;

/// The gate admits threads to the current run while this bit is set.
const OPEN: u64 = 1 << 31;
/// Bits of the gate below [`OPEN`]: how many team threads are inside the run. Bits above it: the number of the run.
const INSIDE: u64 = OPEN - 1;
const RUN: u64 = 1 << 32;

thread_local! {
    /// Whether this thread is inside an item of any team: a nested run would wait for itself.
    static IN_ITEM: Cell<bool> = const { Cell::new(false) };
}

/// A fixed set of threads, the caller among them, that run loops together.
///
/// Dropping the team ends and joins its threads.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// One run at a time.
    running: Mutex<()>,
}

struct Worker {
    parked: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

struct Shared {
    /// Number of the run, [`OPEN`], and how many team threads are inside.
    gate: AtomicU64,
    /// Written by the runner while the gate is closed and nobody is inside, read by threads inside.
    job: UnsafeCell<Option<Job>>,
    /// The next item nobody has taken.
    next: AtomicUsize,
    stop: AtomicBool,
    /// The first panic of the run.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

struct Job {
    items: usize,
    /// Lives as long as the run, not longer.
    body: *const (dyn Fn(usize) + Sync),
    runner: Thread,
}

// SAFETY: `job` is the only part that is not `Sync`. It is written while the gate is closed and empty and read only
// between entering and leaving the gate, both of which are ordered by the gate's acquire and release operations. The
// pointer in it is to a `Sync` closure.
unsafe impl Sync for Shared {}
// SAFETY: see above; the closure is called through a shared reference only.
unsafe impl Send for Shared {}

impl Team {
    /// Starts a team of `threads`, of which the thread that calls [`Team::run`] is one.
    ///
    /// Where the operating system refuses a thread the team is smaller: results are the same, see
    /// [`Team::threads`].
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let workers = (1..threads).map_while(|index| Worker::start(&shared, index)).collect();
        Self { shared, workers, running: Mutex::new(()) }
    }

    /// Threads that take part in a run, the caller among them.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` once with each of `0..items`, on all threads of the team, and returns when all calls have.
    ///
    /// Runs of several threads follow each other. Inside an item, a run happens on the calling thread alone.
    ///
    /// # Panics
    /// With the first panic of an item; items not begun by then are dropped. The team stays usable.
    pub fn run(&self, items: usize, body: &(dyn Fn(usize) + Sync)) {
        if items <= 1 || self.workers.is_empty() || IN_ITEM.get() {
            return (0..items).for_each(body);
        }
        let running = lock(&self.running);
        self.open(items, body);
        self.shared.take_items(items, body);
        self.close();
        let panic = lock(&self.shared.panic).take();
        drop(running);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Calls `body` with the index and the elements of each chunk of `chunk` elements (the last may be shorter), on
    /// all threads of the team.
    ///
    /// # Panics
    /// If `chunk` is 0, or as [`Team::run`].
    pub fn run_chunks<T: Send>(&self, data: &mut [T], chunk: usize, body: &(dyn Fn(usize, &mut [T]) + Sync)) {
        let chunks = data.len().div_ceil(chunk);
        let data = Disjoint::new(data);
        self.run(chunks, &|index| {
            let start = index * chunk;
            let end = data.len().min(start + chunk);
            // SAFETY: each index is run once, and chunks of different indices do not overlap.
            body(index, unsafe { data.part(start..end) });
        });
    }

    fn open(&self, items: usize, body: &(dyn Fn(usize) + Sync)) {
        // SAFETY: this changes only the lifetime of the closure: `run` does not return, nor unwind, before every
        // thread that may call it has left the gate.
        let body =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(body) };
        // SAFETY: the lock on `running` makes this the only runner; the gate is closed and empty since `close`.
        unsafe { *self.shared.job.get() = Some(Job { items, body, runner: thread::current() }) };
        self.shared.next.store(0, Ordering::Relaxed);
        let run = self.shared.gate.load(Ordering::Relaxed) & !(OPEN | INSIDE);
        self.shared.gate.store(run.wrapping_add(RUN) | OPEN, Ordering::SeqCst);
        self.workers.iter().take(items - 1).for_each(Worker::wake);
    }

    /// Shuts the gate and waits for those inside.
    fn close(&self) {
        let gate = &self.shared.gate;
        gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while gate.load(Ordering::Acquire) & INSIDE != 0 {
            if spins < SPINS_MAX {
                spins += 1;
                std::hint::spin_loop();
            } else {
                // The last thread to leave unparks the runner; an early or stray wake-up only looks again.
                thread::park();
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.handle.thread().unpark();
            // A worker catches the panics of items, so there is no error to carry.
            let _ = worker.handle.join();
        }
    }
}

impl Worker {
    fn start(shared: &Arc<Shared>, index: usize) -> Option<Self> {
        let parked = Arc::new(AtomicBool::new(false));
        let (shared, flag) = (Arc::clone(shared), Arc::clone(&parked));
        let builder = thread::Builder::new().name(format!("helios-team-{index}"));
        let handle = builder.spawn(move || shared.work(&flag)).ok()?;
        Some(Self { parked, handle })
    }

    /// Wakes the thread if it is parked or about to park.
    fn wake(&self) {
        if self.parked.load(Ordering::SeqCst) {
            self.handle.thread().unpark();
        }
    }
}

impl Shared {
    /// The life of a team thread.
    fn work(&self, parked: &AtomicBool) {
        let mut last_run = 0;
        while self.wait_for_run(last_run, parked) {
            if let Some(run) = self.enter(last_run) {
                last_run = run;
                // SAFETY: inside the gate the job does not change, and its closure outlives our stay.
                let (items, body, runner) = unsafe {
                    let job = (*self.job.get()).as_ref().expect("invariant: an open gate has a job");
                    (job.items, &*job.body, job.runner.clone())
                };
                self.take_items(items, body);
                self.leave(&runner);
            }
        }
    }

    /// Waits until a run other than `last_run` is open; false when the team is being dropped.
    fn wait_for_run(&self, last_run: u64, parked: &AtomicBool) -> bool {
        let mut spins = 0;
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            if self.open_run(last_run).is_some() {
                parked.store(false, Ordering::SeqCst);
                return true;
            }
            if spins < SPINS_MAX {
                spins += 1;
                std::hint::spin_loop();
            } else if parked.swap(true, Ordering::SeqCst) {
                // The flag was up before the last look at the gate, so whoever opens it later sees the flag.
                thread::park();
            }
        }
    }

    /// The gate's value if a run other than `last_run` is open.
    fn open_run(&self, last_run: u64) -> Option<u64> {
        let gate = self.gate.load(Ordering::SeqCst);
        (gate & OPEN != 0 && gate / RUN != last_run).then_some(gate)
    }

    /// Enters the open run and gives its number, unless it closes first.
    fn enter(&self, last_run: u64) -> Option<u64> {
        loop {
            let gate = self.open_run(last_run)?;
            if self.gate.compare_exchange_weak(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(gate / RUN);
            }
        }
    }

    fn leave(&self, runner: &Thread) {
        let before = self.gate.fetch_sub(1, Ordering::AcqRel);
        if before & (OPEN | INSIDE) == 1 {
            runner.unpark();
        }
    }

    /// Runs items until none is left, or one panics.
    fn take_items(&self, items: usize, body: &(dyn Fn(usize) + Sync)) {
        IN_ITEM.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let item = self.next.fetch_add(1, Ordering::Relaxed);
                if item >= items {
                    return;
                }
                body(item);
            }
        }));
        IN_ITEM.set(false);
        if let Err(panic) = outcome {
            self.next.store(items, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

/// Locks; a panic of another holder does not matter, because items' panics are caught before they reach a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
