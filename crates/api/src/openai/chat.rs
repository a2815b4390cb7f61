//! `POST /v1/chat/completions`: the request.

use serde_json::Value;

use super::fields::{Fields, missing, wrong_type};
use super::sampling::{self, LOGPROBS_MAX, Own};
use crate::{ApiError, ChatMessage, Input, Request};

const MESSAGES_MAX: usize = 4096;

/// Reads a chat request.
///
/// # Errors
/// `InvalidRequest`, naming the field, for what is malformed, out of range, or not supported.
pub fn parse(body: &[u8]) -> Result<Request, ApiError> {
    let mut fields = Fields::parse(body)?;
    let model = fields.text("model")?.ok_or_else(|| missing("model"))?;
    let messages = messages(fields.take("messages").ok_or_else(|| missing("messages"))?)?;
    let newer = fields.integer("max_completion_tokens", 1, u32::MAX)?;
    let older = fields.integer("max_tokens", 1, u32::MAX)?;
    let own = Own {
        input: Input::Chat(messages),
        max_tokens: newer.or(older),
        logprobs: logprobs(&mut fields)?,
        echo: false,
    };
    sampling::request(&mut fields, model, own)
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.flag("logprobs")?;
    match fields.integer("top_logprobs", 0, LOGPROBS_MAX)? {
        Some(top) if top > 0 && !wanted => {
            Err(ApiError::field("top_logprobs", "`top_logprobs` is only allowed when `logprobs` is true"))
        }
        top => Ok(wanted.then_some(top.unwrap_or(0))),
    }
}

fn messages(value: Value) -> Result<Vec<ChatMessage>, ApiError> {
    let Value::Array(items) = value else { return Err(wrong_type("messages", "a list", &value)) };
    if items.is_empty() || items.len() > MESSAGES_MAX {
        let message = format!("`messages` has {} entries, but needs 1 to {MESSAGES_MAX}", items.len());
        return Err(ApiError::field("messages", message));
    }
    items.into_iter().enumerate().map(|(index, item)| message(index, item)).collect()
}

fn message(index: usize, item: Value) -> Result<ChatMessage, ApiError> {
    let name = |field: &str| format!("messages[{index}].{field}");
    let Value::Object(mut item) = item else {
        return Err(wrong_type(&format!("messages[{index}]"), "an object", &item));
    };
    let role = match item.remove("role") {
        Some(Value::String(role)) => role,
        Some(other) => return Err(wrong_type(&name("role"), "a string", &other)),
        None => return Err(missing(&name("role"))),
    };
    let role = match role.as_str() {
        "system" | "user" | "assistant" => role,
        // OpenAI's newer word for the system's role.
        "developer" => "system".to_owned(),
        _ => {
            let allowed = "`system`, `developer`, `user` or `assistant`";
            return Err(ApiError::field(
                &name("role"),
                format!("`{}` is `{role}`, but has to be {allowed}", name("role")),
            ));
        }
    };
    for field in ["tool_calls", "function_call", "audio"] {
        if item
            .get(field)
            .is_some_and(|value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()))
        {
            return Err(ApiError::field(
                &name(field),
                format!("`{}` is not supported by this server", name(field)),
            ));
        }
    }
    let content = content(&name("content"), item.remove("content"))?;
    Ok(ChatMessage { role, content })
}

/// A string, or a list of text parts, which are joined.
fn content(name: &str, value: Option<Value>) -> Result<String, ApiError> {
    let parts = match value {
        None | Some(Value::Null) => return Err(missing(name)),
        Some(Value::String(text)) => return Ok(text),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(wrong_type(name, "a string or a list of parts", &other)),
    };
    let mut text = String::new();
    for part in &parts {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(piece)) => text.push_str(piece),
            (Some("text"), None) => return Err(missing(&format!("{name}.text"))),
            (kind, _) => {
                let kind = kind.unwrap_or("none");
                return Err(ApiError::field(
                    name,
                    format!("`{name}` has a part of type `{kind}`; only `text` is supported"),
                ));
            }
        }
    }
    Ok(text)
}
