//! A host on the network: gRPC on a listener, behind the cluster token, with an end that loses no stream it need not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use helios_api::worker::{Worker, WorkerError, grpc_service, status_of_error};
use helios_registry::Secret;
use helios_runtime::{Clock, Shutdown};
use helios_types::ErrorCode;
use tokio::net::TcpListener;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status};

use crate::{Host, HostError};

/// Streams of one connection beyond the requests that the engine takes: watchers, and requests to be refused.
const STREAMS_BESIDE_REQUESTS: usize = 256;

/// A peer that leaves a ping unanswered this long is gone, and its streams with it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long connections may take to close after the last stream has ended.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// How a host is served.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// What every call must bring as `authorization: Bearer …`; `None` is for loopback only.
    pub cluster_token: Option<Secret>,
    /// How long running streams may go on after the order to stop.
    pub grace: Duration,
}

/// Refuses an address at which everybody on the network could use a worker without a token.
///
/// # Errors
/// [`HostError::InsecureBind`] for a non-loopback address without a token.
pub fn check_bind(address: SocketAddr, cluster_token: Option<&Secret>) -> Result<(), HostError> {
    let secured = cluster_token.is_some_and(|token| !token.expose().is_empty());
    match secured || address.ip().to_canonical().is_loopback() {
        true => Ok(()),
        false => Err(HostError::InsecureBind { address }),
    }
}

/// Answers calls on `listener` until `shutdown`, then drains the host and returns when running streams have finished
/// or the grace is over. The host's engine has ended by then.
///
/// # Errors
/// A non-loopback listener without a token, or a listener that fails.
pub async fn serve(
    host: Host,
    listener: TcpListener,
    options: ServeOptions,
    shutdown: &Shutdown,
) -> Result<(), HostError> {
    let broken = |error: &dyn std::fmt::Display| HostError::Serve { problem: error.to_string() };
    let address = listener.local_addr().map_err(|error| broken(&error))?;
    check_bind(address, options.cluster_token.as_ref())?;
    let check = TokenCheck { token: options.cluster_token };
    let worker: Arc<dyn Worker> = Arc::new(host.clone());
    let service = InterceptedService::new(grpc_service(worker), check);
    let streams_max = host.in_flight_max() + STREAMS_BESIDE_REQUESTS;
    let served = Server::builder()
        .max_concurrent_streams(u32::try_from(streams_max).unwrap_or(u32::MAX))
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .serve_with_incoming_shutdown(
            service,
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.triggered(),
        );
    let ended = end(&host, options.grace, shutdown);
    tokio::pin!(served, ended);
    tokio::select! {
        biased;
        // The engine is gone, so every stream has its end; what is open after a moment belongs to peers that do not
        // read it.
        () = &mut ended => Clock.timeout(CLOSE_MAX, served).await.unwrap_or(Ok(())).map_err(|error| broken(&error)),
        closed = &mut served => {
            closed.map_err(|error| broken(&error))?;
            ended.await;
            Ok(())
        }
    }
}

async fn end(host: &Host, grace: Duration, shutdown: &Shutdown) {
    shutdown.triggered().await;
    if !host.stop(grace).await {
        tracing::warn!(?grace, "running streams were broken off: the grace is over");
    }
}

/// Lets calls with the cluster token through.
#[derive(Clone)]
struct TokenCheck {
    token: Option<Secret>,
}

impl Interceptor for TokenCheck {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(token) = &self.token else { return Ok(request) };
        let given = request.metadata().get("authorization");
        let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer ")).unwrap_or_default();
        if token.matches(given) {
            return Ok(request);
        }
        let error = WorkerError::new(ErrorCode::Unauthenticated, "the call lacks the cluster token");
        Err(status_of_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use helios_registry::Secret;

    use super::check_bind;

    #[test]
    fn only_loopback_may_go_without_a_token() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(check_bind(address.parse().expect("an address"), None).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let address = address.parse().expect("an address");
            let error = check_bind(address, None).expect_err("an open bind");
            assert!(error.to_string().contains("hint: set a cluster token"), "{error}");
            assert!(check_bind(address, Some(&Secret::from(String::new()))).is_err());
            assert!(check_bind(address, Some(&Secret::from("secret".to_owned()))).is_ok());
        }
    }
}
