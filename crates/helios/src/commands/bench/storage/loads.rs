//! Helios' side: the raw read, the verified load, the cold map and the warm open of one checkpoint.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Context, ensure};
use helios_runtime::Clock;
use helios_storage::io::{IoEngine, IoOptions};
use helios_storage::{Blob, BlobInfo, BlobStore, Checkpoint, populate, probe};

use super::rows::Samples;
use super::usage::{anonymous_bytes, timed};

/// A checkpoint in a store and the engines that load it.
pub(super) struct Loads {
    store: BlobStore,
    files: Vec<BlobInfo>,
    /// With a pool of the size of the model: what a server that changes models keeps.
    memory: IoEngine,
    setting: String,
}

impl Loads {
    /// Faults the memory in, once, and verifies the files, so that they count as verified since boot.
    pub(super) fn new(folder: &Path, files: Vec<BlobInfo>) -> anyhow::Result<Self> {
        let store = BlobStore::open(&folder.join("store"))?;
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
        Ok(Self { store, files, memory, setting })
    }

    /// What the measurement runs with, for people.
    pub(super) fn setting(&self) -> &str {
        &self.setting
    }

    /// Takes all files out of the page cache.
    pub(super) fn make_cold(&self) -> anyhow::Result<()> {
        for info in &self.files {
            let file = OpenOptions::new().read(true).open(self.store.path(&info.digest))?;
            let cold = probe::drop_from_cache(&file)?;
            ensure!(cold, "the page cache keeps {}\nhint: choose a folder on a disk with --dir", info.digest);
        }
        Ok(())
    }

    /// One repeat of everything.
    pub(super) fn measure(&self, samples: &mut Samples, side: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
        side("raw read");
        self.make_cold()?;
        samples.raw.push(timed(|| Ok((self.read_raw()?, ())))?.0);
        side("verified load");
        self.make_cold()?;
        let (load, blobs) = timed(|| self.load())?;
        samples.load.push(load);
        drop(blobs);
        side("cold map");
        self.make_cold()?;
        let (map, blobs) = timed(|| self.map())?;
        samples.map.push(map);
        drop(blobs);
        side("warm open");
        let before = anonymous_bytes()?;
        let (open, checkpoint) = timed(|| self.open())?;
        let private = anonymous_bytes()?.saturating_sub(before);
        samples.open_ms.push(open.seconds * 1e3);
        samples.private_percent.push(private as f64 * 100.0 / open.bytes as f64);
        drop(checkpoint);
        Ok(())
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

    fn load(&self) -> anyhow::Result<(u64, Vec<Blob>)> {
        let blobs = self.store.load_all(&self.files, &self.memory)?;
        let blobs = blobs.into_iter().collect::<Option<Vec<_>>>();
        Ok((self.bytes(), blobs.context("the memory is fragmented")?))
    }

    fn map(&self) -> anyhow::Result<(u64, Vec<Blob>)> {
        let blobs = self.get()?;
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
