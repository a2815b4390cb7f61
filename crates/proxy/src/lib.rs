//! The HTTP server that clients talk to.
//!
//! A request passes these stages in this order, once each, and each is one file: [`guard`] (may this caller ask at
//! all), [`admit`] (is there room), the dialect's `parse` (`routes`), [`prepare`] (text to tokens), [`route`] (which
//! worker), [`dispatch`] (open its stream), [`finish`] (tokens to text, stop strings, counts) and [`reply`] (events or
//! one body). A plain answer is the stream, collected.
//!
//! [`fleet`] knows which workers there are, told by a [`Discovery`], and how busy each is, told by the workers.

#![forbid(unsafe_code)]

mod admit;
mod answer_stream;
mod body;
mod config;
mod discovery;
mod dispatch;
mod error;
mod finish;
mod fleet;
mod guard;
mod guarded;
mod metrics;
mod model_text;
mod models;
mod prepare;
mod profiles;
mod proxy;
mod record;
mod reply;
mod request_id;
mod resolve;
mod route;
mod routes;
mod server;
mod token_stream;
mod watch;

pub use config::{ApiKey, NamedKey, ProxyConfig};
pub use discovery::{Discovery, InProcess, Member};
pub use error::ProxyError;
pub use guarded::guarded;
pub use models::{Models, ResolvedModel, TextFiles};
pub use proxy::{Parts, Proxy};
pub use reply::error as refusal;
pub use routes::admin::{WorkerList, WorkerView};
pub use routes::{Access, Bodies, Mount, Permission, ROUTES, Route};
