//! The languages in which other tools speak to a registry: the Hugging Face hub's protocol ([`hub`]) and OCI
//! distribution ([`oci`]).
//!
//! - Both read and write the same models as everybody else; neither keeps anything on disk of its own.
//! - What a call may do is told by its method and path alone ([`Route`]), before anything of it is read.
//! - What a client sent and no manifest names yet the registry keeps for a while, then forgets.

#![forbid(unsafe_code)]

pub mod hub;
mod names;
pub mod oci;
mod route;
mod time;
mod url_path;
mod versions;

pub use route::{Bodies, Route};
