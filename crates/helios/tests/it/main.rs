//! The binary from outside: real processes, the real model, real sockets on 127.0.0.1.
//!
//! The same tests run against one process (`helios serve`) and against three (`registry`, `worker`, `proxy`).
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod archives;
#[path = "../../../engine/tests/it/bf16_form.rs"]
mod bf16_form;
mod chat;
mod cli;
mod crashes;
mod families;
mod harness;
mod hugging_face;
mod machine;
mod models;
mod neighbours;
mod placement;
mod recovery;
mod small_model;
#[path = "../../../model/tests/it/tiny.rs"]
#[allow(dead_code, reason = "the tests of other crates use the rest")]
mod tiny_models;
mod verbs;
