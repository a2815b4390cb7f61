//! From the dialect's request to the worker's: which model, which tokens, how many may follow, which seed.

use std::sync::Arc;

use bytes::Bytes;
use helios_api::worker::v1;
use helios_api::{ApiError, ChatMessage, Input, Prompt, Request, Sampling};
use helios_runtime::random_u64;
use helios_text::{SpecialText, encode_chat};
use helios_types::{Digest, ErrorCode, TokenId};

use crate::model_text::ModelText;
use crate::proxy::Inner;
use crate::route::Need;

/// Text up to this length is encoded where it stands: at some 5 bytes a microsecond it takes less than half a
/// millisecond. Longer text goes to a thread that may block.
const INLINE_BYTES_MAX: usize = 2048;

/// A request in tokens, with what its answer's text needs.
pub(crate) struct Prepared {
    pub(crate) text: Arc<ModelText>,
    pub(crate) generate: v1::GenerateRequest,
    pub(crate) need: Need,
    pub(crate) echo: Option<Echo>,
}

/// The prompt, for an answer that begins with it.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    pub(crate) text: String,
    /// The client's tokens: without a beginning-of-sequence token that was put before them.
    pub(crate) tokens: Vec<TokenId>,
}

/// Turns `request` into tokens of the version `manifest_digest`.
pub(crate) async fn prepare(
    proxy: &Inner,
    manifest_digest: Digest,
    request_id: &str,
    request: &Request,
) -> Result<Prepared, ApiError> {
    let text = proxy.texts.get(proxy.models.as_ref(), manifest_digest).await?;
    check_tokens(&text, request)?;
    let prompt = encode(&text, &request.input).await?;
    if prompt.is_empty() {
        return Err(ApiError::field(
            "prompt",
            "`prompt` is empty, and this model has no token to begin with",
        ));
    }
    let context_tokens_max = proxy.fleet.context_tokens_max(manifest_digest);
    let max_tokens = answer_bound(prompt.len(), request.max_tokens, context_tokens_max.unwrap_or(u32::MAX))?;
    let echo = request.echo.then(|| echo(&text, &request.input, &prompt)).transpose()?;
    let context_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX).saturating_add(max_tokens);
    let generate = v1::GenerateRequest {
        request_id: request_id.to_owned(),
        manifest_digest: manifest_digest.to_string(),
        prompt,
        emitted: Vec::new(),
        sampling: Some(sampling(&request.sampling)),
        max_tokens,
        stop_tokens: stop_tokens(&text, request),
        logprobs: request.logprobs,
        prompt_logprobs: prompt_logprobs(request),
        tenant_salt: Bytes::new(),
    };
    Ok(Prepared { text, generate, need: Need { manifest_digest, context_tokens }, echo })
}

/// Every token that the client names has to be in the vocabulary.
fn check_tokens(text: &ModelText, request: &Request) -> Result<(), ApiError> {
    let prompt = match &request.input {
        Input::Completion(Prompt::Tokens(tokens)) => tokens.as_slice(),
        _ => &[],
    };
    let biased = request.sampling.logit_bias.iter().map(|(token, _)| ("logit_bias", *token));
    let stops = request.stop_token_ids.iter().map(|token| ("stop_token_ids", *token));
    let named = prompt.iter().map(|token| ("prompt", *token)).chain(biased).chain(stops);
    let vocabulary = text.tokenizer.vocab_len();
    for (field, token) in named {
        if token as usize >= vocabulary {
            let message =
                format!("`{field}` has token {token}, but the model's vocabulary ends at {}", vocabulary - 1);
            return Err(ApiError::field(field, message));
        }
    }
    Ok(())
}

async fn encode(text: &Arc<ModelText>, input: &Input) -> Result<Vec<TokenId>, ApiError> {
    let bytes = match input {
        Input::Chat(messages) => messages.iter().map(|message| message.content.len()).sum(),
        Input::Completion(Prompt::Text(prompt)) => prompt.len(),
        Input::Completion(Prompt::Tokens(tokens)) => return Ok(tokens.clone()),
    };
    if bytes <= INLINE_BYTES_MAX {
        return encode_here(text, input);
    }
    let (text, input) = (text.clone(), input.clone());
    let encoded = tokio::task::spawn_blocking(move || encode_here(&text, &input)).await;
    encoded
        .map_err(|error| ApiError::new(ErrorCode::Internal, format!("encoding the prompt failed: {error}")))?
}

fn encode_here(text: &ModelText, input: &Input) -> Result<Vec<TokenId>, ApiError> {
    let encoded = match input {
        Input::Chat(messages) => return encode_messages(text, messages),
        Input::Completion(Prompt::Text(prompt)) => text.tokenizer.encode_prompt(prompt, SpecialText::Parse),
        Input::Completion(Prompt::Tokens(tokens)) => Ok(tokens.clone()),
    };
    encoded.map_err(|error| ApiError::of(&error))
}

fn encode_messages(text: &ModelText, messages: &[ChatMessage]) -> Result<Vec<TokenId>, ApiError> {
    let Some(template) = &text.template else {
        let message = "this model has no chat template\n  hint: use /v1/completions";
        return Err(ApiError::field("messages", message));
    };
    let as_text = |message: &ChatMessage| helios_text::ChatMessage {
        role: message.role.clone(),
        content: message.content.clone(),
    };
    let messages: Vec<_> = messages.iter().map(as_text).collect();
    encode_chat(&text.tokenizer, template, &messages, true)
        .map_err(|error| ApiError { param: Some("messages".to_owned()), ..ApiError::of(&error) })
}

/// How many tokens the answer may have: what was asked for, or all that the context leaves.
fn answer_bound(prompt_tokens: usize, wanted: Option<u32>, context_tokens_max: u32) -> Result<u32, ApiError> {
    let room = u32::try_from(prompt_tokens).ok().and_then(|prompt| context_tokens_max.checked_sub(prompt));
    match (room, wanted) {
        (Some(room), Some(wanted)) if wanted <= room => Ok(wanted),
        (Some(room), None) if room > 0 => Ok(room),
        _ => {
            let wanted = wanted.map_or(String::new(), |wanted| format!(" and {wanted} in the answer"));
            let message = format!(
                "this model's maximum context length is {context_tokens_max} tokens, but {prompt_tokens} tokens in the \
                 prompt{wanted} were requested"
            );
            Err(ApiError::new(ErrorCode::ContextLengthExceeded, message))
        }
    }
}

fn stop_tokens(text: &ModelText, request: &Request) -> Vec<TokenId> {
    let own = if request.ignore_eos { &[][..] } else { &text.tokenizer.special_tokens().eos };
    own.iter().chain(&request.stop_token_ids).copied().collect()
}

/// An echo shows the prompt's log-probabilities with those of the answer; and an answer of no tokens at all asks for
/// nothing else, which is the only form in which an engine takes it.
fn prompt_logprobs(request: &Request) -> Option<u32> {
    let without_answer = (request.max_tokens == Some(0)).then_some(0);
    request.logprobs.filter(|_| request.echo).or(without_answer)
}

fn echo(text: &ModelText, input: &Input, prompt: &[TokenId]) -> Result<Echo, ApiError> {
    let is_given = matches!(input, Input::Completion(Prompt::Tokens(_)));
    let special = text.tokenizer.special_tokens();
    let added = usize::from(!is_given && special.add_bos && prompt.first().copied() == special.bos);
    let tokens = prompt[added..].to_vec();
    let shown = match input {
        Input::Completion(Prompt::Text(prompt)) => Ok(prompt.clone()),
        _ => text.tokenizer.decode(&tokens, true),
    };
    Ok(Echo { text: shown.map_err(|error| ApiError::of(&error))?, tokens })
}

fn sampling(sampling: &Sampling) -> v1::Sampling {
    let biases = sampling.logit_bias.iter();
    v1::Sampling {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        seed: sampling.seed.unwrap_or_else(random_u64),
        logit_bias: biases.map(|&(token, bias)| v1::LogitBias { token, bias }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use helios_types::ErrorCode;

    use super::answer_bound;

    #[test]
    fn the_answer_fits_the_context_or_is_refused() {
        assert_eq!(answer_bound(10, None, 100).expect("fits"), 90);
        assert_eq!(answer_bound(10, Some(90), 100).expect("fits"), 90);
        assert_eq!(answer_bound(100, Some(0), 100).expect("an echo"), 0);
        for (prompt, wanted) in [(10, Some(91)), (100, None), (101, Some(0)), (usize::MAX, None)] {
            let error = answer_bound(prompt, wanted, 100).expect_err("too long");
            assert_eq!(error.code, ErrorCode::ContextLengthExceeded);
            assert!(error.message.contains("100 tokens"), "{error}");
        }
    }
}
