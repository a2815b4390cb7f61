//! Fuzzes the gguf parser.

#![no_main]

#[path = "../entry.rs"]
#[allow(dead_code, reason = "each target uses its own entry")]
mod entry;

libfuzzer_sys::fuzz_target!(|input: &[u8]| entry::gguf(input));
