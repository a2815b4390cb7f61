//! The verbs of the model store.

use helios_model::Manifest;
use helios_registry::{ModelSummary, Resolved};
use helios_types::ModelRef;
use serde_json::json;

use crate::cli::{
    ConvertArgs, DedupArgs, GcArgs, HistoryArgs, ListArgs, PullArgs, PushArgs, RmArgs, RollbackArgs, TagArgs,
};
use crate::config::{Config, show_size};
use crate::models;
use crate::parts::Interrupt;
use crate::progress::PullProgress;
use crate::store::Store;

/// `helios pull`. Ctrl-C keeps what came, for the next pull to go on from.
pub(crate) async fn pull(config: &Config, args: &PullArgs) -> anyhow::Result<()> {
    let name = args.name.as_deref().map(str::parse::<ModelRef>).transpose()?;
    fetch(&Store::open(config).await?, &args.model, name, args.json).await.map(drop)
}

/// `helios convert`: a pull whose source is a model of the store.
pub(crate) async fn convert(config: &Config, args: &ConvertArgs) -> anyhow::Result<()> {
    let target = args.target.parse::<ModelRef>()?;
    let store = Store::open(config).await?;
    let model = match models::is_source(&args.source) {
        true => fetch(&store, &args.source, None, args.json).await?.reference,
        false => args.source.parse()?,
    };
    fetch(&store, &format!("convert:{model}#{}", args.to), Some(target), args.json).await.map(drop)
}

/// Pulls with a progress bar, or JSON lines.
async fn fetch(store: &Store, spec: &str, name: Option<ModelRef>, as_json: bool) -> anyhow::Result<Resolved> {
    let interrupt = Interrupt::listen()?;
    let mut bar = PullProgress::new();
    let mut report = |progress| match as_json {
        true => println!("{}", json!({ "progress": progress })),
        false => bar.report(&progress),
    };
    let pulled = interrupt.or(async { Ok(store.pull(spec, name, &mut report).await?) }).await;
    bar.finish();
    let resolved = pulled?;
    if as_json {
        let native = resolved.manifest.is_native();
        let done = json!({ "model": resolved.reference, "digest": resolved.digest, "native": native });
        println!("{}", json!({ "done": done }));
    } else {
        eprintln!(
            "{} is here: {}, {}",
            resolved.reference,
            show_size(resolved.manifest.size()),
            resolved.digest
        );
        note_foreign(&resolved.manifest);
    }
    Ok(resolved)
}

/// Says what came and cannot be run here.
fn note_foreign(manifest: &Manifest) {
    match &manifest.metadata {
        Some(facts) if !manifest.is_native() => eprintln!(
            "note: the native engine does not run this model of the family `{}`, mostly in {}; workers of other engines can have it",
            facts.architecture, facts.quantisation
        ),
        Some(_) => {}
        None => eprintln!("note: its files are kept, and are no model that Helios reads"),
    }
}

/// `helios push`.
pub(crate) async fn push(config: &Config, args: &PushArgs) -> anyhow::Result<()> {
    let report = Store::open(config).await?.push(&args.model.parse()?).await?;
    if args.json {
        println!("{}", json!(report));
    } else {
        let (pushed, there) = (report.blobs_pushed, report.blobs_there);
        eprintln!(
            "{} pushed: {}, {pushed} blobs; {there} were there",
            args.model,
            show_size(report.bytes_pushed)
        );
    }
    Ok(())
}

/// `helios list`.
pub(crate) async fn list(config: &Config, args: &ListArgs) -> anyhow::Result<()> {
    let models = Store::open(config).await?.list().await?;
    if args.json {
        println!("{}", json!({ "models": models }));
        return Ok(());
    }
    if models.is_empty() {
        eprintln!("no models yet\nhint: `helios pull smollm2:135m-instruct` fetches the default one");
        return Ok(());
    }
    println!("{:<40} {:>10} {:>12} {:>8} {:<10} DIGEST", "MODEL", "SIZE", "PARAMETERS", "CONTEXT", "WEIGHTS");
    models.iter().for_each(print_row);
    Ok(())
}

fn print_row(model: &ModelSummary) {
    let told = |number: u64, shown: String| if number > 0 { shown } else { "-".to_owned() };
    let (parameters, context, weights) = match &model.metadata {
        Some(facts) => (
            told(facts.parameters, format!("{:.1} M", facts.parameters as f64 / 1e6)),
            told(facts.context_tokens, facts.context_tokens.to_string()),
            facts.quantisation.to_string(),
        ),
        None => ("-".to_owned(), "-".to_owned(), "files only".to_owned()),
    };
    println!(
        "{:<40} {:>10} {parameters:>12} {context:>8} {weights:<10} {}",
        model.model.to_string(),
        show_size(model.size),
        &model.digest.hex()[..12]
    );
}

/// `helios history`.
pub(crate) async fn history(config: &Config, args: &HistoryArgs) -> anyhow::Result<()> {
    let (resolved, history) = Store::open(config).await?.show(&args.model.parse()?).await?;
    if args.json {
        println!("{}", json!({ "model": resolved.reference, "history": history }));
        return Ok(());
    }
    println!("{:<5} {:<12} {:<25} FROM", "BACK", "DIGEST", "SINCE (UTC)");
    for (back, entry) in history.iter().rev().enumerate() {
        println!("{back:<5} {:<12} {:<25} {}", &entry.digest.hex()[..12], utc(entry.at), entry.source);
    }
    Ok(())
}

/// A moment in milliseconds since 1970 as date and time, by Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn utc(unix_ms: u64) -> String {
    let (days, seconds) = (unix_ms / 86_400_000, unix_ms / 1_000 % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// `helios rollback`.
pub(crate) async fn rollback(config: &Config, args: &RollbackArgs) -> anyhow::Result<()> {
    let (model, digest) = Store::open(config).await?.rollback(&args.model.parse()?, &args.to).await?;
    if args.json {
        println!("{}", json!({ "model": model, "digest": digest }));
    } else {
        eprintln!("{model} is {digest} again");
    }
    Ok(())
}

/// `helios rm`.
pub(crate) async fn rm(config: &Config, args: &RmArgs) -> anyhow::Result<()> {
    let store = Store::open(config).await?;
    for model in &args.models {
        store.remove(&model.parse()?).await?;
        eprintln!("{model} is removed; `helios gc` frees its space");
    }
    Ok(())
}

/// `helios tag`.
pub(crate) async fn tag(config: &Config, args: &TagArgs) -> anyhow::Result<()> {
    Ok(Store::open(config).await?.tag(&args.source.parse()?, &args.target.parse()?).await?)
}

/// `helios dedup`.
pub(crate) async fn dedup(config: &Config, args: &DedupArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::listen()?;
    let store = Store::open(config).await?;
    let spinner = crate::progress::spinner("comparing tensors");
    let done = interrupt.or(async { Ok(store.deduplicate().await?) }).await;
    spinner.finish_and_clear();
    let report = done?;
    if args.json {
        println!("{}", json!(report));
    } else {
        eprintln!(
            "saved {}: {} of {} weight files became recipes, {} were already",
            show_size(report.bytes_saved),
            report.recipes_made,
            report.files,
            report.recipes_kept
        );
    }
    Ok(())
}

/// `helios gc`.
pub(crate) async fn gc(config: &Config, args: &GcArgs) -> anyhow::Result<()> {
    let report = Store::open(config).await?.gc().await?;
    if args.json {
        println!("{}", json!(report));
    } else {
        let models = report.manifests_removed;
        eprintln!(
            "freed {}: {} blobs, {models} model versions",
            show_size(report.bytes_freed),
            report.blobs_removed
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn moments_are_shown_as_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_827_696_000), "2000-02-29 12:34:56");
        assert_eq!(utc(1_798_761_599_999), "2026-12-31 23:59:59");
    }
}
