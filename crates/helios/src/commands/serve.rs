//! `helios serve`: everything in one process.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use helios_runtime::Clock;
use helios_runtime::telemetry::Metrics;

use crate::config::Config;
use crate::models;
use crate::parts::{Interrupt, Platform, announce};

/// Serves until interrupted.
pub(crate) async fn serve(config: &Config) -> anyhow::Result<()> {
    let began = Clock.now();
    let interrupt = Interrupt::listen()?;
    let metrics = Metrics::install()?;
    let listen = config.serve.listen;
    let listener = helios_runtime::bind(listen).await.with_context(|| port_hint(listen))?;
    let address = listener.local_addr()?;
    let platform = interrupt
        .or(async {
            let registry = models::open_registry(config).await?;
            Platform::start(config, registry, &config.serve.models, metrics).await
        })
        .await?;
    greet(address, &platform, Clock.now() - began);
    platform.serve(listener, interrupt.shutdown()).await;
    Ok(())
}

fn port_hint(listen: SocketAddr) -> String {
    format!("cannot serve on {listen}\nhint: another server may be there; choose another port with --port")
}

/// Says where to go from here; `curl` lines work when pasted.
fn greet(address: SocketAddr, platform: &Platform, took: Duration) {
    eprintln!("helios {} is ready after {:.2} s", env!("CARGO_PKG_VERSION"), took.as_secs_f64());
    for served in platform.served() {
        eprintln!("  {}: {}", served.reference, served.host.kv_budget());
    }
    announce(address);
    let Some(first) = platform.served().first() else { return };
    let model = &first.reference;
    eprintln!(
        "\n  curl http://{address}/v1/chat/completions -H 'content-type: application/json' \\\n    \
         -d '{{\"model\": \"{model}\", \"max_tokens\": 100, \"messages\": [{{\"role\": \"user\", \"content\": \"Hello!\"}}]}}'\n\n\
         chat in another terminal: {}",
        chat_command(address)
    );
}

/// `helios run`, as it has to be typed to reach this server.
fn chat_command(address: SocketAddr) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "helios".to_owned());
    match address.port() {
        8080 => format!("{program} run"),
        _ => format!("HELIOS_HOST={address} {program} run"),
    }
}
