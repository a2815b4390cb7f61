//! One answer on its way: chunks from the worker in, events for the client out, and everything that has to be given
//! back when either of them goes away.

use helios_api::worker::v1;
use helios_api::{AnswerEvent, ApiError, TextLogprob, TextLogprobs};
use helios_text::{TextError, Tokenizer};
use helios_types::ErrorCode;

use crate::admit::Place;
use crate::dispatch::{Opened, client_error};
use crate::finish::{AnswerText, text_logprob};
use crate::prepare::{Echo, Prepared};
use crate::record::Record;
use crate::token_stream::TokenStream;

/// The events of one answer. Dropping it cancels the request at the worker and frees its place.
pub(crate) struct AnswerStream {
    opening: std::vec::IntoIter<v1::GenerateChunk>,
    /// Dropped, which cancels, as soon as the answer is complete.
    rest: Option<TokenStream>,
    text: AnswerText,
    tokenizer: Tokenizer,
    /// Taken by the first event.
    echo: Option<Echo>,
    wants_logprobs: bool,
    is_started: bool,
    record: Record,
    _place: Place,
}

impl AnswerStream {
    pub(crate) fn new(
        opened: Opened,
        prepared: Prepared,
        stop: &[String],
        record: Record,
        place: Place,
    ) -> Self {
        let prompt_tokens = u32::try_from(prepared.generate.prompt.len()).unwrap_or(u32::MAX);
        let tokenizer = prepared.text.tokenizer.clone();
        Self {
            opening: opened.opening.into_iter(),
            rest: Some(opened.rest),
            text: AnswerText::new(&tokenizer, stop, prompt_tokens),
            tokenizer,
            echo: prepared.echo,
            wants_logprobs: prepared.generate.logprobs.is_some(),
            is_started: false,
            record,
            _place: place,
        }
    }

    /// The events of the next chunk; `None` after the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<AnswerEvent>>, ApiError> {
        let events = self.next_events().await;
        if let Err(error) = &events {
            self.rest = None;
            self.record.failed(error.code);
        }
        events
    }

    async fn next_events(&mut self) -> Result<Option<Vec<AnswerEvent>>, ApiError> {
        let Some(chunk) = self.next_chunk().await? else { return Ok(None) };
        self.record.tokens_arrived(chunk.tokens.len());
        let mut events = Vec::with_capacity(3);
        if !self.is_started {
            self.is_started = true;
            events.push(AnswerEvent::Started { echo: self.take_echo(&chunk)? });
        }
        let added = self.text.push(chunk).map_err(bad_tokens)?;
        self.record.delivered(self.text.usage());
        if let Some(finish) = added.finish {
            self.rest = None;
            self.record.finished(finish);
        }
        events.extend(added.events);
        Ok(Some(events))
    }

    async fn next_chunk(&mut self) -> Result<Option<v1::GenerateChunk>, ApiError> {
        let Some(rest) = &mut self.rest else { return Ok(None) };
        match self.opening.next() {
            Some(chunk) => Ok(Some(chunk)),
            None => rest.next().await.map_err(client_error),
        }
    }

    /// The prompt's text, and its log-probabilities if the client asked for any.
    fn take_echo(&mut self, chunk: &v1::GenerateChunk) -> Result<Option<(String, TextLogprobs)>, ApiError> {
        let Some(echo) = self.echo.take() else { return Ok(None) };
        if !self.wants_logprobs {
            return Ok(Some((echo.text, TextLogprobs::new())));
        }
        let reports = chunk.prompt.as_ref().map_or(&[][..], |prompt| &prompt.logprobs);
        let mut logprobs = TextLogprobs::with_capacity(echo.tokens.len());
        if echo.tokens.len() == reports.len() + 1 {
            let (id, bytes) =
                (echo.tokens[0], self.tokenizer.token_bytes(echo.tokens[0]).map_err(bad_tokens)?.to_vec());
            logprobs.push(TextLogprob { id, bytes, logprob: None, top: Vec::new() });
        } else if echo.tokens.len() != reports.len() {
            let message = "the worker left out log-probabilities of the prompt";
            return Err(ApiError::new(ErrorCode::Upstream, message));
        }
        for report in reports {
            logprobs.push(text_logprob(&self.tokenizer, report).map_err(bad_tokens)?);
        }
        Ok(Some((echo.text, logprobs)))
    }
}

/// The worker made a token that the vocabulary does not have: not the client's fault.
fn bad_tokens(error: TextError) -> ApiError {
    ApiError::new(ErrorCode::Upstream, format!("the worker's answer cannot be shown: {error}"))
}
