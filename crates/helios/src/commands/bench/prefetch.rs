//! `helios bench prefetch`: the prefetch policy over generated traces, beside LRU, itself without prefetch, and an oracle.

use helios_registry::prefetch::PolicyOptions;
use helios_registry::prefetch::replay::{Contender, Outcome, replay};
use helios_registry::prefetch::trace::{Pattern, Trace};
use indicatif::ProgressBar;

use super::table::{self, Goal, Row};
use crate::cli::BenchPrefetchArgs;

/// The first seed that is reported; the policy was tuned on seeds 1 to 3.
const FIRST_SEED: u64 = 101;
/// What prefetch may cost where there is nothing to learn, or where what was learned turns wrong.
const HIT_RATE_LOSS_MAX: f64 = 1.0;
const BYTES_RATIO_MAX: f64 = 1.05;

/// What all contenders made of the traces of one pattern.
struct Results {
    lru: Outcome,
    without: Outcome,
    with: Outcome,
    oracle: Outcome,
}

/// Replays and prints.
pub(crate) fn bench_prefetch(args: &BenchPrefetchArgs) -> anyhow::Result<()> {
    let progress = ProgressBar::new(Pattern::ALL.len() as u64);
    let mut rows = Vec::new();
    for pattern in Pattern::ALL {
        let results = measure(pattern, args);
        report(pattern, &results, &mut rows);
        progress.inc(1);
    }
    progress.finish_and_clear();
    table::print(&rows, args.json)
}

fn measure(pattern: Pattern, args: &BenchPrefetchArgs) -> Results {
    let options = PolicyOptions::default();
    let total = |contender: Contender| {
        let mut sum = Outcome::default();
        for seed in FIRST_SEED..FIRST_SEED + args.seeds {
            let trace = Trace::generate(pattern, seed);
            sum.add(&replay(&trace, trace.bytes() / 100 * args.budget, contender));
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

fn report(pattern: Pattern, results: &Results, rows: &mut Vec<Row>) {
    let Results { lru, without, with, oracle } = results;
    let is_bounded = matches!(pattern, Pattern::None | Pattern::Shift);
    let percent = |outcome: &Outcome| 100.0 * outcome.hit_rate();
    let gigabytes = |outcome: &Outcome| outcome.bytes as f64 / 1e9;
    let name = pattern.as_str();
    let mut row = |what: &str, unit, value, peer: &str, peer_value, goal: Option<Goal>| {
        let row = Row::compared(&format!("{name}: {what}, {peer}"), unit, value, peer, peer_value);
        rows.push(match goal {
            Some(goal) => row.with_goal(goal),
            None => row,
        });
    };
    for (peer, other) in [("LRU", lru), ("no prefetch", without), ("oracle", oracle)] {
        let goal = Goal::RatioAtLeast(1.0 - HIT_RATE_LOSS_MAX / percent(other));
        let goal = (is_bounded && peer != "oracle").then_some(goal);
        row("hit rate", "%", percent(with), peer, percent(other), goal);
    }
    for (peer, other) in [("LRU", lru), ("no prefetch", without)] {
        let goal = is_bounded.then_some(Goal::RatioAtMost(BYTES_RATIO_MAX));
        row("fetched", "GB", gigabytes(with), peer, gigabytes(other), goal);
    }
    let saved = |outcome: &Outcome| lru.waited_seconds - outcome.waited_seconds;
    for (peer, other) in [("no prefetch", without), ("oracle", oracle)] {
        row("saved over LRU", "s", saved(with), peer, saved(other), None);
    }
    let used = with.prefetch_hits as f64;
    row("used of", "models", used, "prefetched", used + with.prefetch_wastes as f64, None);
}
