//! `helios ps`: what a running server serves right now.

use anyhow::Context;
use helios_proxy::WorkerList;

use crate::cli::PsArgs;
use crate::environment;
use crate::server::Server;

/// Prints the workers of the server at HELIOS_HOST.
pub(crate) async fn ps(args: &PsArgs) -> anyhow::Result<()> {
    let server = Server::running().await?;
    let missing = || {
        format!(
            "no server answers at {}\nhint: start one with `helios serve`, or set HELIOS_HOST",
            environment::host()
        )
    };
    let list: WorkerList = server.with_context(missing)?.get("/admin/v1/workers").await?;
    if args.json {
        println!("{}", serde_json::to_string(&list)?);
        return Ok(());
    }
    println!(
        "{:<32} {:<10} {:>7} {:>7} {:>6} {:>8}  numerics",
        "MODEL", "STATE", "RUNNING", "WAITING", "KV", "CONTEXT"
    );
    for worker in &list.workers {
        let state = match (worker.connected, worker.draining, worker.ready) {
            (false, _, _) => "lost",
            (true, true, _) => "draining",
            (true, false, true) => "ready",
            (true, false, false) => "loading",
        };
        let kv_percent = 100 * u64::from(worker.kv_blocks_used) / u64::from(worker.kv_blocks_total.max(1));
        println!(
            "{:<32} {state:<10} {:>7} {:>7} {kv_percent:>5}% {:>8}  {}",
            worker.model.to_string(),
            worker.running_sequences,
            worker.queued_sequences,
            worker.context_tokens_max,
            worker.numerics_id
        );
    }
    Ok(())
}
