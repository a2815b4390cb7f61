//! The one internal request that every dialect becomes.

use helios_types::TokenId;

/// What a client asks for, in no dialect's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Model as the client named it.
    pub model: String,
    /// What to answer or continue.
    pub input: Input,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Bound on tokens of the answer; `None` means up to the context's end.
    pub max_tokens: Option<u32>,
    /// The answer ends before any of these texts.
    pub stop: Vec<String>,
    /// The answer ends before any of these tokens, beside the model's own.
    pub stop_token_ids: Vec<TokenId>,
    /// Go on when the model says it is done.
    pub ignore_eos: bool,
    /// Alternatives to report beside each token; `None`: no log-probabilities.
    pub logprobs: Option<u32>,
    /// Begin the answer with the prompt itself.
    pub echo: bool,
    /// How the answer travels.
    pub delivery: Delivery,
}

/// What a request puts before the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<ChatMessage>),
    /// A text to continue as it is.
    Completion(Prompt),
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or what else the template knows.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A text to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// As text.
    Text(String),
    /// As tokens of the model's own vocabulary.
    Tokens(Vec<TokenId>),
}

/// How tokens are drawn. The defaults are the dialects': plain sampling at temperature 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Only the `top_k` likeliest tokens; 0 is off.
    pub top_k: u32,
    /// Only the likeliest tokens that together reach this probability; 1 is off.
    pub top_p: f32,
    /// Only tokens at least this likely relative to the likeliest; 0 is off.
    pub min_p: f32,
    /// Divides (or multiplies) the logits of tokens seen in prompt or answer; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens seen in the answer.
    pub presence_penalty: f32,
    /// Subtracted for every time a token was seen in the answer.
    pub frequency_penalty: f32,
    /// Fixes the draws; without one the proxy assigns it.
    pub seed: Option<u64>,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

/// How the answer travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// As events while it is made, instead of one body.
    pub stream: bool,
    /// Ends a stream with an event that counts tokens.
    pub include_usage: bool,
}
