//! The rows of loads from the disk, measured or not.

use std::collections::BTreeMap;

use super::super::table::{Goal, Row, median};
use super::usage::Load;

pub(super) const RATE: &str = "GB/s";
pub(super) const CPU: &str = "CPU-s/GB";
const RAW: &str = "raw sequential read";

/// The peers of the goals; those that copy hold a cold map to a fifth of their processor time.
pub(super) const PEERS: [(&str, bool); 4] =
    [("safetensors", false), ("runai-model-streamer", true), ("fastsafetensors", true), ("tensorizer", true)];

/// Everything measured.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) hash: Vec<Load>,
    pub(super) raw: Vec<Load>,
    pub(super) fill: Vec<Load>,
    pub(super) load: Vec<Load>,
    pub(super) first: Vec<Load>,
    pub(super) map: Vec<Load>,
    pub(super) open_ms: Vec<f64>,
    pub(super) private_percent: Vec<f64>,
    peers: BTreeMap<String, Vec<Load>>,
}

impl Samples {
    /// The loads of a peer.
    pub(super) fn peer(&mut self, name: &str) -> &mut Vec<Load> {
        self.peers.entry(name.to_owned()).or_default()
    }
}

fn rates(loads: &[Load]) -> Vec<f64> {
    loads.iter().map(Load::rate).collect()
}

fn cpu(loads: &[Load]) -> Vec<f64> {
    loads.iter().map(Load::cpu_per_gb).collect()
}

/// All rows, in the order of the goals.
pub(super) fn rows(samples: &Samples) -> Vec<Row> {
    let Samples { hash, raw, fill, load, first, map, open_ms, private_percent, peers } = samples;
    let of_raw = |what, loads: &[Load]| {
        Row::reported(what, RATE, &rates(loads), Some((RAW, &rates(raw)))).with_goal(Goal::RatioAtLeast(0.95))
    };
    let mut rows = vec![
        Row::reported("BLAKE3 alone, memory that is there: CPU", CPU, &cpu(hash), None),
        Row::reported("raw read into as much memory", RATE, &rates(fill), Some((RAW, &rates(raw)))),
        of_raw("cold load into memory, verified", load),
        Row::reported("cold load into memory, verified: CPU", CPU, &cpu(load), None)
            .with_goal(Goal::AtMost(0.20)),
        Row::reported("first map since boot, verified", RATE, &rates(first), Some((RAW, &rates(raw)))),
        Row::reported("first map since boot, verified: CPU", CPU, &cpu(first), None),
        of_raw("cold map, verified since boot", map),
        Row::reported("cold map, verified since boot: CPU", CPU, &cpu(map), None)
            .with_goal(Goal::AtMost(0.05)),
        Row::reported("warm open, 4 shards", "ms", open_ms, None).with_goal(Goal::AtMost(50.0)),
        Row::reported("warm open, 4 shards: private memory", "%", private_percent, None)
            .with_goal(Goal::AtMost(1.0)),
    ];
    for (name, copies) in PEERS {
        let loads = peers.get(name).map_or(&[][..], Vec::as_slice);
        rows.extend(peer_rows(name, copies, loads, load, map));
    }
    rows
}

fn peer_rows(name: &str, copies: bool, peer: &[Load], load: &[Load], map: &[Load]) -> [Row; 3] {
    let (peer_rates, peer_cpu) = (rates(peer), cpu(peer));
    let compared = |what: String, unit, own: &[f64], theirs: &[f64]| {
        // Without the peer, there is no comparison to report.
        let own = if median(theirs).is_some() { own } else { &[] };
        Row::reported(&what, unit, own, Some((name, theirs)))
    };
    let mapped = compared(format!("CPU, verified since boot, {name}"), CPU, &cpu(map), &peer_cpu);
    [
        compared(format!("cold load, {name}"), RATE, &rates(load), &peer_rates),
        compared(format!("CPU, verified, {name}"), CPU, &cpu(load), &peer_cpu)
            .with_goal(Goal::RatioBelow(1.0)),
        if copies { mapped.with_goal(Goal::RatioAtMost(0.2)) } else { mapped },
    ]
}

#[cfg(test)]
mod tests {
    use super::{Load, PEERS, Samples, rows};

    #[test]
    fn every_goal_has_its_row_measured_or_not() {
        let load = |seconds, cpu_seconds| Load { bytes: 1_000_000_000, seconds, cpu_seconds };
        let nothing = rows(&Samples::default());
        assert_eq!(nothing.len(), 10 + 3 * PEERS.len());
        assert!(nothing.iter().all(|row| row.value.is_none() && !row.met));
        let mut samples =
            Samples { raw: vec![load(0.5, 0.0)], load: vec![load(0.6, 0.1)], ..Samples::default() };
        samples.peer("tensorizer").push(load(1.0, 0.3));
        let rows = rows(&samples);
        let met = |what: &str| rows.iter().find(|row| row.what == what).map(|row| row.met);
        assert_eq!(met("cold load into memory, verified"), Some(false));
        assert_eq!(met("cold load into memory, verified: CPU"), Some(true));
        assert_eq!(met("CPU, verified, tensorizer"), Some(true));
        assert_eq!(met("CPU, verified, fastsafetensors"), Some(false));
    }
}
