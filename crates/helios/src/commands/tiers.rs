//! `helios tiers`: the directories of the store, what they hold and how they are.

use helios_storage::tiers::{TierReport, TierState};
use serde_json::json;

use crate::cli::TiersArgs;
use crate::config::{Config, show_size};
use crate::store::Store;

/// `helios tiers`.
pub(crate) async fn tiers(config: &Config, args: &TiersArgs) -> anyhow::Result<()> {
    let tiers = Store::open(config).await?.tiers().await?;
    if args.json {
        println!("{}", json!({ "tiers": tiers }));
        return Ok(());
    }
    println!(
        "{:<7} {:<5} {:>10} {:>10} {:>10} {:>7} {:>9} {:>9} DIRECTORY",
        "TIER", "STATE", "USED", "BUDGET", "FREE", "BLOBS", "READ/S", "WRITE/S"
    );
    tiers.iter().for_each(print_row);
    Ok(())
}

fn print_row(tier: &TierReport) {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), show_size);
    println!(
        "{:<7} {:<5} {:>10} {:>10} {:>10} {:>7} {:>9} {:>9} {}",
        tier.kind.as_str(),
        state(tier.state),
        show_size(tier.used_bytes),
        size(tier.budget_bytes),
        size(tier.free_bytes),
        tier.blobs,
        size(tier.read_bytes_per_second),
        size(tier.write_bytes_per_second),
        tier.dir.display()
    );
    if tier.pinned_blobs > 0 {
        println!("        {} of it pinned, {} blobs", show_size(tier.pinned_bytes), tier.pinned_blobs);
    }
    if let Some(failure) = tier.last_failure.as_ref().filter(|_| tier.state != TierState::Up) {
        let retry = tier.retry_in_ms.unwrap_or_default().div_ceil(1000);
        println!("        {}; tried again in {retry} s", failure.problem);
    }
}

fn state(state: TierState) -> &'static str {
    match state {
        TierState::Up => "up",
        TierState::Full => "full",
        TierState::Down => "down",
    }
}
