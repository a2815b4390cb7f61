//! The proxy over real HTTP, with scripted workers behind it.

#![allow(clippy::disallowed_methods, reason = "tests wait and start tasks on their own")]

mod answers;
mod failures;
mod fleet;
mod guard;
mod http;
mod support;
