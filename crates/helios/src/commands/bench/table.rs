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
    /// The ratio to reach; `None` for a figure that is only reported.
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
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
    println!("{:<28} {:>10} {:>10} {:>7}  unit", "", "helios", "peer", "ratio");
    for row in rows {
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "{:<28} {:>10} {:>10} {ratio:>7}  {}",
            row.what,
            show(row.value),
            show(row.peer_value),
            row.unit
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Row, median};

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
