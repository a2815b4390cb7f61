//! The raw read, the verified load, the cold map and the warm open of one checkpoint, and the peers on the same files.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use helios_runtime::Clock;
use helios_storage::io::{IoEngine, IoFile, IoOptions, Operation};
use helios_storage::{Blob, BlobInfo, BlobStore, Checkpoint, Tree, populate, probe};

use super::checkpoint;
use super::peers::Peer;
use super::rows::Samples;
use super::scratch::Bench;
use super::usage::{anonymous_bytes, timed};

/// Bytes hashed alone: far more than any cache holds, as a model is.
const HASHED_BYTES: usize = 256 << 20;

/// Reads of the raw measurements in flight.
const READS_IN_FLIGHT: usize = 32;

/// All repeats of Helios and the peers.
pub(super) fn measure(bench: &Bench, peers: &[Peer]) -> anyhow::Result<Samples> {
    bench.step(format!("writing {} of weights", crate::config::show_size(bench.bytes)))?;
    let folder = bench.fresh_folder("loads")?;
    let files = checkpoint::write(&folder, bench.bytes)?;
    let mut noise = Vec::with_capacity(HASHED_BYTES);
    probe::write_noise(&mut noise, HASHED_BYTES as u64, 1)?;
    let loads = Loads::new(&folder, files, noise)?;
    bench.say(loads.setting());
    let peers = prepare(bench, peers, &folder)?;
    let mut samples = Samples::default();
    for repeat in bench.repeats() {
        loads.measure(&mut samples, &|what| bench.step(format!("repeat {repeat}: {what}")))?;
        for peer in &peers {
            bench.step(format!("repeat {repeat}: {}", peer.name()))?;
            loads.make_cold()?;
            match peer.load(bench, &folder) {
                Ok(load) => samples.peer(peer.name()).push(load),
                Err(error) => bench.say(&format!("{} failed: {error:#}", peer.name())),
            }
        }
    }
    drop(loads);
    super::scratch::remove(&folder)?;
    Ok(samples)
}

/// The peers that could load the checkpoint once.
fn prepare<'p>(bench: &Bench, peers: &'p [Peer], folder: &Path) -> anyhow::Result<Vec<&'p Peer>> {
    let mut prepared = Vec::new();
    for peer in peers {
        bench.step(format!("preparing {}", peer.name()))?;
        match peer.prepare(bench, folder) {
            Ok(()) => prepared.push(peer),
            Err(error) => bench.say(&format!("{} is not measured: {error:#}", peer.name())),
        }
    }
    Ok(prepared)
}

/// A checkpoint in a store and the engines that load it.
struct Loads {
    dir: PathBuf,
    store: BlobStore,
    files: Vec<BlobInfo>,
    /// With a pool of the size of the model: what a server that changes models keeps.
    memory: IoEngine,
    /// What is hashed alone.
    noise: Vec<u8>,
    setting: String,
}

impl Loads {
    /// Faults the memory in, once, and verifies the files, so that they count as verified since boot.
    fn new(folder: &Path, files: Vec<BlobInfo>, noise: Vec<u8>) -> anyhow::Result<Self> {
        let dir = folder.join("store");
        let store = BlobStore::open(&dir)?;
        let defaults = IoOptions::default();
        let slots = files.iter().map(|info| (info.size as usize).div_ceil(defaults.buffer_bytes)).sum();
        let began = Clock.now();
        let memory =
            IoEngine::start(&IoOptions { buffers: slots, ..defaults }).context("no memory for the load")?;
        let took = Clock.now() - began;
        let report = memory.report();
        let setting = format!(
            "I/O by {} ({}), buffers {}; faulting the memory in took {:.1} s, once",
            report.backend,
            report.reason,
            if report.registered { "registered" } else { "not registered" },
            took.as_secs_f64()
        );
        for info in &files {
            store.get(info)?;
        }
        Ok(Self { dir, store, files, memory, noise, setting })
    }

    /// What the measurement runs with, for people.
    fn setting(&self) -> &str {
        &self.setting
    }

    /// Takes all files out of the page cache.
    fn make_cold(&self) -> anyhow::Result<()> {
        for info in &self.files {
            let file = OpenOptions::new().read(true).open(self.store.path(&info.digest))?;
            let cold = probe::drop_from_cache(&file)?;
            ensure!(cold, "the page cache keeps {}\nhint: choose a folder on a disk with --dir", info.digest);
        }
        Ok(())
    }

    /// One repeat of everything.
    fn measure(
        &self,
        samples: &mut Samples,
        side: &dyn Fn(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        side("BLAKE3 alone")?;
        let hash = || Ok((self.noise.len() as u64, Tree::build(&self.noise)));
        samples.hash.push(timed(hash)?.0);
        side("raw read")?;
        self.make_cold()?;
        samples.raw.push(timed(|| Ok((self.read_raw()?, ())))?.0);
        side("raw read into as much memory")?;
        self.make_cold()?;
        samples.fill.push(timed(|| Ok((self.fill_memory()?, ())))?.0);
        side("verified load")?;
        self.make_cold()?;
        let (load, blobs) = timed(|| self.load())?;
        samples.load.push(load);
        drop(blobs);
        self.prepare_page_cache(side)?;
        side("first map")?;
        let unverified = self.unverified_store()?;
        let (first, blobs) = timed(|| self.map(&unverified))?;
        samples.first.push(first);
        drop(blobs);
        self.prepare_page_cache(side)?;
        side("cold map")?;
        let (map, blobs) = timed(|| self.map(&self.store))?;
        samples.map.push(map);
        drop(blobs);
        side("warm open")?;
        let before = anonymous_bytes()?;
        let (open, checkpoint) = timed(|| self.open())?;
        let private = anonymous_bytes()?.saturating_sub(before);
        samples.open_ms.push(open.seconds * 1e3);
        samples.private_percent.push(private as f64 * 100.0 / open.bytes as f64);
        drop(checkpoint);
        Ok(())
    }

    fn prepare_page_cache(&self, side: &dyn Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        side("faulting in memory for the page cache")?;
        self.make_cold()?;
        Ok(probe::fault_in(self.bytes())?)
    }

    /// The store as it is after a start of the system.
    fn unverified_store(&self) -> anyhow::Result<BlobStore> {
        super::scratch::remove(&self.dir.join("verified"))?;
        Ok(BlobStore::open(&self.dir)?)
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|info| info.size).sum()
    }

    fn read_raw(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for info in &self.files {
            let file = OpenOptions::new().read(true).open(self.store.path(&info.digest))?;
            bytes += probe::read_sequentially(IoEngine::shared()?, &file)?;
        }
        Ok(bytes)
    }

    /// What a load does without looking at a byte: where the bytes go counts, too.
    fn fill_memory(&self) -> anyhow::Result<u64> {
        let (mut flying, mut filled) = (VecDeque::new(), Vec::new());
        for info in &self.files {
            let file = Arc::new(IoFile::open_direct(&self.store.path(&info.digest))?);
            let run = self.memory.run(info.size as usize).context("the memory is fragmented")?;
            let mut offset = 0;
            for buffer in run {
                let length = buffer.capacity().min((info.size - offset) as usize);
                flying.push_back(self.memory.read(&file, offset, length, buffer));
                offset += length as u64;
                if flying.len() > READS_IN_FLIGHT {
                    filled.extend(flying.pop_front().map(Operation::wait).transpose()?);
                }
            }
        }
        for read in flying {
            filled.push(read.wait()?);
        }
        Ok(filled.iter().map(|buffer| buffer.len() as u64).sum())
    }

    fn load(&self) -> anyhow::Result<(u64, Vec<Blob>)> {
        let blobs = self.store.load_all(&self.files, &self.memory)?;
        let blobs = blobs.into_iter().collect::<Option<Vec<_>>>();
        Ok((self.bytes(), blobs.context("the memory is fragmented")?))
    }

    /// As a worker does: the files at a time, then what is not in memory yet.
    fn map(&self, store: &BlobStore) -> anyhow::Result<(u64, Vec<Blob>)> {
        let blobs = std::thread::scope(|scope| {
            let opened: Vec<_> = self.files.iter().map(|info| scope.spawn(move || store.get(info))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            opened.into_iter().map(join).collect::<Result<Vec<_>, _>>()
        })?;
        let named: Vec<_> = blobs.iter().map(|blob| ("shard", blob)).collect();
        populate(&named)?;
        Ok((self.bytes(), blobs))
    }

    fn open(&self) -> anyhow::Result<(u64, Checkpoint)> {
        let named = self.get()?.into_iter().enumerate().map(|(shard, blob)| (format!("shard {shard}"), blob));
        Ok((self.bytes(), Checkpoint::from_safetensors(named.collect(), None)?))
    }

    fn get(&self) -> anyhow::Result<Vec<Blob>> {
        self.files.iter().map(|info| Ok(self.store.get(info)?)).collect()
    }
}
