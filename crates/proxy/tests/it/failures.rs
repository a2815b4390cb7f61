//! What clients see when something behind the proxy, or the client itself, fails.

use std::time::Duration;

use futures::StreamExt;
use helios_api::worker::v1::{self, FinishReason};
use helios_proxy::ProxyConfig;
use helios_types::ErrorCode;
use serde_json::{Value, json};

use crate::support::{MODEL, Script, Step, envelope, fake_worker, pieces_of, says, soon, start, start_with};

/// The last event of a broken stream: an error, and nothing behind it.
async fn broken_by(script: Vec<Step>) -> Value {
    let (server, _worker, _endings) = start_with(Ok(script)).await;
    let events = server.stream("/v1/completions", json!({ "prompt": "hi" })).await;
    assert!(events.iter().all(|event| event != "[DONE]"), "{events:?}");
    let text: Value = serde_json::from_str(&events[0]).expect("JSON");
    assert_eq!(text["choices"][0]["text"], "ab", "what came before stays");
    let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON");
    envelope(&last).clone()
}

fn at(first_index: u32, tokens: &str) -> Step {
    let tokens = tokens.bytes().map(u32::from).collect();
    Step::Chunk(v1::GenerateChunk { first_index, tokens, ..Default::default() })
}

#[tokio::test]
async fn a_failure_after_the_first_byte_is_an_error_event() {
    assert_eq!(broken_by(vec![at(0, "ab"), Step::Fail(ErrorCode::Unavailable)]).await["code"], "unavailable");
}

#[tokio::test]
async fn missing_doubled_or_unfinished_tokens_are_never_a_clean_end() {
    for second in [at(3, "d"), at(1, "b"), at(0, "ab")] {
        let error = broken_by(vec![at(0, "ab"), second]).await;
        assert_eq!(error["code"], "upstream_error");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("where 2 was due")), "{error}");
    }
    let error = broken_by(vec![at(0, "ab")]).await;
    assert!(error["message"].as_str().is_some_and(|text| text.contains("without a finish")), "{error}");
    let error = broken_by(vec![at(0, "ab"), at(2, &"c".repeat(49))]).await;
    assert!(error["message"].as_str().is_some_and(|text| text.contains("more tokens")), "{error}");
    let unknown = Step::Chunk(v1::GenerateChunk { first_index: 2, tokens: vec![9999], ..Default::default() });
    assert_eq!(broken_by(vec![at(0, "ab"), unknown]).await["code"], "upstream_error");
}

#[tokio::test]
async fn a_failure_before_the_first_token_is_a_status() {
    for (script, status) in [
        (Err(ErrorCode::ContextLengthExceeded), 400),
        (Err(ErrorCode::Internal), 500),
        (Err(ErrorCode::Unavailable), 503),
        (Ok(vec![Step::Fail(ErrorCode::Overloaded)]), 503),
        (Ok(vec![]), 502),
        (Ok(vec![at(5, "x")]), 502),
    ] {
        let (server, _worker, _endings) = start_with(script).await;
        let body = json!({ "model": MODEL, "prompt": "hi", "stream": true });
        let response = server.post("/v1/completions", &body).send().await.expect("a response");
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        envelope(&response.json().await.expect("JSON"));
    }
}

#[tokio::test]
async fn another_worker_is_tried_once_and_only_if_it_can_help() {
    let good = || Ok(says(&["fine"], FinishReason::Stop));
    let early = |code| Ok(vec![Step::Chunk(v1::GenerateChunk::default()), Step::Fail(code)]);
    let cases: [(Script, u16); 4] = [
        (Err(ErrorCode::Unavailable), 200),
        (Err(ErrorCode::Overloaded), 200),
        (early(ErrorCode::Unavailable), 200),
        (Err(ErrorCode::InvalidRequest), 400),
    ];
    for (bad, status) in cases {
        let ((first, _a), (second, _b)) = (fake_worker(bad), fake_worker(good()));
        // The second is busier, so that the first is asked first.
        second.status.send_modify(|status| status.as_mut().expect("a status").running_sequences = 9);
        let members = vec![first.member("w1"), second.member("w2")];
        let server = start(ProxyConfig::default(), members, Vec::new()).await;
        server.wait_ready(true).await;
        wait_for_workers(&server, 2).await;
        let (seen, body) = server.complete(json!({})).await;
        assert_eq!(seen, status, "{body}");
        assert_eq!(first.requests().len(), 1);
        assert_eq!(second.requests().len(), usize::from(status == 200));
    }
}

async fn wait_for_workers(server: &crate::support::Server, count: usize) {
    let ready = async {
        loop {
            let list: helios_proxy::WorkerList =
                server.get("/admin/v1/workers").await.json().await.expect("JSON");
            if list.workers.iter().filter(|worker| worker.ready).count() == count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(ready).await;
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_slot() {
    let mut steps = pieces_of(&["ab"]);
    steps.push(Step::Hang);
    let (server, _worker, mut endings) = start_with(Ok(steps)).await;
    let body = json!({ "model": MODEL, "prompt": "hi", "stream": true });
    let response = server.post("/v1/completions", &body).send().await.expect("a response");
    let mut events = response.bytes_stream();
    events.next().await.expect("a first event").expect("bytes");
    drop(events);
    soon(endings.recv()).await.expect("the stream's end");

    let body = json!({ "model": MODEL, "prompt": "hi" });
    let waiting = server.post("/v1/completions", &body).timeout(Duration::from_millis(200)).send();
    waiting.await.expect_err("the worker hangs, the client gives up");
    soon(endings.recv()).await.expect("the plain answer's end");
}

#[tokio::test]
async fn a_panic_ends_one_request_and_not_the_proxy() {
    let (server, worker, _endings) = start_with(Ok(vec![Step::Panic])).await;
    let (status, body) = server.complete(json!({})).await;
    assert_eq!((status, &envelope(&body)["code"]), (500, &json!("internal_error")));
    worker.set_script(Ok(says(&["x"], FinishReason::Stop)));
    assert_eq!(server.complete(json!({})).await.0, 200);
}

#[tokio::test]
async fn a_silent_worker_is_given_up_on() {
    let (worker, mut endings) = fake_worker(Ok(vec![Step::Hang]));
    let config = ProxyConfig { chunk_wait_ms_max: 50, ..ProxyConfig::default() };
    let server = start(config, vec![worker.member("w1")], Vec::new()).await;
    server.wait_ready(true).await;
    let (status, body) = server.complete(json!({})).await;
    assert_eq!((status, &body["error"]["code"]), (504, &json!("deadline_exceeded")));
    soon(endings.recv()).await.expect("the stream was dropped");
}

#[tokio::test]
async fn more_requests_than_places_are_told_to_come_back() {
    let (worker, mut endings) = fake_worker(Ok(vec![at(0, "ab"), Step::Hang]));
    let config = ProxyConfig { requests_in_flight_max: 1, requests_waiting_max: 0, ..ProxyConfig::default() };
    let server = start(config, vec![worker.member("w1")], Vec::new()).await;
    server.wait_ready(true).await;
    let body = json!({ "model": MODEL, "prompt": "hi", "stream": true });
    let held = server.post("/v1/completions", &body).send().await.expect("a response");
    let refused = server.post("/v1/completions", &body).send().await.expect("a response");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(envelope(&refused.json().await.expect("JSON"))["code"], "overloaded");
    drop(held);
    soon(endings.recv()).await.expect("the slot's end");
    worker.set_script(Ok(says(&["x"], FinishReason::Stop)));
    let answered = async {
        while server.complete(json!({})).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(answered).await;
}

#[tokio::test]
async fn too_long_a_prompt_is_refused_before_any_worker_sees_it() {
    let (server, worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    for extra in
        [json!({ "prompt": "x".repeat(151) }), json!({ "prompt": "x".repeat(5000), "max_tokens": 1 })]
    {
        let (status, body) = server.complete(extra).await;
        assert_eq!((status, &envelope(&body)["code"]), (400, &json!("context_length_exceeded")));
    }
    assert_eq!(worker.requests(), []);
}
