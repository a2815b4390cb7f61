//! The one internal answer: events as text is made, and their sum.

use helios_types::TokenId;

/// One step of an answer, in order: `Started`, any number of `Delta`s, `Finished`.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerEvent {
    /// The model has read the prompt.
    Started {
        /// Text that the answer begins with because the client asked for an echo, and its log-probabilities.
        echo: Option<(String, TextLogprobs)>,
    },
    /// More text. May be empty while a character or a stop string is incomplete.
    Delta {
        /// New text.
        text: String,
        /// Log-probabilities of the tokens behind it, when asked for.
        logprobs: TextLogprobs,
    },
    /// The end.
    Finished {
        /// Why.
        finish: Finish,
        /// What it took.
        usage: Usage,
    },
}

/// Log-probabilities of consecutive tokens; empty unless the client asked.
pub type TextLogprobs = Vec<TextLogprob>;

/// One token with its log-probability and alternatives.
#[derive(Clone, Debug, PartialEq)]
pub struct TextLogprob {
    /// The token.
    pub id: TokenId,
    /// The token's bytes; not always whole characters.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability; `None` for the first token of an echoed prompt.
    pub logprob: Option<f32>,
    /// The likeliest tokens here, likeliest first.
    pub top: Vec<(Vec<u8>, f32)>,
}

impl TextLogprob {
    /// The bytes as text, with U+FFFD for what is not UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model, or a stop string, ended it.
    Stop,
    /// The bound on tokens, or the context, ended it.
    Length,
}

impl Finish {
    /// The word all dialects of the OpenAI family use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Tokens read and made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, found in the prefix cache.
    pub cached_tokens: u32,
    /// Tokens delivered, up to the stop.
    pub completion_tokens: u32,
}

/// The events of an answer, collected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The whole text.
    pub text: String,
    /// Log-probabilities of its tokens, when asked for.
    pub logprobs: TextLogprobs,
    /// Why it ended; `None` until it has.
    pub finish: Option<Finish>,
    /// What it took.
    pub usage: Usage,
}

impl Answer {
    /// Takes the next event in.
    pub fn push(&mut self, event: AnswerEvent) {
        match event {
            AnswerEvent::Started { echo } => {
                if let Some((text, logprobs)) = echo {
                    self.text.push_str(&text);
                    self.logprobs.extend(logprobs);
                }
            }
            AnswerEvent::Delta { text, logprobs } => {
                self.text.push_str(&text);
                self.logprobs.extend(logprobs);
            }
            AnswerEvent::Finished { finish, usage } => {
                self.finish = Some(finish);
                self.usage = usage;
            }
        }
    }
}
