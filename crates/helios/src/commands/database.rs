//! The database of manifests and tags: made again, or copied.

use std::path::{Path, PathBuf};

use anyhow::Context;
use helios_registry::{RebuildProgress, Registry};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::RegistryCommand;
use crate::config::Config;
use crate::models;

/// `helios registry rebuild` and `helios registry backup`.
pub(crate) async fn database(config: &Config, command: &RegistryCommand) -> anyhow::Result<()> {
    match command {
        RegistryCommand::Rebuild { json } => rebuild(config, *json).await,
        RegistryCommand::Backup { file } => backup(config, file).await,
    }
}

async fn rebuild(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("reading manifests and tags [{bar:30}] {pos}/{len} eta {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    let shown = bar.clone();
    let report = move |progress: RebuildProgress| {
        shown.set_length(progress.total as u64);
        shown.set_position(progress.done as u64);
    };
    let counts = Registry::rebuild(config.store_dir()?, &models::registry_config(config)?, report).await;
    bar.finish_and_clear();
    let counts = counts?;
    if as_json {
        println!("{}", json!({ "manifests": counts.manifests, "blobs": counts.blobs, "tags": counts.tags }));
    } else {
        eprintln!(
            "the database is made again: {} versions, {} blobs, {} tags",
            counts.manifests, counts.blobs, counts.tags
        );
    }
    Ok(())
}

/// Reads the database beside a server that may use it: SQLite's log lets both.
async fn backup(config: &Config, file: &Path) -> anyhow::Result<()> {
    let file: PathBuf = std::path::absolute(file).context("the file to write")?;
    Registry::backup(config.store_dir()?, &models::registry_config(config)?, &file).await?;
    eprintln!("the database is copied to {}", file.display());
    Ok(())
}
