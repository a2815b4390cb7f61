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

/// What prefetch may cost where there is nothing to learn, or where what was learned turns wrong.
const HIT_RATE_LOSS_MAX: f64 = 1.0;
const BYTES_RATIO_MAX: f64 = 1.05;

/// What all contenders made of some traces.
struct Results {
    /// The name of the traces.
    name: &'static str,
    /// Whether prefetch has to cost next to nothing there.
    is_bounded: bool,
    lru: Outcome,
    without: Outcome,
    with: Outcome,
    oracle: Outcome,
}

/// Replays and prints.
pub(crate) fn bench_prefetch(args: &BenchPrefetchArgs) -> anyhow::Result<()> {
    let results = match &args.history {
        Some(file) => vec![measure("recorded", false, &[recorded(file)?], args)],
        None => generated(args),
    };
    if args.json {
        return table::print(&results.iter().flat_map(rows).collect::<Vec<_>>(), true);
    }
    TABLES.iter().for_each(|table| table.print(&results));
    let goals: Vec<Row> = results.iter().flat_map(rows).filter(|row| row.goal.is_some()).collect();
    if goals.is_empty() { Ok(()) } else { table::print(&goals, false) }
}

/// What was asked for at a store.
fn recorded(file: &Path) -> anyhow::Result<Trace> {
    #[allow(clippy::disallowed_methods, reason = "a file that the operator names, read once")]
    let bytes = std::fs::read(file).with_context(|| format!("reading {} failed", file.display()))?;
    Ok(recorded_trace(&bytes)?)
}

/// Every pattern, over traces of all seeds.
fn generated(args: &BenchPrefetchArgs) -> Vec<Results> {
    let progress = ProgressBar::new(Pattern::ALL.len() as u64);
    let measure = |pattern: Pattern| {
        let seeds = args.first_seed..args.first_seed + args.seeds;
        let traces: Vec<Trace> = seeds.map(|seed| Trace::generate(pattern, seed)).collect();
        let is_bounded = matches!(pattern, Pattern::None | Pattern::Shift);
        let results = measure(pattern.as_str(), is_bounded, &traces, args);
        progress.inc(1);
        results
    };
    let results = Pattern::ALL.into_iter().map(measure).collect();
    progress.finish_and_clear();
    results
}

/// What all contenders make of `traces`.
fn measure(name: &'static str, is_bounded: bool, traces: &[Trace], args: &BenchPrefetchArgs) -> Results {
    let options = options(args);
    let total = |contender: Contender| {
        let mut sum = Outcome::default();
        for trace in traces {
            sum.add(&replay(trace, trace.bytes() / 100 * args.budget, contender));
        }
        sum
    };
    Results {
        name,
        is_bounded,
        lru: total(Contender::Lru),
        without: total(Contender::Policy(PolicyOptions { prefetch: false, ..options })),
        with: total(Contender::Policy(options)),
        oracle: total(Contender::Oracle),
    }
}

fn options(args: &BenchPrefetchArgs) -> PolicyOptions {
    let chosen = PolicyOptions::default();
    let share = |percent: u32| f64::from(percent) / 100.0;
    PolicyOptions {
        horizon_requests: args.horizon.map_or(chosen.horizon_requests, f64::from),
        probability_min: args.probability.map_or(chosen.probability_min, share),
        margin: args.margin.map_or(chosen.margin, share),
        ..chosen
    }
}

/// A heading, and what is below it.
type Column = (&'static str, fn(&Results) -> f64);

/// A table for people: a line for each kind of trace.
struct Table {
    title: &'static str,
    decimals: usize,
    columns: &'static [Column],
}

const TABLES: [Table; 5] = [
    Table {
        title: "hit rate, %",
        decimals: 1,
        columns: &[
            ("LRU", |of| percent(&of.lru)),
            ("no prefetch", |of| percent(&of.without)),
            ("prefetch", |of| percent(&of.with)),
            ("oracle", |of| percent(&of.oracle)),
        ],
    },
    Table {
        title: "waited, s",
        decimals: 0,
        columns: &[
            ("LRU", |of| of.lru.waited_seconds),
            ("no prefetch", |of| of.without.waited_seconds),
            ("prefetch", |of| of.with.waited_seconds),
            ("oracle", |of| of.oracle.waited_seconds),
        ],
    },
    Table {
        title: "saved by prefetch, s",
        decimals: 0,
        columns: &[
            ("over LRU", |of| saved(&of.lru, &of.with)),
            ("over no prefetch", |of| saved(&of.without, &of.with)),
            ("% of the oracle's over LRU", |of| {
                100.0 * saved(&of.lru, &of.with) / saved(&of.lru, &of.oracle)
            }),
        ],
    },
    Table {
        title: "fetched, GB",
        decimals: 0,
        columns: &[
            ("LRU", |of| gigabytes(&of.lru)),
            ("no prefetch", |of| gigabytes(&of.without)),
            ("prefetch", |of| gigabytes(&of.with)),
            ("oracle", |of| gigabytes(&of.oracle)),
        ],
    },
    Table {
        title: "models fetched ahead",
        decimals: 0,
        columns: &[
            ("prefetched", |of| (of.with.prefetch_hits + of.with.prefetch_wastes) as f64),
            ("used", |of| of.with.prefetch_hits as f64),
        ],
    },
];

impl Table {
    fn print(&self, results: &[Results]) {
        let Self { title, decimals, columns } = self;
        let titles = TABLES.iter().map(|table| table.title.len());
        let first = results.iter().map(|of| of.name.len()).chain(titles).max().unwrap_or(0);
        let width = |name: &str| name.len().max(11);
        print!("{title:<first$}");
        columns.iter().for_each(|(name, _)| print!(" {name:>0$}", width(name)));
        println!();
        for of in results {
            print!("{:<first$}", of.name);
            columns.iter().for_each(|(name, figure)| print!(" {:>1$.decimals$}", figure(of), width(name)));
            println!();
        }
        println!();
    }
}

/// The figures for programs, and what they have to reach: hit rate, bytes, and the seconds that all requests together
/// waited less than without anything learned.
fn rows(of: &Results) -> Vec<Row> {
    let Results { name, is_bounded, lru, without, with, oracle } = of;
    let peers = [("LRU", lru), ("no prefetch", without), ("oracle", oracle)];
    let mut rows = Vec::new();
    let mut row = |what: &str, unit, value, peer: &str, peer_value, goal: Option<Goal>| {
        let row = Row::compared(&format!("{name}: {what}, {peer}"), unit, value, peer, peer_value);
        rows.push(match goal {
            Some(goal) => row.with_goal(goal),
            None => row,
        });
    };
    for (peer, other) in peers {
        let goal = Goal::RatioAtLeast(1.0 - HIT_RATE_LOSS_MAX / percent(other));
        let goal = (*is_bounded && peer != "oracle").then_some(goal);
        row("hit rate", "%", percent(with), peer, percent(other), goal);
    }
    for (peer, other) in &peers[..2] {
        let goal = is_bounded.then_some(Goal::RatioAtMost(BYTES_RATIO_MAX));
        row("fetched", "GB", gigabytes(with), peer, gigabytes(other), goal);
    }
    for (peer, other) in peers {
        row("waited", "s", with.waited_seconds, peer, other.waited_seconds, None);
    }
    for (peer, other) in &peers[1..] {
        row("saved over LRU", "s", saved(lru, with), peer, saved(lru, other), None);
    }
    let used = with.prefetch_hits as f64;
    row("used of", "models", used, "prefetched", used + with.prefetch_wastes as f64, None);
    rows
}

fn percent(outcome: &Outcome) -> f64 {
    100.0 * outcome.hit_rate()
}

fn gigabytes(outcome: &Outcome) -> f64 {
    outcome.bytes as f64 / 1e9
}

/// Seconds that all requests together waited less with `better`.
fn saved(worse: &Outcome, better: &Outcome) -> f64 {
    worse.waited_seconds - better.waited_seconds
}
