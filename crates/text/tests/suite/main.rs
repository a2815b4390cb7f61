//! `helios-text` through its public API, on the default model's own tokenizer and template.

// Helpers outside `#[test]` functions end a test by panicking.
#![allow(clippy::panic)]

mod chat;
mod model;
mod reading_gguf;
mod strings;
mod tokens;
