//! `POST /v1/completions`: the request.

use serde_json::Value;

use super::fields::{Fields, missing, token_list, wrong_type};
use super::sampling::{self, LOGPROBS_MAX, Own};
use crate::{ApiError, Input, Prompt, Request};

/// What OpenAI's API takes where `max_tokens` is left out.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Reads a completion request.
///
/// # Errors
/// `InvalidRequest`, naming the field, for what is malformed, out of range, or not supported.
pub fn parse(body: &[u8]) -> Result<Request, ApiError> {
    let mut fields = Fields::parse(body)?;
    let model = fields.text("model")?.ok_or_else(|| missing("model"))?;
    let prompt = prompt(fields.take("prompt").ok_or_else(|| missing("prompt"))?)?;
    let echo = fields.flag("echo")?;
    let max_tokens = fields.integer("max_tokens", 0, u32::MAX)?.unwrap_or(MAX_TOKENS_DEFAULT);
    if max_tokens == 0 && !echo {
        return Err(ApiError::field("max_tokens", "`max_tokens` is 0, which is only allowed with `echo`"));
    }
    let own = Own {
        input: Input::Completion(prompt),
        max_tokens: Some(max_tokens),
        logprobs: fields.integer("logprobs", 0, LOGPROBS_MAX)?,
        echo,
    };
    sampling::request(&mut fields, model, own)
}

/// A string, a list of token ids, or a list of exactly one of these.
fn prompt(value: Value) -> Result<Prompt, ApiError> {
    let expected = "a string or a list of token ids";
    match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(mut items) if items.len() == 1 && !items[0].is_number() => prompt(items.remove(0)),
        Value::Array(ref items) if items.iter().any(|item| item.is_string() || item.is_array()) => {
            let message = format!("`prompt` has {} prompts; this server takes one a request", items.len());
            Err(ApiError::field("prompt", message))
        }
        value => token_list(&value).map(Prompt::Tokens).ok_or_else(|| wrong_type("prompt", expected, &value)),
    }
}
