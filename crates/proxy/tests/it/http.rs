//! The server as HTTP clients see it: envelopes on every path, ids, limits, the smaller routes.

use helios_api::worker::v1::FinishReason;
use helios_proxy::{Access, Bodies, Mount, Permission, ProxyConfig, refusal};
use http::Method;
use serde_json::{Value, json};

use crate::support::{MODEL, envelope, fake_worker, model, says, start, start_with};

#[tokio::test]
async fn every_wrong_request_gets_an_envelope() {
    let (server, _worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    let post = |path: &str, body: &str| {
        let request = server.client.post(format!("{}{path}", server.url)).body(body.to_owned());
        request.header("content-type", "application/json")
    };
    let get = |path: &str| server.client.get(format!("{}{path}", server.url));
    let cases = [
        (get("/nowhere"), 404, "not_found"),
        (get("/v1/models/"), 404, "not_found"),
        (get("/v1/models/no-such"), 404, "model_not_found"),
        (get("/v1/models/%zz"), 400, "invalid_request"),
        (get("/v1/chat/completions"), 405, "method_not_allowed"),
        (post("/health", "{}"), 405, "method_not_allowed"),
        (post("/v1/completions", "{"), 400, "invalid_request"),
        (post("/v1/completions", "[]"), 400, "invalid_request"),
        (post("/v1/completions", "{\"model\": \"\u{7f}\", \"prompt\": \"x\"}"), 404, "model_not_found"),
        (post("/v1/completions", "x").header("content-length", "1"), 400, "invalid_request"),
    ];
    for (request, status, code) in cases {
        let response = request.send().await.expect("a response");
        let path = response.url().path().to_owned();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers().contains_key("allow"), status == 405);
        assert!(response.headers().contains_key("x-request-id"));
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(envelope(&body)["code"], code, "{path}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_declared_or_not() {
    let (worker, _endings) = fake_worker(Ok(Vec::new()));
    let config = ProxyConfig { body_bytes_max: 100_000, ..ProxyConfig::default() };
    let server = start(config, vec![worker.member("w1")], Vec::new()).await;
    let piece = bytes::Bytes::from(vec![b' '; 65_536]);
    let endless = || {
        futures::stream::iter((0..800).map({
            let piece = piece.clone();
            move |_| Ok::<_, std::io::Error>(piece.clone())
        }))
    };
    for body in [reqwest::Body::from(vec![b' '; 50 << 20]), reqwest::Body::wrap_stream(endless())] {
        let request = server.client.post(format!("{}/v1/completions", server.url)).body(body);
        let response = request.header("content-type", "application/json").send().await.expect("a response");
        assert_eq!(response.status(), 413);
        assert_eq!(envelope(&response.json().await.expect("JSON"))["code"], "payload_too_large");
    }
}

#[tokio::test]
async fn request_ids_are_echoed_or_made() {
    let (server, _worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    let with = |id: &'static str| {
        server.client.get(format!("{}/health", server.url)).header("x-request-id", id).send()
    };
    let echoed = with("trace-1").await.expect("a response");
    assert_eq!(echoed.headers()["x-request-id"], "trace-1");
    let made = with("not sane").await.expect("a response");
    assert!(made.headers()["x-request-id"].to_str().is_ok_and(|id| id.starts_with("req-")));
}

#[tokio::test]
async fn models_are_listed_and_found_under_any_spelling() {
    let (server, _worker, _endings) = start_with(Ok(says(&["x"], FinishReason::Stop))).await;
    let list: Value = server.get("/v1/models").await.json().await.expect("JSON");
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1));
    assert_eq!((&list["data"][0]["id"], &list["data"][0]["max_model_len"]), (&json!(MODEL), &json!(200)));
    assert!(list["data"][0]["created"].as_u64().is_some_and(|created| created > 1_600_000_000));
    for id in ["bytes:tiny", "bytes%3Atiny", "bytes"] {
        let response = server.get(&format!("/v1/models/{id}")).await;
        assert_eq!(response.status(), 200, "{id}");
    }
    let head = server.client.head(format!("{}/v1/models", server.url)).send().await.expect("a response");
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn metrics_have_vllms_names() {
    let (server, _worker, _endings) = start_with(Ok(says(&["x", "y"], FinishReason::Stop))).await;
    assert_eq!(server.complete(json!({})).await.0, 200);
    let text = server.get("/metrics").await.text().await.expect("text");
    for line in [
        "# TYPE vllm:request_success_total counter",
        "vllm:request_success_total{model_name=\"bytes:tiny\",finished_reason=\"stop\"}",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"bytes:tiny\",le=",
        "vllm:inter_token_latency_seconds_count{model_name=\"bytes:tiny\"}",
        "vllm:generation_tokens_total{model_name=\"bytes:tiny\"}",
        "helios_workers_ready{model_name=\"bytes:tiny\"} 1",
    ] {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }
}

#[tokio::test]
async fn readiness_waits_for_every_configured_model() {
    let (worker, _endings) = fake_worker(Ok(Vec::new()));
    let config = ProxyConfig { models: vec![model(MODEL), model("other")], ..ProxyConfig::default() };
    let server = start(config, vec![worker.member("w1")], Vec::new()).await;
    let answered = async {
        while server.get("/v1/models").await.text().await.is_ok_and(|list| !list.contains(MODEL)) {}
    };
    crate::support::soon(answered).await;
    let only_the_other_is_missing = async {
        loop {
            let response = server.get("/ready").await;
            assert_eq!(response.status(), 503);
            let body: Value = response.json().await.expect("JSON");
            let message = envelope(&body)["message"].as_str().expect("a message").to_owned();
            assert!(message.contains("other:latest"), "{message}");
            if !message.contains(MODEL) {
                break;
            }
        }
    };
    crate::support::soon(only_the_other_is_missing).await;
    assert_eq!(server.get("/health").await.status(), 200, "alive all the same");
}

fn below_registry(_method: &Method, path: &str) -> Option<Access> {
    let access = Access { permission: Permission::Registry, bodies: Bodies::Json };
    path.starts_with("/registry/v1/").then_some(access)
}

#[tokio::test]
async fn other_parts_routes_stand_behind_the_same_guard() {
    let router = axum::Router::new().route("/registry/v1/ping", axum::routing::get(async || "pong"));
    let mount = Mount { name: "registry", access: below_registry, refusal, router };
    let server = start(ProxyConfig::default(), Vec::new(), vec![mount]).await;
    let response = server.get("/registry/v1/ping").await;
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(response.text().await.expect("text"), "pong");
    assert_eq!(server.get("/registry/v10/ping").await.status(), 404);
    let foreign =
        server.client.get(format!("{}/registry/v1/ping", server.url)).header("host", "evil.example");
    assert_eq!(foreign.send().await.expect("a response").status(), 403);
}
