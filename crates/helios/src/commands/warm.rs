//! `helios warm`: which models are near, how near, and why; and which are to be kept so.

use helios_registry::{WarmLevel, WarmRecord};
use helios_types::ModelRef;
use serde_json::json;

use crate::cli::WarmArgs;
use crate::config::{Config, show_size};
use crate::store::Store;

/// Shows, keeps or lets go.
pub(crate) async fn warm(config: &Config, args: &WarmArgs) -> anyhow::Result<()> {
    let model = args.model.as_deref().map(str::parse::<ModelRef>).transpose()?;
    let store = Store::open(config).await?;
    let records = match &model {
        None => store.warm().await?,
        Some(model) if args.off => {
            store.keep_warm_no_more(model).await?;
            if !args.json {
                eprintln!("{model} is kept warm no more");
                return Ok(());
            }
            store.warm().await?.into_iter().filter(|record| record.model == *model).collect()
        }
        Some(model) => store.keep_warm(model, args.level.into()).await?,
    };
    if args.json {
        println!("{}", json!({ "records": records }));
        return Ok(());
    }
    if records.is_empty() {
        eprintln!(
            "nothing was asked for yet\nhint: `helios warm MODEL` keeps a model near before anybody asks"
        );
        return Ok(());
    }
    print_table(&records);
    if matches!(store, Store::Here(_)) && records.iter().any(|record| record.missing_bytes > 0) {
        eprintln!("what is missing is fetched by the next server that runs on this store");
    }
    Ok(())
}

fn print_table(records: &[WarmRecord]) {
    let (model, place) = (width(records, |record| record.model.to_string()), width(records, place_of));
    println!("{:<model$} {:<place$} {:<7} {:<16} {:>8}  WHY", "MODEL", "WHERE", "WANTED", "IS", "IN 1 H");
    for record in records {
        let hour = match &record.forecast {
            Some(forecast) => format!("{:.0} %", 100.0 * forecast.probability_of_hour),
            None => "-".to_owned(),
        };
        println!(
            "{:<model$} {:<place$} {:<7} {:<16} {hour:>8}  {}",
            record.model.to_string(),
            place_of(record),
            record.wanted.map_or("-", WarmLevel::as_str),
            level_of(record),
            why(record)
        );
    }
}

fn width(records: &[WarmRecord], text: impl Fn(&WarmRecord) -> String) -> usize {
    records.iter().map(|record| text(record).chars().count()).max().unwrap_or(0).max(5)
}

fn place_of(record: &WarmRecord) -> String {
    record.place.to_string()
}

fn level_of(record: &WarmRecord) -> String {
    match record.actual {
        Some(level) => level.as_str().to_owned(),
        None if record.missing_bytes > 0 => format!("{} missing", show_size(record.missing_bytes)),
        None => "-".to_owned(),
    }
}

fn why(record: &WarmRecord) -> String {
    match &record.problem {
        Some(problem) => {
            format!("{}; could not be fetched: {}", record.reason, problem.lines().next().unwrap_or_default())
        }
        None => record.reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use helios_registry::{WarmLevel, WarmPlace, WarmReason, WarmRecord};

    use super::{level_of, why};

    #[test]
    fn a_model_that_is_not_here_says_what_is_missing_and_why() {
        let record = WarmRecord {
            model: "m".parse().unwrap(),
            manifest: None,
            place: WarmPlace::Store,
            wanted: Some(WarmLevel::Disk),
            actual: None,
            reason: WarmReason::Pinned,
            since: 0,
            bytes: 5 << 30,
            missing_bytes: 3 << 30,
            forecast: None,
            problem: Some("no parent\nhint: pull it".to_owned()),
        };
        assert_eq!(level_of(&record), "3.0 GiB missing");
        assert_eq!(why(&record), "pinned by the operator; could not be fetched: no parent");
    }
}
