//! What keeps a proxy from starting. What a request may fail with is an [`ApiError`](helios_api::ApiError).

use std::net::SocketAddr;

use helios_types::{Classify, ErrorCode};

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A value of the configuration makes no sense.
    #[error("`{field}` {problem}")]
    Config {
        /// The field.
        field: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// Anyone on the network could use the server.
    #[error(
        "listening on {listen} would let anyone on the network in\n  hint: set an API key (`api_key`), or listen on 127.0.0.1"
    )]
    OpenToNetwork {
        /// The address asked for.
        listen: SocketAddr,
    },
}

impl Classify for ProxyError {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidRequest
    }
}
