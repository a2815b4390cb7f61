//! A bench's result: rows of one figure each, as a table for people or one JSON object for programs.

use serde::Serialize;

/// One figure. A figure that was not measured has no value.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// What was measured.
    pub(super) what: String,
    /// The median of the repeats.
    pub(super) value: Option<f64>,
    /// The value's unit.
    pub(super) unit: &'static str,
    /// Whom it is compared with.
    pub(super) peer: Option<String>,
    /// The peer's median.
    pub(super) peer_value: Option<f64>,
    /// `value / peer_value`.
    pub(super) ratio: Option<f64>,
    /// The ratio, or the value, to reach; `None` for a figure that is only reported.
    pub(super) goal: Option<f64>,
    /// Whether the goal is reached.
    pub(super) met: bool,
}

impl Row {
    /// A reported figure; `samples` and `peer_samples` are the repeats.
    pub(super) fn reported(
        what: &str,
        unit: &'static str,
        samples: &[f64],
        peer: Option<(&str, &[f64])>,
    ) -> Self {
        let value = median(samples);
        let peer_value = peer.and_then(|(_, samples)| median(samples));
        let ratio = value.zip(peer_value).map(|(value, peer)| value / peer);
        Self {
            what: what.to_owned(),
            value,
            unit,
            peer: peer.map(|(name, _)| name.to_owned()),
            peer_value,
            ratio,
            goal: None,
            met: value.is_some(),
        }
    }
}

/// What a figure has to reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// A ratio to the peer that must be reached.
    RatioAtLeast(f64),
    /// A ratio to the peer that must not be exceeded.
    RatioAtMost(f64),
    /// A ratio to the peer that must not be reached.
    RatioBelow(f64),
    /// A value that must not be exceeded.
    AtMost(f64),
}

impl Row {
    /// A reported figure beside a peer's, both certain: nothing was timed.
    pub(super) fn compared(what: &str, unit: &'static str, value: f64, peer: &str, peer_value: f64) -> Self {
        Self::reported(what, unit, &[value], Some((peer, &[peer_value])))
    }

    /// Judges the figure; one that was not measured reaches no goal.
    pub(super) fn with_goal(mut self, goal: Goal) -> Self {
        let holds = |figure: Option<f64>, holds: &dyn Fn(f64) -> bool| figure.is_some_and(holds);
        let (number, met) = match goal {
            Goal::RatioAtLeast(least) => (least, holds(self.ratio, &|ratio| ratio >= least)),
            Goal::RatioAtMost(most) => (most, holds(self.ratio, &|ratio| ratio <= most)),
            Goal::RatioBelow(most) => (most, holds(self.ratio, &|ratio| ratio < most)),
            Goal::AtMost(most) => (most, holds(self.value, &|value| value <= most)),
        };
        (self.goal, self.met) = (Some(number), met);
        self
    }
}

/// The middle of `samples`; of an even number, the upper one of the two.
pub(super) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Prints `rows` to standard output.
pub(super) fn print(rows: &[Row], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "rows": rows }))?);
        return Ok(());
    }
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    println!("{:<width$} {:>10} {:>10} {:>7} {:>7}  unit", "", "helios", "peer", "ratio", "goal");
    for row in rows {
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "{:<width$} {:>10} {:>10} {ratio:>7} {:>7}  {}{}",
            row.what,
            show(row.value),
            show(row.peer_value),
            show(row.goal),
            row.unit,
            if row.goal.is_some() && !row.met { ", missed" } else { "" }
        );
    }
    Ok(())
}

/// Three digits or more, as many as tell small figures apart.
fn show(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() < 10.0 => format!("{value:.3}"),
        Some(value) => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Goal, Row, median};

    #[test]
    fn goals_are_judged_on_the_figure_they_name() {
        let row = |own: &[f64]| Row::reported("x", "s", own, Some(("peer", &[2.0])));
        let met = |own: &[f64], goal| row(own).with_goal(goal).met;
        assert!(met(&[1.9], Goal::RatioAtLeast(0.95)) && !met(&[1.8], Goal::RatioAtLeast(0.95)));
        assert!(met(&[0.4], Goal::RatioAtMost(0.2)) && !met(&[0.5], Goal::RatioAtMost(0.2)));
        assert!(met(&[1.9], Goal::RatioBelow(1.0)) && !met(&[2.0], Goal::RatioBelow(1.0)));
        assert!(met(&[50.0], Goal::AtMost(50.0)) && !met(&[51.0], Goal::AtMost(50.0)));
        assert!(!met(&[], Goal::AtMost(50.0)));
        assert_eq!(row(&[]).with_goal(Goal::AtMost(50.0)).goal, Some(50.0));
    }

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        let row = Row::reported("x", "tokens/s", &[2.0, 4.0, 3.0], Some(("peer", &[1.5])));
        assert_eq!((row.value, row.ratio, row.met), (Some(3.0), Some(2.0), true));
        let missing = Row::reported("x", "tokens/s", &[], None);
        assert_eq!((missing.value, missing.met), (None, false));
    }
}
