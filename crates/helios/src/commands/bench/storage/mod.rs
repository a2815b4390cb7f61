//! `helios bench storage`: how fast models come from the disk and over the wire, how fast the registry answers, and what
//! deduplication saves; each beside the raw limit of the same machine, and peers.
//!
//! What is measured is made: models of bytes that do not compress, a registry with a million blobs. All of it is in one
//! folder, which is deleted in the end and after an interrupt. A row that cannot be measured stays in the table without
//! a value, and standard error says why.

mod checkpoint;
mod child;
mod dedup;
mod hub;
mod large;
mod loads;
mod made;
mod origin;
mod peers;
mod pull;
mod repository;
mod rows;
mod scratch;
mod usage;

use std::path::PathBuf;

use anyhow::Context;

use super::table::{self, Row};
use crate::cli::{BenchStorageArgs, StoragePart};
use crate::config::{Config, parse_size};
use peers::Peer;
use scratch::{Bench, Scratch, Stop};

/// All parts, in the order of the goals.
const PARTS: [StoragePart; 5] =
    [StoragePart::Loads, StoragePart::Pull, StoragePart::Registry, StoragePart::Hub, StoragePart::Dedup];

/// Measures and prints.
pub(crate) async fn bench_storage(config: &Config, args: &BenchStorageArgs) -> anyhow::Result<()> {
    let bytes = parse_size(&args.size).map_err(anyhow::Error::msg)?;
    let folder = match &args.dir {
        Some(dir) => dir.clone(),
        None => existing(config.store_dir()?.to_owned()),
    };
    let scratch = Scratch::folder_in(&folder)?;
    let stop = Stop::default();
    let bench = Bench::new(scratch.path().to_owned(), bytes, args.repeats, stop.clone())?;
    let parts = if args.only.is_empty() { PARTS.to_vec() } else { args.only.clone() };
    let against = args.against.clone();
    let mut measuring = tokio::task::spawn_blocking(move || measure(&bench, &parts, &against));
    let rows = tokio::select! {
        outcome = &mut measuring => outcome.context("the measurement ended early")??,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("stopping after this step; its files are deleted");
            stop.raise();
            // What it started and wrote is gone when it ends, whatever its outcome.
            let _ = measuring.await;
            anyhow::bail!("interrupted; its files are deleted");
        }
    };
    drop(scratch);
    let shown = |(is_asked_for, row): (bool, Row)| (is_asked_for || args.json).then_some(row);
    table::print(&rows.into_iter().filter_map(shown).collect::<Vec<_>>(), args.json)
}

fn existing(dir: PathBuf) -> PathBuf {
    dir.ancestors().find(|folder| folder.is_dir()).map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// Every row, and whether it was asked for; those of parts that were not, or that failed, have no value.
fn measure(bench: &Bench, parts: &[StoragePart], against: &[String]) -> anyhow::Result<Vec<(bool, Row)>> {
    let mut rows = Vec::new();
    for part in PARTS {
        let is_asked_for = parts.contains(&part);
        let measured = if is_asked_for { part_rows(bench, part, against) } else { Ok(unmeasured(part)) };
        bench.stop.check()?;
        let measured = measured.unwrap_or_else(|error| {
            bench.say(&format!("{part} is not measured: {error:#}"));
            unmeasured(part)
        });
        rows.extend(measured.into_iter().map(|row| (is_asked_for, row)));
    }
    bench.finish();
    Ok(rows)
}

fn part_rows(bench: &Bench, part: StoragePart, against: &[String]) -> anyhow::Result<Vec<Row>> {
    Ok(match part {
        StoragePart::Loads => rows::rows(&loads::measure(bench, &find_peers(bench, against))?),
        StoragePart::Pull => pull::rows(&pull::measure(bench)?),
        StoragePart::Registry => large::rows(&large::measure(bench)?),
        StoragePart::Hub => hub::rows(&hub::measure(bench)?),
        StoragePart::Dedup => dedup::rows(&dedup::measure(bench)?),
    })
}

fn unmeasured(part: StoragePart) -> Vec<Row> {
    match part {
        StoragePart::Loads => rows::rows(&rows::Samples::default()),
        StoragePart::Pull => pull::rows(&pull::Samples::default()),
        StoragePart::Registry => large::rows(&large::Samples::default()),
        StoragePart::Hub => hub::rows(&hub::Samples::default()),
        StoragePart::Dedup => dedup::rows(&dedup::Samples::default()),
    }
}

/// The peers that are installed; of the others, standard error says why they are not measured.
fn find_peers(bench: &Bench, names: &[String]) -> Vec<Peer> {
    if names.is_empty() {
        bench.say("no peers are measured\nhint: --against all, after `cargo xtask yardstick storage`");
    }
    let names = match names.iter().any(|name| name == "all") {
        true => rows::PEERS.map(|(name, _)| name.to_owned()).to_vec(),
        false => names.to_vec(),
    };
    let find = |name: &String| match Peer::find(name) {
        Ok(peer) => Some(peer),
        Err(error) => {
            bench.say(&format!("{name} is not measured: {error:#}"));
            None
        }
    };
    names.iter().filter_map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::{PARTS, unmeasured};

    #[test]
    fn every_row_is_there_without_a_value_and_reaches_no_goal() {
        let rows: Vec<_> = PARTS.into_iter().flat_map(unmeasured).collect();
        assert!(rows.iter().all(|row| row.value.is_none() && !row.met));
        // The table of goals: loads (6), peers (4 verified, 3 since boot), pull (2), registry (3), hub (1).
        assert_eq!(rows.iter().filter(|row| row.goal.is_some()).count(), 19);
        let mut names: Vec<_> = rows.iter().map(|row| &row.what).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
    }
}
