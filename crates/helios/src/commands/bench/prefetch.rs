//! `helios bench prefetch`: the prefetch policy over generated traces, or over what was asked for here, beside LRU,
//! itself without prefetch, and an oracle.

use std::path::Path;

use anyhow::Context;
use helios_prefetch::PolicyOptions;
use helios_prefetch::replay::{Contender, Outcome, replay};
use helios_prefetch::trace::{Pattern, Trace};
use helios_registry::recorded_trace;
use indicatif::ProgressBar;

use super::table::{self, Goal, Row};
use crate::cli::BenchPrefetchArgs;

/// The first seed that is reported; the policy was tuned on seeds 1 to 3.
const FIRST_SEED: u64 = 101;
/// What prefetch may cost where there is nothing to learn, or where what was learned turns wrong.
const HIT_RATE_LOSS_MAX: f64 = 1.0;
const BYTES_RATIO_MAX: f64 = 1.05;

/// What all contenders made of some traces.
struct Results {
    lru: Outcome,
    without: Outcome,
    with: Outcome,
    oracle: Outcome,
}

/// Replays and prints.
pub(crate) fn bench_prefetch(args: &BenchPrefetchArgs) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    if let Some(file) = &args.history {
        let results = measure(&[recorded(file)?], args.budget);
        report("recorded", false, &results, &mut rows);
        return table::print(&rows, args.json);
    }
    let progress = ProgressBar::new(Pattern::ALL.len() as u64);
    for pattern in Pattern::ALL {
        let seeds = FIRST_SEED..FIRST_SEED + args.seeds;
        let traces: Vec<Trace> = seeds.map(|seed| Trace::generate(pattern, seed)).collect();
        let is_bounded = matches!(pattern, Pattern::None | Pattern::Shift);
        report(pattern.as_str(), is_bounded, &measure(&traces, args.budget), &mut rows);
        progress.inc(1);
    }
    progress.finish_and_clear();
    table::print(&rows, args.json)
}

/// What was asked for at a store.
fn recorded(file: &Path) -> anyhow::Result<Trace> {
    #[allow(clippy::disallowed_methods, reason = "a file that the operator names, read once")]
    let bytes = std::fs::read(file).with_context(|| format!("reading {} failed", file.display()))?;
    Ok(recorded_trace(&bytes)?)
}

/// What all contenders make of `traces` with a tier of that percentage of the bytes.
fn measure(traces: &[Trace], budget_percent: u64) -> Results {
    let options = PolicyOptions::default();
    let total = |contender: Contender| {
        let mut sum = Outcome::default();
        for trace in traces {
            sum.add(&replay(trace, trace.bytes() / 100 * budget_percent, contender));
        }
        sum
    };
    Results {
        lru: total(Contender::Lru),
        without: total(Contender::Policy(PolicyOptions { prefetch: false, ..options })),
        with: total(Contender::Policy(options)),
        oracle: total(Contender::Oracle),
    }
}

/// Hit rate, bytes, and the seconds that all requests together waited less than without anything learned.
fn report(name: &str, is_bounded: bool, results: &Results, rows: &mut Vec<Row>) {
    let Results { lru, without, with, oracle } = results;
    let percent = |outcome: &Outcome| 100.0 * outcome.hit_rate();
    let gigabytes = |outcome: &Outcome| outcome.bytes as f64 / 1e9;
    let peers = [("LRU", lru), ("no prefetch", without), ("oracle", oracle)];
    let mut row = |what: &str, unit, value, peer: &str, peer_value, goal: Option<Goal>| {
        let row = Row::compared(&format!("{name}: {what}, {peer}"), unit, value, peer, peer_value);
        rows.push(match goal {
            Some(goal) => row.with_goal(goal),
            None => row,
        });
    };
    for (peer, other) in peers {
        let goal = Goal::RatioAtLeast(1.0 - HIT_RATE_LOSS_MAX / percent(other));
        let goal = (is_bounded && peer != "oracle").then_some(goal);
        row("hit rate", "%", percent(with), peer, percent(other), goal);
    }
    for (peer, other) in &peers[..2] {
        let goal = is_bounded.then_some(Goal::RatioAtMost(BYTES_RATIO_MAX));
        row("fetched", "GB", gigabytes(with), peer, gigabytes(other), goal);
    }
    for (peer, other) in peers {
        row("waited", "s", with.waited_seconds, peer, other.waited_seconds, None);
    }
    let saved = |outcome: &Outcome| lru.waited_seconds - outcome.waited_seconds;
    for (peer, other) in &peers[1..] {
        row("saved over LRU", "s", saved(with), peer, saved(other), None);
    }
    let used = with.prefetch_hits as f64;
    row("used of", "models", used, "prefetched", used + with.prefetch_wastes as f64, None);
}
