//! The OpenAI dialect: requests in, bodies and events out.
//!
//! Source: OpenAI's API reference for chat completions, completions and models, and the types of its Python client.
//! Fields that vLLM adds (`top_k`, `min_p`, `repetition_penalty`, `stop_token_ids`, `ignore_eos`) have its names.

pub mod chat;
pub mod completions;
mod encode;
mod fields;
mod sampling;

use helios_types::{Blame, ErrorCode};
use serde_json::{Value, json};

pub use encode::{Encoder, Head, Kind};

use crate::ApiError;

/// What ends a stream that ended well.
pub const DONE: &str = "[DONE]";

/// A model as `GET /v1/models` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// What requests name.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Who it came from.
    pub owned_by: String,
    /// Longest context it is served with.
    pub context_tokens_max: Option<u32>,
}

fn card(model: &ModelCard) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "max_model_len": model.context_tokens_max,
    })
}

/// The body of `GET /v1/models/{id}`.
pub fn model_card(model: &ModelCard) -> String {
    card(model).to_string()
}

/// The body of `GET /v1/models`.
pub fn model_list(models: &[ModelCard]) -> String {
    json!({ "object": "list", "data": models.iter().map(card).collect::<Vec<_>>() }).to_string()
}

/// The error envelope, of a whole body or of the last event of a broken stream.
pub fn error_body(error: &ApiError) -> String {
    json!({
        "error": {
            "message": error.message,
            "type": error_type(error.code),
            "param": error.param,
            "code": error.code.as_str(),
        }
    })
    .to_string()
}

/// OpenAI's coarse kind of error: the envelope's `type`.
pub fn error_type(code: ErrorCode) -> &'static str {
    match (code, code.blame()) {
        (ErrorCode::Unauthenticated, _) => "authentication_error",
        (ErrorCode::PermissionDenied, _) => "permission_error",
        (ErrorCode::Overloaded | ErrorCode::Unavailable, _) => "service_unavailable_error",
        (_, Blame::Client) => "invalid_request_error",
        (_, Blame::Upstream | Blame::Own) => "server_error",
    }
}

#[cfg(test)]
mod tests;
