//! Pulling a model from an origin on this machine by the real `helios pull`, beside what the wire and the disk give.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use helios_storage::probe;

use super::super::table::{Goal, Row, median};
use super::child;
use super::origin::{Origin, read_plainly};
use super::repository::{NAME, Repository};
use super::rows::{CPU, RATE};
use super::scratch::{Bench, remove};
use super::usage::{Load, timed};

/// Ranges that a pull asks for at a time, and so does the plain client.
const RANGES: u64 = 8;
/// Bytes hashed alone.
const HASHED_BYTES: usize = 256 << 20;

/// The figures of all repeats.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pull: Vec<Load>,
    wire: Vec<Load>,
    disk: Vec<Load>,
    sha256: Vec<Load>,
    memory_mb: Vec<f64>,
}

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Samples> {
    let repository = Repository::make(bench)?;
    let origin = Origin::start(repository.resources())?;
    let mut samples = Samples::default();
    let (noise, paths) = (noise()?, repository.paths());
    for repeat in bench.repeats() {
        let step = |what: &str| bench.step(format!("repeat {repeat}: {what}"));
        step("pull: the wire alone")?;
        let wire = || Ok((read_plainly(&origin.address, &paths, RANGES)?, ()));
        samples.wire.push(timed(wire)?.0);
        step("pull: the disk alone")?;
        let target = bench.fresh_folder("raw")?;
        samples.disk.push(timed(|| Ok((write_raw(&target, &noise, &paths)?, ())))?.0);
        remove(&target)?;
        step("pull: SHA-256 alone")?;
        samples.sha256.push(timed(|| Ok((noise.len() as u64, probe::sha256(&noise))))?.0);
        step("helios pull")?;
        let store = bench.fresh_folder("pulled")?;
        let mut pull = child::helios(bench, &store)?;
        pull.args(["pull", &format!("hf:{NAME}"), "--json"]);
        pull.env("HF_ENDPOINT", format!("http://{}", origin.address));
        let finished = child::run(bench, &mut pull).context("helios pull failed")?;
        samples.pull.push(finished.load(repository.bytes()));
        samples.memory_mb.push(finished.memory_bytes_max as f64 / 1e6);
        remove(&store)?;
    }
    Ok(samples)
}

fn noise() -> anyhow::Result<Vec<u8>> {
    let mut noise = Vec::with_capacity(HASHED_BYTES);
    probe::write_noise(&mut noise, HASHED_BYTES as u64, 1)?;
    Ok(noise)
}

/// Writes files of these sizes, each durable when the next begins, as a pull has to.
fn write_raw(folder: &Path, noise: &[u8], files: &[(String, u64)]) -> anyhow::Result<u64> {
    let mut total = 0;
    for (index, (_, size)) in files.iter().enumerate() {
        let path = folder.join(index.to_string());
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let mut left = *size;
        while left > 0 {
            let chunk = &noise[..noise.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            for piece in chunk.chunks(1 << 20) {
                file.write_all(piece)?;
            }
            left -= chunk.len() as u64;
        }
        file.sync_all()?;
        total += size;
    }
    Ok(total)
}

/// The rows, measured or not.
pub(super) fn rows(samples: &Samples) -> Vec<Row> {
    let rates = |loads: &[Load]| loads.iter().map(Load::rate).collect::<Vec<_>>();
    let cpu: Vec<f64> = samples.pull.iter().map(Load::cpu_per_gb).collect();
    let (wire, disk) = (rates(&samples.wire), rates(&samples.disk));
    // What is slower bounds a pull.
    let (limit, limits) =
        if median(&wire) < median(&disk) { ("the wire alone", wire) } else { ("the disk alone", disk) };
    let of = |what: &str, peer: &str, limits: &[f64]| {
        Row::reported(what, RATE, &rates(&samples.pull), Some((peer, limits)))
    };
    vec![
        of("pull from a local origin, 8 ranges", limit, &limits).with_goal(Goal::RatioAtLeast(0.95)),
        Row::reported("pull from a local origin: memory", "MB", &samples.memory_mb, None)
            .with_goal(Goal::AtMost(64.0)),
        of("pull beside the wire alone", "8 plain reads", &rates(&samples.wire)),
        of("pull beside the disk alone", "write and fsync", &rates(&samples.disk)),
        of("pull beside SHA-256 alone", "one core", &rates(&samples.sha256)),
        Row::reported("pull from a local origin: CPU", CPU, &cpu, None),
    ]
}
