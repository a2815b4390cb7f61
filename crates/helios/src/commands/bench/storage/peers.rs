//! The peers: loaders from PyPI in an environment that `cargo xtask yardstick` made, each run in a process of its own
//! that measures itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::child;
use super::scratch::Bench;
use super::usage::Load;
use crate::environment;

/// What runs in the peer's process.
const SCRIPT: &str = include_str!("../../../../../../python/bench/load.py");

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    name: String,
    python: PathBuf,
}

#[derive(Deserialize)]
struct Report {
    seconds: f64,
    cpu_seconds: f64,
    bytes: u64,
}

impl Peer {
    /// Finds the environment with the peers.
    pub(super) fn find(name: &str) -> anyhow::Result<Self> {
        let missing =
            "no Python environment with the peers\nhint: make it with `cargo xtask yardstick storage`";
        let python = environment::yardstick_dir().context(missing)?.join("storage-peers/bin/python");
        if !python.exists() {
            bail!(missing);
        }
        Ok(Self { name: name.to_owned(), python })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Writes what the peer reads, where that is not the checkpoint itself, and loads the checkpoint once, so that an
    /// import that fails is known, and its modules are in memory.
    pub(super) fn prepare(&self, bench: &Bench, folder: &Path) -> anyhow::Result<()> {
        if self.name == "tensorizer" {
            self.run(bench, "prepare", folder)?;
        }
        self.load(bench, folder).map(drop)
    }

    /// Loads the checkpoint.
    pub(super) fn load(&self, bench: &Bench, folder: &Path) -> anyhow::Result<Load> {
        let own = folder.join("model.tensors");
        if self.name == "tensorizer" {
            helios_storage::probe::drop_from_cache(&std::fs::OpenOptions::new().read(true).open(own)?)?;
        }
        let output = self.run(bench, &self.name, folder)?;
        let line = output.lines().next_back().unwrap_or_default();
        let report: Report = serde_json::from_str(line).context("the peer printed no figures")?;
        Ok(Load { bytes: report.bytes, seconds: report.seconds, cpu_seconds: report.cpu_seconds })
    }

    fn run(&self, bench: &Bench, what: &str, folder: &Path) -> anyhow::Result<String> {
        let mut command = Command::new(&self.python);
        command.arg("-c").arg(SCRIPT).arg(what).arg(folder);
        Ok(child::run(bench, &mut command)?.output)
    }
}
