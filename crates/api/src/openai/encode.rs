//! Answers of chat and completions: one body, or events of a stream.

use serde_json::{Value, json};

use crate::{Answer, AnswerEvent, Delivery, Finish, TextLogprob, TextLogprobs, Usage};

/// Which of the two routes the answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completion,
}

/// What every body and event begins with.
#[derive(Clone, Debug)]
pub struct Head {
    /// Id of the answer, such as `chatcmpl-…`.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Model as the client named it.
    pub model: String,
}

/// Writes one answer down.
#[derive(Debug)]
pub struct Encoder {
    kind: Kind,
    head: Head,
    delivery: Delivery,
    logprobs: bool,
    /// Characters sent so far: what the completions route calls `text_offset`.
    offset: usize,
}

impl Encoder {
    /// An encoder for one answer; `logprobs` says whether the client asked for them.
    pub fn new(kind: Kind, head: Head, delivery: Delivery, logprobs: bool) -> Self {
        Self { kind, head, delivery, logprobs, offset: 0 }
    }

    /// The JSON texts of the events that `event` becomes, one for each SSE `data:` line.
    pub fn event(&mut self, event: AnswerEvent) -> Vec<String> {
        match event {
            AnswerEvent::Started { echo } => self.started(echo),
            AnswerEvent::Delta { text, logprobs } if text.is_empty() && logprobs.is_empty() => Vec::new(),
            AnswerEvent::Delta { text, logprobs } => vec![self.delta(&text, &logprobs)],
            AnswerEvent::Finished { finish, usage } => self.finished(finish, usage),
        }
    }

    fn started(&mut self, echo: Option<(String, TextLogprobs)>) -> Vec<String> {
        match (self.kind, echo) {
            (Kind::Chat, _) => {
                let choice = json!({ "index": 0, "delta": { "role": "assistant", "content": "" }, "logprobs": null, "finish_reason": null });
                vec![self.chunk(json!([choice]), None)]
            }
            (Kind::Completion, Some((text, logprobs))) => vec![self.delta(&text, &logprobs)],
            (Kind::Completion, None) => Vec::new(),
        }
    }

    fn delta(&mut self, text: &str, logprobs: &[TextLogprob]) -> String {
        let logprobs = self.logprobs_of(logprobs);
        let choice = match self.kind {
            Kind::Chat => {
                json!({ "index": 0, "delta": { "content": text }, "logprobs": logprobs, "finish_reason": null })
            }
            Kind::Completion => {
                json!({ "index": 0, "text": text, "logprobs": logprobs, "finish_reason": null })
            }
        };
        self.chunk(json!([choice]), None)
    }

    fn finished(&mut self, finish: Finish, usage: Usage) -> Vec<String> {
        let reason = finish.as_str();
        let choice = match self.kind {
            Kind::Chat => json!({ "index": 0, "delta": {}, "logprobs": null, "finish_reason": reason }),
            Kind::Completion => json!({ "index": 0, "text": "", "logprobs": null, "finish_reason": reason }),
        };
        let mut events = vec![self.chunk(json!([choice]), None)];
        if self.delivery.include_usage {
            events.push(self.chunk(json!([]), Some(usage)));
        }
        events
    }

    fn chunk(&self, choices: Value, usage: Option<Usage>) -> String {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        };
        let mut chunk = self.envelope(object, choices);
        if self.delivery.include_usage {
            chunk["usage"] = usage.map_or(Value::Null, usage_json);
        }
        chunk.to_string()
    }

    /// The whole answer as one body.
    pub fn body(&mut self, answer: &Answer) -> String {
        let logprobs = self.logprobs_of(&answer.logprobs);
        let reason = answer.finish.map(Finish::as_str);
        let (object, choice) = match self.kind {
            Kind::Chat => {
                let message = json!({ "role": "assistant", "content": answer.text, "refusal": null });
                let choice =
                    json!({ "index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason });
                ("chat.completion", choice)
            }
            Kind::Completion => {
                let choice =
                    json!({ "index": 0, "text": answer.text, "logprobs": logprobs, "finish_reason": reason });
                ("text_completion", choice)
            }
        };
        let mut body = self.envelope(object, json!([choice]));
        body["usage"] = usage_json(answer.usage);
        body.to_string()
    }

    fn envelope(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.head.id,
            "object": object,
            "created": self.head.created,
            "model": self.head.model,
            "choices": choices,
        })
    }

    fn logprobs_of(&mut self, logprobs: &[TextLogprob]) -> Value {
        match self.kind {
            _ if !self.logprobs => Value::Null,
            Kind::Chat => {
                json!({ "content": logprobs.iter().map(chat_logprob).collect::<Vec<_>>(), "refusal": null })
            }
            Kind::Completion => self.completion_logprobs(logprobs),
        }
    }

    fn completion_logprobs(&mut self, logprobs: &[TextLogprob]) -> Value {
        let mut offsets = Vec::with_capacity(logprobs.len());
        for token in logprobs {
            offsets.push(self.offset);
            self.offset += token.text().chars().count();
        }
        let top = |token: &TextLogprob| {
            let entries = token.top.iter().map(|(bytes, logprob)| (lossy(bytes), json!(logprob)));
            token.logprob.map_or(Value::Null, |_| Value::Object(entries.collect()))
        };
        json!({
            "tokens": logprobs.iter().map(TextLogprob::text).collect::<Vec<_>>(),
            "token_logprobs": logprobs.iter().map(|token| token.logprob).collect::<Vec<_>>(),
            "top_logprobs": logprobs.iter().map(top).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn chat_logprob(token: &TextLogprob) -> Value {
    let top = token.top.iter();
    let top =
        top.map(|(bytes, logprob)| json!({ "token": lossy(bytes), "logprob": logprob, "bytes": bytes }));
    json!({
        "token": token.text(),
        "logprob": token.logprob,
        "bytes": token.bytes,
        "top_logprobs": top.collect::<Vec<_>>(),
    })
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
    })
}
