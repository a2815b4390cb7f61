//! The dialect against what OpenAI's clients send and expect.

use helios_types::ErrorCode;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Encoder, Head, Kind, chat, completions, error_body};
use crate::{Answer, AnswerEvent, ApiError, Delivery, Finish, Input, Prompt, TextLogprob, Usage};

fn chat_with(extra: Value) -> Result<crate::Request, ApiError> {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    chat::parse(body.to_string().as_bytes())
}

#[test]
fn every_refusal_names_its_field() {
    for (extra, param) in [
        (json!({ "temperature": 2.5 }), "temperature"),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "top_p": -0.1 }), "top_p"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "max_tokens": -5 }), "max_tokens"),
        (json!({ "stop": [1] }), "stop"),
        (json!({ "stop": "" }), "stop"),
        (json!({ "seed": 1.5 }), "seed"),
        (json!({ "logit_bias": { "x": 1 } }), "logit_bias"),
        (json!({ "logit_bias": { "1": 101 } }), "logit_bias"),
        (json!({ "top_logprobs": 3 }), "top_logprobs"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
        (json!({ "stream_options": {} }), "stream_options"),
        (json!({ "n": 2 }), "n"),
        (json!({ "tools": [{ "type": "function" }] }), "tools"),
        (json!({ "response_format": { "type": "json_object" } }), "response_format"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "robot", "content": "" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
            "messages[0].content",
        ),
    ] {
        let error = chat_with(extra.clone()).expect_err(&extra.to_string());
        assert_eq!((error.code, error.param.as_deref()), (ErrorCode::InvalidRequest, Some(param)), "{extra}");
        assert!(error.message.contains(param), "{}", error.message);
    }
}

#[test]
fn neutral_values_and_unknown_fields_pass() {
    let request = chat_with(json!({
        "n": 1, "tools": [], "tool_choice": "none", "response_format": { "type": "text" }, "top_k": -1, "seed": -1,
        "logit_bias": {}, "user": "u", "store": false, "metadata": null, "no_such_field": { "a": 1 },
        "temperature": null, "stop": null
    }))
    .expect("neutral values pass");
    assert_eq!(request.sampling.seed, Some(u64::MAX));
    assert_eq!((request.sampling.top_k, request.sampling.temperature), (0, 1.0));
}

#[test]
fn text_parts_are_joined_and_developer_is_system() {
    let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
    let request = chat_with(json!({ "messages": [{ "role": "developer", "content": parts }] })).unwrap();
    let Input::Chat(messages) = request.input else { panic!("chat in, chat out") };
    assert_eq!((messages[0].role.as_str(), messages[0].content.as_str()), ("system", "ab"));
}

#[test]
fn prompts_come_in_four_forms() {
    let parse =
        |prompt: Value| completions::parse(json!({ "model": "m", "prompt": prompt }).to_string().as_bytes());
    for prompt in [json!("a"), json!(["a"])] {
        assert_eq!(parse(prompt).unwrap().input, Input::Completion(Prompt::Text("a".into())));
    }
    for prompt in [json!([1, 2]), json!([[1, 2]])] {
        assert_eq!(parse(prompt).unwrap().input, Input::Completion(Prompt::Tokens(vec![1, 2])));
    }
    assert_eq!(parse(json!([7])).unwrap().input, Input::Completion(Prompt::Tokens(vec![7])));
    for prompt in [json!(["a", "b"]), json!([[1], [2]]), json!([1.5]), json!([-1]), json!({})] {
        assert_eq!(parse(prompt).unwrap_err().param.as_deref(), Some("prompt"));
    }
    assert_eq!(parse(json!("a")).unwrap().max_tokens, Some(16));
}

fn token(text: &str, logprob: f32) -> TextLogprob {
    let top = vec![(text.as_bytes().to_vec(), logprob)];
    TextLogprob { id: 1, bytes: text.as_bytes().to_vec(), logprob: Some(logprob), top }
}

fn events() -> Vec<AnswerEvent> {
    let usage = Usage { prompt_tokens: 5, cached_tokens: 2, completion_tokens: 2 };
    vec![
        AnswerEvent::Started { echo: None },
        AnswerEvent::Delta { text: "Hel".into(), logprobs: vec![token("Hel", -0.5)] },
        AnswerEvent::Delta { text: "lo".into(), logprobs: vec![token("lo", -0.25)] },
        AnswerEvent::Finished { finish: Finish::Stop, usage },
    ]
}

fn encoder(kind: Kind, stream: bool) -> Encoder {
    let head = Head { id: "id-1".into(), created: 7, model: "m:latest".into() };
    Encoder::new(kind, head, Delivery { stream, include_usage: stream }, true)
}

#[test]
fn bodies_and_events_have_openais_shape() {
    let mut shown = Vec::new();
    for kind in [Kind::Chat, Kind::Completion] {
        let mut stream = encoder(kind, true);
        shown.extend(events().into_iter().flat_map(|event| stream.event(event)));
        let mut answer = Answer::default();
        events().into_iter().for_each(|event| answer.push(event));
        shown.push(encoder(kind, false).body(&answer));
    }
    shown.push(error_body(&ApiError::field("n", "`n` is not supported")));
    let values: Vec<Value> = shown.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    insta::assert_json_snapshot!(values);
}

proptest! {
    #[test]
    fn no_body_makes_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (chat::parse(&body), completions::parse(&body));
    }

    #[test]
    fn a_stream_says_what_the_body_says(texts in proptest::collection::vec(".{0,5}", 0..20)) {
        let mut stream = encoder(Kind::Chat, true);
        let mut streamed = String::new();
        for text in &texts {
            for event in stream.event(AnswerEvent::Delta { text: text.clone(), logprobs: Vec::new() }) {
                let event: Value = serde_json::from_str(&event).unwrap();
                streamed.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap());
            }
        }
        prop_assert_eq!(streamed, texts.concat());
    }
}
