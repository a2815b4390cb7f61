//! The registry through its public interface: a store in a temporary folder, origins on loopback.

mod downloads;
mod gc;
mod imports;
mod membership;
mod models;
mod origin;
mod over_http;
mod store;
