//! Pulls, removals, collections and readers of the same models at once, on a simulated disk and a simulated database, in
//! an order that a seed decides; and a crash in the middle of it.
//!
//! All tasks are futures of one thread. The seed says which is polled next, and what it gave to other threads is done
//! before the next one's turn, so that a seed that fails, fails again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use helios_metadata::{Fault as DatabaseFault, Metadata, SimulatedMetadata};
use helios_model::{FileEntry, Role};
use helios_registry::{Registry, RegistryConfig, RegistryError, Resolved, WallClock};
use helios_storage::disk::{Fault, Unsynced};
use helios_storage::{DurableFiles, SimulatedDisk};
use helios_types::{Classify, ErrorCode};
use tokio::runtime::Runtime;

use crate::metadata::made::{Random, name};
use crate::models;

const TASKS: u64 = 6;
const STEPS: usize = 20;
const FILES: usize = 6;
/// How long what was handed out is safe, in seconds, which are turns.
const GRACE_TURNS: u64 = 100;

/// What a step did, for the comparison of two runs.
type Trace = Rc<RefCell<Vec<String>>>;
/// The file that the tag of each task led to when that was acknowledged, and the one that it may lead to after a crash
/// in the middle of a change; `None` for no tag.
type Promises = Rc<RefCell<BTreeMap<u64, (Option<usize>, Option<usize>)>>>;
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A machine: its disk, its database, its clock, and the one thread with its one helper.
struct Machine {
    runtime: Runtime,
    disk: SimulatedDisk,
    metadata: Arc<SimulatedMetadata>,
    /// Seconds go by with turns.
    now_ms: Arc<AtomicU64>,
}

fn source(file: usize) -> PathBuf {
    PathBuf::from(format!("/m{file}.gguf"))
}

fn contents(file: usize) -> Vec<u8> {
    models::gguf(file as f32 + 1.0)
}

impl Machine {
    fn new(seed: u64) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.max_blocking_threads(1).build().expect("a runtime");
        let disk = SimulatedDisk::new(seed);
        let files = DurableFiles::new(Arc::new(disk.clone()));
        for file in 0..FILES {
            files.write_atomic(&source(file), &contents(file)).expect("a source");
        }
        Self { runtime, disk, metadata: Arc::new(SimulatedMetadata::new(seed)), now_ms: Arc::default() }
    }

    fn open(&self) -> Arc<Registry> {
        // Who reads from elsewhere begins with a file in less than this, and takes longer for all of them.
        let (gc_grace, members_rebuild) = (Duration::from_secs(GRACE_TURNS), Duration::ZERO);
        let wall_clock = WallClock::Simulated(Arc::clone(&self.now_ms));
        let config = RegistryConfig { gc_grace, members_rebuild, wall_clock, ..RegistryConfig::default() };
        let disk = Arc::new(self.disk.clone());
        let opened = Registry::open_on(disk, self.metadata.clone(), Path::new("/store"), config);
        self.runtime.block_on(opened).expect("the store opens")
    }

    fn is_down(&self) -> bool {
        use helios_storage::Disk;
        self.disk.status(&source(0)).is_err() || self.runtime.block_on(self.metadata.counts()).is_err()
    }

    /// Polls the tasks to their ends in the seed's order, or until the machine is down.
    fn run(&self, random: &mut Random, mut tasks: Vec<Task>) {
        while !tasks.is_empty() && !self.is_down() {
            self.now_ms.fetch_add(1000, Ordering::SeqCst);
            let index = random.below(tasks.len() as u32) as usize;
            let task = &mut tasks[index];
            // The one helper begins after the task's turn: whether it was quick must not matter.
            let (open, gate) = std::sync::mpsc::channel::<()>();
            self.runtime.spawn_blocking(move || gate.recv());
            let polled = std::future::poll_fn(|context| Poll::Ready(task.as_mut().poll(context)));
            if self.runtime.block_on(polled).is_ready() {
                drop(tasks.swap_remove(index));
            }
            drop(open);
            // It takes jobs in turn: when this one is done, so are those before it.
            let idle = tokio::task::spawn_blocking;
            self.runtime.block_on(async { idle(|| {}).await.expect("idle") });
        }
    }
}

/// One of those who use the registry at the same time.
struct User {
    number: u64,
    registry: Arc<Registry>,
    random: Random,
    trace: Trace,
    promises: Promises,
}

impl User {
    async fn work(mut self) {
        for _ in 0..STEPS {
            let step = self.random.below(10);
            let outcome = self.step(step).await;
            // After a crash every answer is an error; the machine is stopped before the next turn.
            let told = outcome.map_or_else(|error| format!("{:?}", error.code()), str::to_owned);
            self.trace.borrow_mut().push(format!("{}: {step} {told}", self.number));
        }
    }

    async fn step(&mut self, step: u32) -> Result<&'static str, RegistryError> {
        let shared = name(&format!("m{}", self.random.below(2)));
        match step {
            0..=1 => {
                let file = self.random.below(FILES as u32) as usize;
                let pulled = self.registry.import(&source(file), Some(shared), &mut |_| {}).await?;
                self.read(&pulled).await.map(|()| "pulled")
            }
            2 => self.change_own().await.map(|()| "changed"),
            3 => found(self.registry.remove(&shared).await),
            4 => self.registry.gc().await.map(|_| "collected"),
            5 => found(self.registry.tag(&shared, &name("m0")).await.map(drop)),
            6 => match self.registry.hand_out(&shared).await {
                Ok(told) => self.serve(told).await.map(|()| "served"),
                Err(error) => found(Err(error)),
            },
            _ => match self.registry.resolve(&shared).await {
                Ok(resolved) => {
                    tokio::task::yield_now().await;
                    self.read(&resolved).await.map(|()| "read")
                }
                Err(error) => found(Err(error)),
            },
        }
    }

    /// Pulls, moves or removes the tag that nobody else changes.
    async fn change_own(&mut self) -> Result<(), RegistryError> {
        let own = name(&format!("own-{}", self.number));
        let (before, _) = self.promises.borrow().get(&self.number).copied().unwrap_or_default();
        let removes = before.is_some() && self.random.below(3) == 0;
        let after = (!removes).then(|| self.random.below(FILES as u32) as usize);
        self.promises.borrow_mut().insert(self.number, (before, after));
        match after {
            Some(file) => self.registry.import(&source(file), Some(own), &mut |_| {}).await.map(drop)?,
            None => self.registry.remove(&own).await?,
        }
        self.promises.borrow_mut().insert(self.number, (after, after));
        Ok(())
    }

    /// As somebody elsewhere reads: by digest, file after file, long after the answer with the name, holding nothing.
    async fn serve(&mut self, told: Resolved) -> Result<(), RegistryError> {
        let files = told.manifest.files.clone();
        drop(told);
        for file in &files {
            for _ in 0..self.random.below(20) {
                tokio::task::yield_now().await;
            }
            self.read_content(file).await?;
        }
        Ok(())
    }

    async fn read(&self, resolved: &Resolved) -> Result<(), RegistryError> {
        self.read_files(&resolved.manifest).await
    }

    /// Reads by map and as a stream. A version that was resolved can be read, whatever happened since.
    async fn read_files(&self, manifest: &helios_model::Manifest) -> Result<(), RegistryError> {
        for file in &manifest.files {
            let blob = self.registry.blob(file).await?;
            assert_eq!(blob.len() as u64, file.blob.size);
            assert!(*self.read_content(file).await? == *blob, "{}: another file", file.path);
        }
        Ok(())
    }

    async fn read_content(&self, file: &FileEntry) -> Result<Vec<u8>, RegistryError> {
        let content = self.registry.content(file.blob);
        let mut stream = std::pin::pin!(content.read(0..file.blob.size).await?);
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    }
}

/// Whether a shared name is there just then is chance; everything else is a failure.
fn found(outcome: Result<(), RegistryError>) -> Result<&'static str, RegistryError> {
    match outcome {
        Ok(()) => Ok("found"),
        Err(error) if error.code() == ErrorCode::ModelNotFound => Ok("not there"),
        Err(error) => Err(error),
    }
}

/// Runs all users on the machine, with what is planned for it; what each did, and what they were promised.
fn run(machine: &Machine, seed: u64, plan: impl FnOnce()) -> (Vec<String>, Promises) {
    let registry = machine.open();
    plan();
    let (trace, promises) = (Trace::default(), Promises::default());
    let users = (0..TASKS).map(|number| User {
        number,
        registry: Arc::clone(&registry),
        random: Random(seed * TASKS + number),
        trace: Rc::clone(&trace),
        promises: Rc::clone(&promises),
    });
    let tasks = users.map(|user| Box::pin(user.work()) as Task).collect();
    machine.run(&mut Random(seed), tasks);
    drop(registry);
    (trace.take(), promises)
}

/// Every tag leads to a whole version, and the tags of the users to what was promised.
fn check(machine: &Machine, promises: &Promises, what: &str) {
    let registry = machine.open();
    machine.runtime.block_on(async {
        for model in registry.list().await.expect("a list") {
            for entry in registry.history(&model.model).await.expect("a history") {
                let manifest = registry.manifest(&entry.digest).await.expect("a version of a history");
                for file in &manifest.files {
                    let read = registry.blob(file).await;
                    assert!(read.is_ok(), "{what}: {}: {read:?}", model.model);
                }
            }
        }
        let promises = promises.borrow().clone();
        for (number, (before, after)) in &promises {
            let own = name(&format!("own-{number}"));
            let there = match registry.resolve(&own).await {
                Err(error) if error.code() == ErrorCode::ModelNotFound => None,
                resolved => {
                    let manifest = resolved.expect("a tag").manifest;
                    let weights = registry.derived_bytes(&manifest, Role::Weights).await.expect("weights");
                    Some((0..FILES).find(|file| *contents(*file) == *weights).expect("one of the files"))
                }
            };
            assert!(
                there == *before || there == *after,
                "{what}: {own} is {there:?}, {before:?} or {after:?}"
            );
        }
        for _ in 0..2 {
            registry.gc().await.expect("collected");
        }
        let again = registry.gc().await.expect("collected again");
        assert_eq!(
            (again.manifests_removed, again.blobs_removed),
            (0, 0),
            "{what}: a collection leaves nothing"
        );
    });
}

#[test]
fn no_read_fails_in_any_order_of_pulls_removals_collections_and_readers() {
    let mut counts = BTreeMap::<String, usize>::new();
    for seed in 0..40 {
        let machine = Machine::new(seed);
        let (trace, promises) = run(&machine, seed, || {});
        assert_eq!(trace.len(), TASKS as usize * STEPS, "seed {seed}: {trace:#?}");
        for step in &trace {
            let told = step.rsplit(' ').next().unwrap_or_default().to_owned();
            *counts.entry(told).or_default() += 1;
        }
        let failed: Vec<&String> = trace
            .iter()
            .filter(|step| step.split(' ').nth(2).is_some_and(|told| told.starts_with(char::is_uppercase)))
            .collect();
        assert!(failed.is_empty(), "seed {seed}: {failed:?} in {trace:#?}");
        check(&machine, &promises, &format!("seed {seed}"));
    }
    for told in ["read", "served", "pulled", "collected", "changed", "found"] {
        assert!(counts.get(told).is_some_and(|count| *count > 10), "{told} too seldom: {counts:?}");
    }
}

#[test]
fn a_seed_decides_what_happens() {
    let traced = |seed| run(&Machine::new(seed), seed, || {}).0;
    assert_eq!(traced(7), traced(7));
    assert_ne!(traced(7), traced(8));
}

#[test]
fn a_crash_in_the_middle_of_all_that_loses_nothing_acknowledged() {
    let mut crashes = 0;
    for seed in 0..48 {
        let machine = Machine::new(seed);
        let mut random = Random(seed ^ 0x5eed);
        let (is_disk, operation, commit) = (random.below(2) == 0, random.below(600), random.below(80));
        let plan = || match is_disk {
            true => machine.disk.inject(machine.disk.operations() + u64::from(operation), Fault::Crash),
            false => machine.metadata.plan(u64::from(commit), DatabaseFault::Crash),
        };
        let what = format!("seed {seed}, {}", if is_disk { "disk" } else { "database" });
        let (_, promises) = run(&machine, seed, plan);
        crashes += usize::from(machine.is_down());
        match random.below(3) {
            0 => machine.disk.kill(),
            1 => machine.disk.lose_power(Unsynced::Lost),
            _ => machine.disk.lose_power(Unsynced::Scattered),
        }
        machine.metadata.restart();
        check(&machine, &promises, &what);
    }
    assert!(crashes > 24, "only {crashes} runs crashed");
}
