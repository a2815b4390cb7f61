//! Where a process listens, and when it should stop.

use std::net::SocketAddr;

use anyhow::bail;
use helios_runtime::Shutdown;
use tokio::signal::unix::{SignalKind, signal};

/// Says on standard error where the process listens; people and scripts read this line.
pub(crate) fn announce(address: SocketAddr) {
    eprintln!("listening on http://{address}");
}

/// Refuses an internal listener that anybody on the network could use.
pub(crate) fn check_internal(listen: SocketAddr, cluster_token: Option<&str>) -> anyhow::Result<()> {
    let secured = cluster_token.is_some_and(|token| !token.is_empty());
    if secured || listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    bail!(
        "refusing to listen on {listen} without a cluster token\n\
         hint: set HELIOS_CLUSTER_TOKEN to a secret that all parts share, or listen on 127.0.0.1"
    )
}

/// The wish to end this process: Ctrl-C or SIGTERM. The second one does not wait for anything.
pub(crate) struct Interrupt {
    shutdown: Shutdown,
}

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let shutdown = Shutdown::default();
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let trigger = shutdown.clone();
        helios_runtime::Tasks::new(Shutdown::default()).spawn("signals", async move {
            for again in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if again {
                    std::process::exit(130);
                }
                trigger.trigger();
            }
        });
        Ok(Self { shutdown })
    }

    /// The signal that everything below obeys.
    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The future's output, or an error if the wish comes first; the future is dropped then.
    pub(crate) async fn or<T>(&self, future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        match self.shutdown.race(future).await {
            Some(outcome) => outcome,
            None => bail!("interrupted"),
        }
    }
}
