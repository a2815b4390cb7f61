//! Seams to the outside: clock, tasks, shutdown, listeners, randomness, telemetry, TLS provider.
//!
//! Everything above this layer takes these from here and nowhere else (`clippy.toml` bans the originals), so that a
//! simulation can own time and order. Under tokio's paused clock all of it is deterministic.

#![forbid(unsafe_code)]

mod clock;
mod entropy;
mod listen;
mod tasks;
pub mod telemetry;
mod tls;

pub use clock::{Clock, Elapsed, Instant};
pub use entropy::random_u64;
pub use listen::{ListenError, bind};
pub use tasks::{Shutdown, Tasks};
pub use tls::install_tls_provider;
