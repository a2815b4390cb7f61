//! `helios config`: what is set, where it came from, what could be set.

use figment::Figment;
use schemars::schema_for;

use crate::cli::ConfigCommand;
use crate::config::{Config, Setting, explain};

/// Runs `check` or `explain`; both get here only with a configuration that holds.
pub(crate) fn config(command: &ConfigCommand, config: &Config, figment: &Figment) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check => println!("the configuration is good"),
        ConfigCommand::Explain { json: true } => {
            let settings = explain(config, figment);
            println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "settings": settings }))?);
        }
        ConfigCommand::Explain { json: false } => print_table(&explain(config, figment)),
        ConfigCommand::Schema => config_schema()?,
    }
    Ok(())
}

fn print_table(settings: &[Setting]) {
    let width = settings.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
    for Setting { key, value, origin } in settings {
        println!("{key:<width$}  {value}  ({origin})");
    }
}

/// Prints the JSON schema of the configuration file.
pub(crate) fn config_schema() -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(&schema_for!(Config))?);
    Ok(())
}
