//! What goes into the engine and what comes out: requests, sampling parameters and events. Tokens only, never text.

use helios_types::TokenId;
use tokio::sync::mpsc;

use crate::EngineError;

/// Most alternatives a position may report.
pub const TOP_LOGPROBS_MAX: u32 = 20;

/// One sequence to generate.
///
/// To continue a stream that broke elsewhere, send the same request with `emitted` filled from its token log: the
/// remaining tokens are those that the first worker would have produced.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The prompt's tokens; at least one.
    pub prompt: Vec<TokenId>,
    /// Tokens of the answer that were delivered already; empty for a fresh request.
    pub emitted: Vec<TokenId>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Most tokens of the answer, `emitted` included. May be 0 together with `prompt_logprobs`.
    pub max_tokens: usize,
    /// No stop token is drawn before the answer has this many tokens, `emitted` included.
    pub min_tokens: usize,
    /// Tokens that end the answer; the one that did is named in [`Finish`] and not delivered.
    pub stop_tokens: Vec<TokenId>,
    /// Report each token's log-probability, and those of this many alternatives.
    pub logprobs: Option<u32>,
    /// Report the prompt's log-probabilities, and those of this many alternatives at each position.
    pub prompt_logprobs: Option<u32>,
    /// Keeps the prefix cache of tenants apart; empty for the shared space.
    pub salt: Vec<u8>,
}

/// How tokens are drawn. The default is plain sampling at temperature 1; see [`Sampling::greedy`].
///
/// Semantics and order are vLLM's: penalties and bias on the logits, then temperature, then min-p, top-k and top-p.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Draw among this many likeliest tokens; 0 for all.
    pub top_k: u32,
    /// Draw among the likeliest tokens that hold this share of the probability; 1 for all.
    pub top_p: f32,
    /// Draw among tokens with at least this share of the likeliest token's probability; 0 for all.
    pub min_p: f32,
    /// Divides (positive) or multiplies (negative) the logits of tokens in prompt or answer; 1 for none.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens in the answer; 0 for none.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens in the answer, once for each occurrence; 0 for none.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Together with a token's position, all that the draw depends on.
    pub seed: u64,
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
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }
}

/// One thing that happened to a request. A stream is `Started`, maybe `PromptLogprobs`, any number of `Token`, and
/// then exactly one of `Finished` and `Failed`.
#[derive(Clone, Debug)]
pub enum Event {
    /// The request left the queue for the first time.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// How many of prompt and emitted tokens were found in the prefix cache.
        cached_tokens: usize,
    },
    /// One entry for each token of the prompt; the first has none.
    PromptLogprobs(Vec<Option<TokenLogprobs>>),
    /// The next token of the answer.
    Token(Token),
    /// The answer is complete.
    Finished(Finish),
    /// The request ended in a fault; what was delivered before stays valid.
    Failed(EngineError),
}

/// One token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its place in the answer, `emitted` included.
    pub index: usize,
    /// The token.
    pub id: TokenId,
    /// Its log-probability, if the request wanted it.
    pub logprobs: Option<TokenLogprobs>,
}

/// Log-probabilities at one position, from the raw logits: before bias, penalties and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token that stands here.
    pub id: TokenId,
    /// Its natural log-probability.
    pub logprob: f32,
    /// The likeliest tokens, likeliest first, the smaller id first among equals.
    pub top: Vec<(TokenId, f32)>,
}

/// How and with what figures an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens found in the prefix cache when the request left the queue first.
    pub cached_tokens: usize,
    /// Tokens of the answer, `emitted` included.
    pub completion_tokens: usize,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was drawn; it is not part of the answer.
    Stop {
        /// The stop token.
        token: TokenId,
    },
    /// The answer has `max_tokens` tokens.
    Length,
    /// The engine was shut down. A receiver that goes away cancels too, but hears no event.
    Cancelled,
}

/// The events of one request. Dropping it cancels the request within one step.
///
/// Holds every event a request can have, so that a slow reader neither blocks the engine nor grows without bound.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
}

impl Events {
    /// A stream for a request of up to `max_tokens` tokens, and the engine's end of it.
    pub(crate) fn channel(max_tokens: usize) -> (mpsc::Sender<Event>, Self) {
        const EVENTS_BESIDE_TOKENS: usize = 3;
        let (sender, receiver) = mpsc::channel(max_tokens + EVENTS_BESIDE_TOKENS);
        (sender, Self { receiver })
    }

    /// The next event; `None` after `Finished` or `Failed`.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// Waits for the next event on a thread that may block.
    ///
    /// # Panics
    /// Inside an asynchronous context.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.receiver.blocking_recv()
    }
}
