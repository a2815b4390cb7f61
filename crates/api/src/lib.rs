//! Wire dialects, the internal request and answer, the worker protocol and the one mapping of error codes.
//!
//! A request arrives in a dialect ([`openai`]), becomes the one internal [`Request`], and its answer leaves as the one
//! stream of [`AnswerEvent`]s that the same dialect writes down. Between proxy and worker there are only tokens:
//! [`worker`] holds that protocol, the [`worker::Worker`] trait and its gRPC form.

#![forbid(unsafe_code)]

mod answer;
mod error;
pub mod openai;
mod request;
pub mod worker;

pub use answer::{Answer, AnswerEvent, Finish, TextLogprob, TextLogprobs, Usage};
pub use error::{ApiError, http_status};
pub use request::{ChatMessage, Delivery, Input, Prompt, Request, Sampling};
