//! The `helios` binary: command line, configuration, wiring.
//!
//! The parts do the work; this crate reads flags, files and the environment, builds the parts a command needs, and
//! talks to the person at the terminal.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod config;
mod environment;
mod models;
mod parts;
mod progress;
mod server;
mod sse;
mod store;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use helios_runtime::telemetry;

use crate::cli::{BenchCommand, Cli, Command};
use crate::config::{Config, Flags, LogFormat};

fn main() -> ExitCode {
    helios_runtime::install_tls_provider();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(cli));
            // A thread that waits for a line from the terminal cannot be joined.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(anyhow::Error::from(error).context("starting the asynchronous runtime failed")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// The chain of causes in one line, hints on lines of their own behind it.
fn describe(error: &anyhow::Error) -> String {
    let mut line = String::new();
    let mut hints = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        // Libraries often repeat their source in their own message.
        if !line.contains(message) {
            line = if line.is_empty() { message.to_owned() } else { format!("{line}: {message}") };
        }
        if !hint.is_empty() && !hints.contains(hint) {
            hints.push_str("\nhint: ");
            hints.push_str(hint);
        }
    }
    line + &hints
}

async fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let mut flags = Flags::global(&cli.global);
    flags = match &cli.command {
        Command::Serve(args) => flags.serve(args),
        Command::Worker(args) => flags.worker(args),
        Command::Proxy(args) => Ok(flags.http(&args.http).listen(&args.part)),
        _ => Ok(flags),
    }
    .map_err(anyhow::Error::msg)?;
    if let Command::Completions { shell } = &cli.command {
        clap_complete::generate(*shell, &mut Cli::command(), "helios", &mut std::io::stdout());
        return Ok(());
    }
    if let Command::Config(cli::ConfigCommand::Schema) = &cli.command {
        return commands::config_schema();
    }
    let (config, figment) = Config::load(cli.global.config.as_deref(), &flags)?;
    start_logs(&config, &cli)?;
    helios_storage::io::IoChoice::from(config.store.io).set_for_process();
    match &cli.command {
        Command::Serve(_) => commands::serve(&config).await,
        Command::Run(args) => commands::run(&config, args).await,
        Command::Pull(args) => commands::pull(&config, args).await,
        Command::Export(args) => commands::export(&config, args).await,
        Command::Import(args) => commands::import(&config, args).await,
        Command::List(args) => commands::list(&config, args).await,
        Command::Show(args) => commands::show(&config, args).await,
        Command::Fit(args) => commands::fit(&config, args).await,
        Command::Ps(args) => commands::ps(args).await,
        Command::History(args) => commands::history(&config, args).await,
        Command::Rollback(args) => commands::rollback(&config, args).await,
        Command::Rm(args) => commands::rm(&config, args).await,
        Command::Tag(args) => commands::tag(&config, args).await,
        Command::Convert(args) => commands::convert(&config, args).await,
        Command::Push(args) => commands::push(&config, args).await,
        Command::Dedup(args) => commands::dedup(&config, args).await,
        Command::Warm(args) => commands::warm(&config, args).await,
        Command::Gc(args) => commands::gc(&config, args).await,
        Command::Tiers(args) => commands::tiers(&config, args).await,
        Command::Config(command) => commands::config(command, &config, &figment),
        Command::Bench(BenchCommand::Engine(args)) => commands::bench_engine(&config, args).await,
        Command::Bench(BenchCommand::Storage(args)) => commands::bench_storage(&config, args).await,
        Command::Doctor(args) => commands::doctor(&config, args),
        Command::Bench(BenchCommand::Prefetch(args)) => commands::bench_prefetch(args),
        Command::Registry(args) => commands::registry(&config, args).await,
        Command::Worker(args) => commands::worker(&config, args).await,
        Command::Proxy(args) => commands::proxy(&config, args).await,
        Command::Completions { .. } => Ok(()),
    }
}

/// Servers log what the configuration says; verbs that a person waits for only warn, unless asked.
fn start_logs(config: &Config, cli: &Cli) -> anyhow::Result<()> {
    let serves = matches!(
        cli.command,
        Command::Serve(_) | Command::Registry(_) | Command::Worker(_) | Command::Proxy(_)
    );
    let filter = if serves || cli.global.log.is_some() { config.log.filter.as_str() } else { "warn" };
    let format = match config.log.format {
        LogFormat::Auto => telemetry::LogFormat::Auto,
        LogFormat::Human => telemetry::LogFormat::Human,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    Ok(telemetry::init_logs(filter, format)?)
}
