//! Listening sockets.

use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Why a socket could not listen.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address} failed")]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// The system's reason.
    #[source]
    pub source: std::io::Error,
}

/// Listens on `address`; port 0 takes a free one, to be asked of the listener.
///
/// # Errors
/// [`ListenError`] if the system refuses, most often because the port is taken.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}
