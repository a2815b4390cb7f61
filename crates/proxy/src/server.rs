//! The listener: accepts connections up to a bound, answers HTTP/1 and HTTP/2 on them, and drains at shutdown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use helios_runtime::{Clock, Shutdown, Tasks};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Counted;
use crate::{Proxy, ProxyConfig};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// After a failed accept (out of descriptors, as a rule) the next attempt waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers on `listener` until `tasks` stop, then drains.
pub(crate) async fn serve(proxy: Proxy, config: &ProxyConfig, listener: TcpListener, tasks: &Tasks) {
    let places = Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    let cut_off = Shutdown::default();
    let builder = builder(config);
    while let Some(accepted) = tasks.shutdown().race(accept(&listener, &places)).await {
        match accepted {
            Ok((stream, peer, place)) => {
                let connection = connection(&builder, proxy.clone(), stream, peer);
                let (watched, cut_off) = (graceful.watch(connection), cut_off.clone());
                tasks.spawn("client connection", async move {
                    let (_place, _counted) = (place, Counted::connection());
                    if let Some(Err(error)) = cut_off.race(watched).await {
                        tracing::debug!(%error, "a client connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                Clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if Clock.timeout(config.drain_max(), graceful.shutdown()).await.is_err() {
        tracing::warn!("open answers are cut off");
        cut_off.trigger();
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

fn builder(config: &ProxyConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(config.headers_time_max());
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(20));
    builder
}

fn connection(
    builder: &Builder<TokioExecutor>,
    proxy: Proxy,
    stream: TcpStream,
    peer: SocketAddr,
) -> impl GracefulConnection<Error = BoxError, Output = Result<(), BoxError>> + Send + 'static {
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.handle(request).await) }
    });
    builder.serve_connection(TokioIo::new(stream), service).into_owned()
}
