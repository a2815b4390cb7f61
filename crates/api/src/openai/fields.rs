//! Reads the fields of a request body one by one, so that every refusal names its field.
//!
//! Unknown fields are ignored, as OpenAI's servers and clients expect. A field that Helios knows but does not support
//! yet is refused unless it has the value that means nothing ([`Fields::neutral`]).

use serde_json::{Map, Value};

use crate::ApiError;

/// A JSON object whose fields are taken out by name.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(invalid("the body has to be a JSON object")),
            Err(error) => Err(invalid(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// The field, or `None` if it is missing or null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, "a string", &other)),
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong_type(name, "true or false", &other)),
        }
    }

    pub(super) fn number(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| wrong_type(name, "a number", &value))?;
        if (least..=most).contains(&number) {
            Ok(Some(number as f32))
        } else {
            Err(out_of_range(name, number, least, most))
        }
    }

    pub(super) fn integer(&mut self, name: &str, least: u32, most: u32) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_i64().ok_or_else(|| wrong_type(name, "an integer", &value))?;
        match u32::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(out_of_range(name, number, least, most)),
        }
    }

    /// Any 64-bit integer, signed or not; clients use both for seeds.
    pub(super) fn seed(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
        seed.map(Some).ok_or_else(|| wrong_type(name, "an integer of 64 bits", &value))
    }

    /// A string, or a list of at most `most` strings.
    pub(super) fn texts(&mut self, name: &str, most: usize) -> Result<Vec<String>, ApiError> {
        let expected = "a string or a list of strings";
        let texts: Vec<String> = match self.take(name) {
            None => Vec::new(),
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(items)) => {
                let text = |item: Value| match item {
                    Value::String(text) => Ok(text),
                    other => Err(wrong_type(name, expected, &other)),
                };
                items.into_iter().map(text).collect::<Result<_, _>>()?
            }
            Some(other) => return Err(wrong_type(name, expected, &other)),
        };
        if texts.len() > most {
            return Err(ApiError::field(
                name,
                format!("`{name}` has {} entries, at most {most} are allowed", texts.len()),
            ));
        }
        Ok(texts)
    }

    /// A list of token ids.
    pub(super) fn tokens(&mut self, name: &str, most: usize) -> Result<Vec<u32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(Vec::new()) };
        let tokens = token_list(&value).ok_or_else(|| wrong_type(name, "a list of token ids", &value))?;
        if tokens.len() > most {
            return Err(ApiError::field(
                name,
                format!("`{name}` has {} entries, at most {most} are allowed", tokens.len()),
            ));
        }
        Ok(tokens)
    }

    /// Refuses `name` unless it is missing, null, empty, or one of `neutral`.
    pub(super) fn neutral(&mut self, name: &str, neutral: &[Value]) -> Result<(), ApiError> {
        let Some(value) = self.take(name) else { return Ok(()) };
        let is_empty =
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
        if is_empty || neutral.contains(&value) {
            return Ok(());
        }
        Err(ApiError::field(name, format!("`{name}` is not supported by this server; leave it out")))
    }
}

/// The ids in a JSON list, or `None` if it holds anything else.
pub(super) fn token_list(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|item| u32::try_from(item.as_u64()?).ok()).collect()
}

pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(helios_types::ErrorCode::InvalidRequest, message)
}

pub(super) fn missing(name: &str) -> ApiError {
    ApiError::field(name, format!("`{name}` is required"))
}

pub(super) fn wrong_type(name: &str, expected: &str, found: &Value) -> ApiError {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    ApiError::field(name, format!("`{name}` has to be {expected}, not {kind}"))
}

fn out_of_range<N: std::fmt::Display, B: std::fmt::Display>(
    name: &str,
    number: N,
    least: B,
    most: B,
) -> ApiError {
    ApiError::field(name, format!("`{name}` is {number}, but has to be between {least} and {most}"))
}
