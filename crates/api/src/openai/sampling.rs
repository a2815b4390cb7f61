//! Fields that chat and completions share: how tokens are drawn, and where the answer stops.

use serde_json::{Value, json};

use super::fields::{Fields, wrong_type};
use crate::{ApiError, Delivery, Input, Request, Sampling};

/// Stop strings in one request; OpenAI allows 4.
const STOPS_MAX: usize = 16;
const STOP_TOKENS_MAX: usize = 64;
const LOGIT_BIASES_MAX: usize = 1024;
/// Alternatives beside each token, as OpenAI bounds them.
pub(super) const LOGPROBS_MAX: u32 = 20;

/// What a dialect's route read for itself; the rest is shared.
pub(super) struct Own {
    pub(super) input: Input,
    pub(super) max_tokens: Option<u32>,
    pub(super) logprobs: Option<u32>,
    pub(super) echo: bool,
}

pub(super) fn request(fields: &mut Fields, model: String, own: Own) -> Result<Request, ApiError> {
    refuse_unsupported(fields)?;
    let stop = fields.texts("stop", STOPS_MAX)?;
    if stop.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "`stop` must not contain the empty string"));
    }
    Ok(Request {
        model,
        input: own.input,
        sampling: sampling(fields)?,
        max_tokens: own.max_tokens,
        stop,
        stop_token_ids: fields.tokens("stop_token_ids", STOP_TOKENS_MAX)?,
        ignore_eos: fields.flag("ignore_eos")?,
        logprobs: own.logprobs,
        echo: own.echo,
        delivery: delivery(fields)?,
    })
}

fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    let defaults = Sampling::default();
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(defaults.temperature),
        top_k: top_k(fields)?,
        top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(defaults.top_p),
        min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(defaults.min_p),
        repetition_penalty: fields
            .number("repetition_penalty", 0.01, 10.0)?
            .unwrap_or(defaults.repetition_penalty),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or_default(),
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or_default(),
        seed: fields.seed("seed")?,
        logit_bias: logit_bias(fields)?,
    })
}

/// vLLM writes "off" as -1 or 0.
fn top_k(fields: &mut Fields) -> Result<u32, ApiError> {
    match fields.take("top_k") {
        None => Ok(0),
        Some(value) if value == json!(-1) => Ok(0),
        Some(value) => match value.as_u64().map(u32::try_from) {
            Some(Ok(k)) => Ok(k),
            _ => Err(wrong_type("top_k", "a positive integer, or -1 for off", &value)),
        },
    }
}

fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    const NAME: &str = "logit_bias";
    let map = match fields.take(NAME) {
        None => return Ok(Vec::new()),
        Some(Value::Object(map)) if map.len() <= LOGIT_BIASES_MAX => map,
        Some(Value::Object(map)) => {
            let message =
                format!("`{NAME}` has {} entries, at most {LOGIT_BIASES_MAX} are allowed", map.len());
            return Err(ApiError::field(NAME, message));
        }
        Some(other) => return Err(wrong_type(NAME, "an object from token id to bias", &other)),
    };
    let entry = |(token, bias): (String, Value)| {
        let token = token
            .parse()
            .map_err(|_| ApiError::field(NAME, format!("`{NAME}`: `{token}` is not a token id")))?;
        match bias.as_f64() {
            Some(bias) if (-100.0..=100.0).contains(&bias) => Ok((token, bias as f32)),
            _ => Err(ApiError::field(
                NAME,
                format!("`{NAME}`: the bias of token {token} has to be between -100 and 100"),
            )),
        }
    };
    map.into_iter().map(entry).collect()
}

fn delivery(fields: &mut Fields) -> Result<Delivery, ApiError> {
    let stream = fields.flag("stream")?;
    let include_usage = match fields.take("stream_options") {
        None => false,
        Some(_) if !stream => {
            return Err(ApiError::field(
                "stream_options",
                "`stream_options` is only allowed when `stream` is true",
            ));
        }
        Some(Value::Object(options)) => {
            options.get("include_usage").and_then(Value::as_bool).unwrap_or(false)
        }
        Some(other) => return Err(wrong_type("stream_options", "an object", &other)),
    };
    Ok(Delivery { stream, include_usage })
}

/// Fields that would change the answer and are not there yet: only their neutral values pass.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    let neutral: [(&str, &[Value]); 20] = [
        ("n", &[json!(1)]),
        ("best_of", &[json!(1)]),
        ("tools", &[]),
        ("tool_choice", &[json!("none"), json!("auto")]),
        ("parallel_tool_calls", &[json!(true), json!(false)]),
        ("functions", &[]),
        ("function_call", &[json!("none"), json!("auto")]),
        ("response_format", &[json!({"type": "text"})]),
        ("structured_outputs", &[]),
        ("guided_json", &[]),
        ("guided_regex", &[]),
        ("guided_grammar", &[]),
        ("suffix", &[json!("")]),
        ("audio", &[]),
        ("modalities", &[json!(["text"])]),
        ("prediction", &[]),
        ("web_search_options", &[]),
        ("reasoning_effort", &[json!("none")]),
        ("verbosity", &[json!("medium")]),
        ("min_tokens", &[json!(0)]),
    ];
    neutral.into_iter().try_for_each(|(name, values)| fields.neutral(name, values))
}
