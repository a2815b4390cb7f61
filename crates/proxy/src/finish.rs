//! From a worker's tokens to the events of an answer: text, stop strings, log-probabilities, counts.
//!
//! A token is *delivered* when text that begins with it, or behind it, has been shown: those are counted and reported
//! with their log-probabilities. Tokens that belong to a stop string altogether are not, nor is anything after it.

use std::collections::VecDeque;

use helios_api::worker::v1;
use helios_api::{AnswerEvent, Finish, TextLogprob, TextLogprobs, Usage};
use helios_text::{Detokenizer, StopMatcher, TextError, Tokenizer};

/// Makes text of the tokens of one answer.
#[derive(Debug)]
pub(crate) struct AnswerText {
    tokenizer: Tokenizer,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// Bytes of text made, shown or held back.
    made_bytes: usize,
    shown_bytes: usize,
    /// Tokens not delivered yet: where their text begins, and what is to be reported with them.
    waiting: VecDeque<(usize, Option<TextLogprob>)>,
    usage: Usage,
}

/// What a chunk adds to an answer.
#[derive(Debug, Default)]
pub(crate) struct Added {
    pub(crate) events: Vec<AnswerEvent>,
    /// Set when the answer is complete, whatever else the worker would send.
    pub(crate) finish: Option<Finish>,
}

impl AnswerText {
    /// The text of an answer that ends before any of `stop`.
    pub(crate) fn new(tokenizer: &Tokenizer, stop: &[String], prompt_tokens: u32) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            detokenizer: Detokenizer::new(tokenizer.clone(), false),
            stops: StopMatcher::new(stop),
            made_bytes: 0,
            shown_bytes: 0,
            waiting: VecDeque::new(),
            usage: Usage { prompt_tokens, ..Usage::default() },
        }
    }

    /// What has been delivered.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Takes a chunk in.
    pub(crate) fn push(&mut self, chunk: v1::GenerateChunk) -> Result<Added, TextError> {
        if let Some(prompt) = &chunk.prompt {
            self.usage.cached_tokens = prompt.cached_tokens;
        }
        let mut text = String::new();
        let mut logprobs = TextLogprobs::new();
        let mut reports = chunk.logprobs.iter();
        let mut is_stopped = false;
        for &token in &chunk.tokens {
            let report = reports.next().map(|report| text_logprob(&self.tokenizer, report)).transpose()?;
            self.waiting.push_back((self.made_bytes, report));
            let piece = self.detokenizer.push(token)?;
            is_stopped = self.show(&piece, &mut text);
            self.deliver(&mut logprobs, self.shown_bytes);
            if is_stopped {
                break;
            }
        }
        let finish = match finish_of(&chunk) {
            _ if is_stopped => Some(Finish::Stop),
            Some(finish) => Some(self.end(finish, &mut text, &mut logprobs)),
            None => None,
        };
        Ok(self.added(text, logprobs, finish))
    }

    fn added(&self, text: String, logprobs: TextLogprobs, finish: Option<Finish>) -> Added {
        let mut events = vec![AnswerEvent::Delta { text, logprobs }];
        if let Some(finish) = finish {
            events.push(AnswerEvent::Finished { finish, usage: self.usage });
        }
        Added { events, finish }
    }

    /// Shows what of `piece` may be shown; true if a stop string is complete.
    fn show(&mut self, piece: &str, text: &mut String) -> bool {
        self.made_bytes += piece.len();
        let stopped = self.stops.push(piece);
        self.shown_bytes += stopped.text.len();
        text.push_str(&stopped.text);
        stopped.stop.is_some()
    }

    /// Delivers the tokens that begin before byte `end` of the text.
    fn deliver(&mut self, logprobs: &mut TextLogprobs, end: usize) {
        while let Some((_, report)) = self.waiting.pop_front_if(|(start, _)| *start < end) {
            self.usage.completion_tokens += 1;
            logprobs.extend(report);
        }
    }

    /// The worker is done: shows what was held back, unless it completes a stop string.
    fn end(&mut self, finish: Finish, text: &mut String, logprobs: &mut TextLogprobs) -> Finish {
        let detokenizer =
            std::mem::replace(&mut self.detokenizer, Detokenizer::new(self.tokenizer.clone(), false));
        if self.show(&detokenizer.finish(), text) {
            self.deliver(logprobs, self.shown_bytes);
            return Finish::Stop;
        }
        let stops = std::mem::replace(&mut self.stops, StopMatcher::new::<&str>(&[]));
        text.push_str(&stops.finish());
        self.deliver(logprobs, usize::MAX);
        finish
    }
}

/// Why the worker ended the answer, if it did. A reason that this version does not know is as good as a stop.
fn finish_of(chunk: &v1::GenerateChunk) -> Option<Finish> {
    chunk.finish.as_ref().map(|finish| match finish.reason() {
        v1::FinishReason::Length => Finish::Length,
        v1::FinishReason::Stop | v1::FinishReason::Unspecified => Finish::Stop,
    })
}

/// A worker's log-probability with the tokens' bytes.
pub(crate) fn text_logprob(
    tokenizer: &Tokenizer,
    report: &v1::TokenLogprobs,
) -> Result<TextLogprob, TextError> {
    let bytes = |token| tokenizer.token_bytes(token).map(<[u8]>::to_vec);
    let top = report.top.iter().map(|entry| Ok((bytes(entry.token)?, entry.logprob)));
    Ok(TextLogprob {
        id: report.token,
        bytes: bytes(report.token)?,
        logprob: Some(report.logprob),
        top: top.collect::<Result<_, TextError>>()?,
    })
}
