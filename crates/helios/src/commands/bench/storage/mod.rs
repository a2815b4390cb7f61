//! `helios bench storage`: how fast models come from the disk, beside the raw limit of the same disk and peers.
//!
//! Makes a checkpoint of its own, takes it out of the page cache before each load, and runs all sides in turn. A row that
//! cannot be measured stays in the table without a value, and standard error says why.

mod checkpoint;
mod loads;
mod peers;
mod rows;
mod usage;

use std::path::PathBuf;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::table;
use crate::cli::BenchStorageArgs;
use crate::config::{Config, parse_size};
use checkpoint::Checkpoint;
use loads::Loads;
use peers::Peer;
use rows::Samples;

/// Measures and prints.
pub(crate) async fn bench_storage(config: &Config, args: &BenchStorageArgs) -> anyhow::Result<()> {
    let bytes = parse_size(&args.size).map_err(anyhow::Error::msg)?;
    let folder = match &args.dir {
        Some(dir) => dir.clone(),
        None => existing(config.store_dir()?.to_owned()),
    };
    let peers = find_peers(&args.against);
    // Owned here, so that an interrupt deletes the files too.
    let checkpoint = Checkpoint::folder_in(&folder)?;
    let place = checkpoint.path().to_owned();
    let repeats = args.repeats;
    let measuring = tokio::task::spawn_blocking(move || measure(&place, bytes, repeats, &peers));
    let samples = tokio::select! {
        outcome = measuring => outcome.context("the measurement ended early")??,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; its files are deleted"),
    };
    drop(checkpoint);
    for what in rows::not_measured() {
        eprintln!("{what}: not measured, this bench starts no servers");
    }
    table::print(&rows::rows(&samples), args.json)
}

fn existing(dir: PathBuf) -> PathBuf {
    dir.ancestors().find(|folder| folder.is_dir()).map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// The peers that are installed; of the others, standard error says why they are not measured.
fn find_peers(names: &[String]) -> Vec<Peer> {
    let find = |name: &String| match Peer::find(name) {
        Ok(peer) => Some(peer),
        Err(error) => {
            eprintln!("{name} is not measured: {error:#}");
            None
        }
    };
    names.iter().filter_map(find).collect()
}

fn measure(folder: &std::path::Path, bytes: u64, repeats: u32, peers: &[Peer]) -> anyhow::Result<Samples> {
    let style = ProgressStyle::with_template("{msg:<40} {bar:30} {pos}/{len}")?;
    let progress = ProgressBar::new(u64::from(repeats) + 1).with_style(style);
    progress.set_message(format!("writing {} of weights", crate::config::show_size(bytes)));
    let files = checkpoint::write(folder, bytes)?;
    let loads = Loads::new(folder, files)?;
    progress.println(loads.setting());
    let peers = prepare(peers, folder, &progress);
    let mut samples = Samples::default();
    for repeat in 0..repeats {
        progress.inc(1);
        let mut side = |name: &str| progress.set_message(format!("repeat {}: {name}", repeat + 1));
        loads.measure(&mut samples, &mut side)?;
        for peer in &peers {
            side(peer.name());
            loads.make_cold()?;
            match peer.load(folder) {
                Ok(load) => samples.peer(peer.name()).push(load),
                Err(error) => progress.println(format!("{} failed: {error:#}", peer.name())),
            }
        }
    }
    progress.finish_and_clear();
    Ok(samples)
}

fn prepare<'p>(peers: &'p [Peer], folder: &std::path::Path, progress: &ProgressBar) -> Vec<&'p Peer> {
    let prepared = |peer: &&Peer| match peer.prepare(folder) {
        Ok(()) => true,
        Err(error) => {
            progress.println(format!("{} is not measured: {error:#}", peer.name()));
            false
        }
    };
    progress.set_message("preparing the peers");
    peers.iter().filter(prepared).collect()
}
