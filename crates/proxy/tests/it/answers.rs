//! Answers as they should be: text, events, stop strings, counts.

use helios_api::worker::v1::{self, FinishReason};
use serde_json::{Value, json};

use crate::support::{IM_END, IM_START, MODEL, Step, bytes_of, pieces_of, says, soon, start_with};

fn parsed(event: &str) -> Value {
    serde_json::from_str(event).expect("JSON")
}

#[tokio::test]
async fn a_chat_goes_through_template_worker_and_back() {
    let (server, worker, _endings) = start_with(Ok(says(&["Hel", "lo"], FinishReason::Stop))).await;
    let body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "a<|im_end|>" }] });
    let response = server.post("/v1/chat/completions", &body).send().await.expect("a response");
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 5);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 3);

    let asked = worker.requests().remove(0);
    let prompt = [
        vec![IM_START],
        bytes_of("user\na<|im_end|>"),
        vec![IM_END],
        bytes_of("\n"),
        vec![IM_START],
        bytes_of("assistant\n"),
    ]
    .concat();
    assert_eq!(asked.prompt, prompt, "only the template makes special tokens");
    assert_eq!(answer["usage"]["prompt_tokens"], prompt.len());
    assert_eq!(asked.stop_tokens, [IM_END]);
    assert_eq!(asked.max_tokens as usize, 200 - prompt.len(), "all that the context leaves");
    assert_eq!(asked.manifest_digest, worker.manifest_digest.to_string());
}

#[tokio::test]
async fn a_stream_has_the_same_text_and_ends_with_done() {
    let (server, _worker, _endings) = start_with(Ok(says(&["Gr\u{fc}", "n"], FinishReason::Length))).await;
    let messages = json!({ "messages": [{ "role": "user", "content": "x" }],
        "stream_options": { "include_usage": true } });
    let events = server.stream("/v1/chat/completions", messages).await;
    let (done, events) = events.split_last().expect("events");
    assert_eq!(done, "[DONE]");
    let events: Vec<Value> = events.iter().map(|event| parsed(event)).collect();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let text = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(text.collect::<String>(), "Gr\u{fc}n");
    let usage = &events.last().expect("a last event")["usage"];
    assert_eq!((&usage["completion_tokens"], &usage["prompt_tokens"]), (&json!(5), &json!(20)));
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_stop_string_across_chunks_ends_the_answer_and_cancels_the_rest() {
    let mut steps = pieces_of(&["one\n", "\nUs", "er: two"]);
    steps.push(Step::Hang);
    let (server, _worker, mut endings) = start_with(Ok(steps)).await;
    let (status, answer) = server.complete(json!({ "stop": ["\n\nUser:", "never"] })).await;
    assert_eq!(status, 200);
    assert_eq!(answer["choices"][0]["text"], "one");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 3, "what belongs to the stop string is not counted");
    soon(endings.recv()).await.expect("the worker's stream was dropped");

    let events = server.stream("/v1/completions", json!({ "prompt": "hi", "stop": "\n\nUser:" })).await;
    let text: String = events[..events.len() - 1]
        .iter()
        .filter_map(|event| parsed(event)["choices"][0]["text"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, "one");
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
}

#[tokio::test]
async fn text_that_only_looked_like_a_stop_string_is_delivered() {
    let (server, _worker, _endings) = start_with(Ok(says(&["a\n", "\nUs"], FinishReason::Stop))).await;
    let (_, answer) = server.complete(json!({ "stop": ["\n\nUser:"] })).await;
    assert_eq!(answer["choices"][0]["text"], "a\n\nUs");
    assert_eq!(answer["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn seeds_are_the_clients_or_assigned() {
    let (server, worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    server.complete(json!({ "seed": 7, "ignore_eos": true, "stop_token_ids": [65] })).await;
    server.complete(json!({})).await;
    server.complete(json!({})).await;
    let asked = worker.requests();
    let seeds: Vec<u64> =
        asked.iter().map(|request| request.sampling.as_ref().expect("sampling").seed).collect();
    assert_eq!(seeds[0], 7);
    assert_ne!(seeds[1], seeds[2]);
    assert_eq!(asked[0].stop_tokens, [65], "ignore_eos leaves only the client's own");
}

fn report(token: u8) -> v1::TokenLogprobs {
    let top = vec![v1::Alternative { token: u32::from(token), logprob: -0.5 }];
    v1::TokenLogprobs { token: u32::from(token), logprob: -0.5, rank: 1, top }
}

#[tokio::test]
async fn an_echo_brings_the_prompts_log_probabilities() {
    let prompt = v1::PromptInfo { prompt_tokens: 2, cached_tokens: 0, logprobs: vec![report(b'i')] };
    let steps = vec![
        Step::Chunk(v1::GenerateChunk { prompt: Some(prompt), ..Default::default() }),
        Step::Chunk(v1::GenerateChunk {
            tokens: vec![u32::from(b'!')],
            logprobs: vec![report(b'!')],
            finish: Some(v1::Finish { reason: FinishReason::Length.into(), stop_token: None }),
            ..Default::default()
        }),
    ];
    let (server, worker, _endings) = start_with(Ok(steps)).await;
    let (status, answer) = server.complete(json!({ "echo": true, "logprobs": 1, "max_tokens": 1 })).await;
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "hi!");
    assert_eq!(choice["logprobs"]["tokens"], json!(["h", "i", "!"]));
    assert_eq!(choice["logprobs"]["token_logprobs"], json!([null, -0.5, -0.5]));
    assert_eq!(choice["logprobs"]["text_offset"], json!([0, 1, 2]));
    assert_eq!(worker.requests()[0].prompt_logprobs, Some(1));
}

#[tokio::test]
async fn token_ids_go_in_as_they_are_and_unknown_ones_are_refused() {
    let (server, worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    let (status, _) = server.complete(json!({ "prompt": [72, 73, IM_END] })).await;
    assert_eq!(status, 200);
    assert_eq!(worker.requests()[0].prompt, [72, 73, IM_END]);
    for (field, value) in
        [("prompt", json!([72, 258])), ("stop_token_ids", json!([900])), ("logit_bias", json!({ "900": 1 }))]
    {
        let (status, body) = server.complete(json!({ field: value })).await;
        assert_eq!((status, &body["error"]["param"]), (400, &json!(field)), "{body}");
    }
}

#[tokio::test]
async fn names_resolve_and_strangers_get_a_suggestion() {
    let (server, _worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    assert_eq!(server.complete(json!({ "model": "bytes" })).await.0, 200, "the store knows the default tag");
    let (status, body) = server.complete(json!({ "model": "bites:tiny" })).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
    assert!(
        body["error"]["message"].as_str().is_some_and(|text| text.contains("did you mean `bytes:tiny`?"))
    );
    let body = json!({ "model": "asleep", "prompt": "x" });
    let response = server.post("/v1/completions", &body).send().await.expect("a response");
    assert_eq!(response.status(), 503, "known, but nobody serves it");
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(
        server.asked(),
        ["bytes:tiny", "asleep:latest"],
        "the store learns what is asked for: what means something, served or not"
    );
}
