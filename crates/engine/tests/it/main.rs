//! The engine through its public interface, on tiny random models and on the default model.

#![allow(clippy::disallowed_methods, reason = "tests read the environment and files")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod bf16_form;
mod configs;
mod harness;
mod invariance;
mod lifecycle;
mod logits;
mod prefix_cache;
mod quantise;
mod real_model;
mod reference_decoder;
mod sampling;
mod tiny_model;
