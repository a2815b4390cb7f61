//! Models through the crate's public interface: files in a temporary folder.

#![allow(clippy::disallowed_methods, reason = "tests touch files as anybody may")]

mod convert;
mod profile;
mod shapes;
#[allow(dead_code, reason = "the tests of the crates above need more of it")]
mod tiny;
