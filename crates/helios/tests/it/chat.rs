//! The API as clients see it, in both shapes.

use serde_json::{Value, json};

use crate::harness::{Deployment, MODEL, chat_body, stream};

#[test]
fn one_process_and_three_give_the_same_answers_streamed_or_not() {
    let mut answers = Vec::new();
    for deployment in Deployment::both(&[MODEL]) {
        let question = "What is the capital of France?";
        let whole = deployment.ask(MODEL, question, 48);
        let text = whole["choices"][0]["message"]["content"].as_str().expect("content").to_owned();
        assert!(text.contains("Paris"), "{text}");
        assert_eq!(whole["choices"][0]["finish_reason"], "stop");

        let url = format!("{}/v1/chat/completions", deployment.url);
        let events = stream(&url, &chat_body(MODEL, question, 48));
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        let events: Vec<Value> =
            events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
        let pieces: Vec<&str> =
            events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(pieces.concat(), text);
        assert!(pieces.len() > 5, "the answer came in {} pieces", pieces.len());
        let usage = &events.last().expect("events")["usage"];
        assert_eq!(usage["completion_tokens"], whole["usage"]["completion_tokens"]);
        assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() >= 16, "{usage}");
        answers.push(text);
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn parameters_reach_the_engine() {
    let deployment = Deployment::one_process(&[MODEL], crate::harness::store_with_model());
    let ask = |extra: Value| {
        let mut body = chat_body(MODEL, "Write a long story about the sea.", 24);
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let (status, answer) = deployment.post("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let text = |answer: &Value| answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();

    let plain = ask(json!({}));
    assert_eq!(
        (&plain["choices"][0]["finish_reason"], &plain["usage"]["completion_tokens"]),
        (&json!("length"), &json!(24))
    );

    let stop_at = text(&plain).split_whitespace().nth(5).unwrap().to_owned();
    let stopped = ask(json!({ "stop": [stop_at] }));
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert!(
        text(&plain).starts_with(&text(&stopped)) && !text(&stopped).contains(&stop_at),
        "{}",
        text(&stopped)
    );

    let seeded = |seed: u64| text(&ask(json!({ "temperature": 1.5, "seed": seed })));
    assert_eq!(seeded(7), seeded(7));
    assert_ne!(seeded(7), seeded(8));

    let logprobs = ask(json!({ "logprobs": true, "top_logprobs": 3, "max_tokens": 4 }));
    let content = logprobs["choices"][0]["logprobs"]["content"].as_array().expect("logprobs");
    assert_eq!(content.len(), 4);
    for token in content {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(top[0]["logprob"], token["logprob"], "greedy takes the likeliest");
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }

    let request =
        json!({ "model": MODEL, "prompt": "The capital of France is", "max_tokens": 1, "temperature": 0 });
    let first = |extra: Value| {
        let mut body = request.clone();
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        deployment.post("/v1/completions", &body).1["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let plain = first(json!({}));
    let likeliest: Vec<String> = (0..3).map(|_| first(json!({ "top_k": 1, "temperature": 2.0 }))).collect();
    assert_eq!(likeliest, [plain.as_str(); 3], "top_k 1 is greedy at any temperature");
}

#[test]
fn completions_continue_echo_and_report_the_prompt() {
    let deployment = Deployment::one_process(&[MODEL], crate::harness::store_with_model());
    let prompt = "The quick brown fox jumps over the lazy";
    let body = json!({ "model": MODEL, "prompt": prompt, "max_tokens": 3, "temperature": 0, "echo": true, "logprobs": 2 });
    let (status, answer) = deployment.post("/v1/completions", &body);
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    let text = choice["text"].as_str().unwrap();
    assert!(text.starts_with(prompt) && text.contains("dog"), "{text}");
    let logprobs = &choice["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap();
    assert_eq!(tokens.iter().map(|t| t.as_str().unwrap()).collect::<String>(), text);
    assert_eq!(logprobs["token_logprobs"][0], Value::Null);
    assert!(logprobs["token_logprobs"][1].as_f64().unwrap() < 0.0);
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    assert_eq!(tokens.len() as u64, answer["usage"]["total_tokens"].as_u64().unwrap());
}

#[test]
fn errors_have_openais_envelope_on_every_path() {
    let deployment = Deployment::one_process(&[MODEL], crate::harness::store_with_model());
    let code = |(status, body): (u16, Value)| {
        (status, body["error"]["code"].as_str().unwrap_or("none").to_owned(), body)
    };
    let (status, what, body) =
        code(deployment.post("/v1/chat/completions", &chat_body("smollm2:135m-instrukt", "hi", 4)));
    assert_eq!((status, what.as_str()), (404, "model_not_found"));
    assert!(body["error"]["message"].as_str().unwrap().contains(MODEL), "{body}");

    let long = "word ".repeat(9000);
    let (status, what, _) = code(deployment.post("/v1/chat/completions", &chat_body(MODEL, &long, 4)));
    assert_eq!((status, what.as_str()), (400, "context_length_exceeded"));

    let (status, what, _) = code(deployment.post("/v1/nothing", &json!({})));
    assert_eq!((status, what.as_str()), (404, "not_found"));
    let (status, _) = deployment.get("/v1/chat/completions");
    assert_eq!(status, 405);
    let (status, what, _) = code(deployment.post("/v1/chat/completions", &json!({ "model": MODEL })));
    assert_eq!((status, what.as_str()), (400, "invalid_request"));

    let (status, list) = deployment.get("/v1/models");
    assert!(status == 200 && list.contains(MODEL), "{list}");
    assert_eq!(deployment.get("/v1/models/smollm2:135m-instruct").0, 200);
    assert_eq!(deployment.get("/v1/models/smollm2%3A135m-instruct").0, 200);
    deployment.ask(MODEL, "hi", 2);
    let (status, metrics) = deployment.get("/metrics");
    assert!(status == 200 && metrics.contains("time_to_first_token_seconds"), "{metrics}");
}

#[test]
fn a_web_page_cannot_use_a_server_without_a_key() {
    let deployment = Deployment::one_process(&[MODEL], crate::harness::store_with_model());
    let status = |args: &[&str]| {
        let output = std::process::Command::new("curl")
            .args(["-s", "-o", "-", "-w", "\n%{http_code}"])
            .args(args)
            .arg(format!("{}/v1/models", deployment.url))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap().to_owned()
    };
    assert_eq!(status(&[]), "200");
    assert_eq!(status(&["-H", "origin: https://evil.example"]), "403");
    assert_eq!(status(&["-H", "host: evil.example"]), "403");
    assert_eq!(status(&["-H", "host: localhost:8080"]), "200");
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let deployment = Deployment::one_process(&[MODEL], crate::harness::store_with_model());
    let mut body = chat_body(MODEL, "Count from one to ten thousand in words.", 4000);
    body["ignore_eos"] = json!(true);
    body["stream"] = json!(true);
    let url = format!("{}/v1/chat/completions", deployment.url);
    let mut client = std::process::Command::new("curl")
        .args(["-sN", "-H", "content-type: application/json", "--data", &body.to_string(), &url])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let running = || {
        let (_, workers) = deployment.get("/admin/v1/workers");
        let workers: Value = serde_json::from_str(&workers).unwrap();
        workers["workers"][0]["running_sequences"].as_u64().unwrap_or_else(|| panic!("{workers}"))
    };
    crate::harness::wait_until("the sequence's start", || running() == 1);
    client.kill().unwrap();
    client.wait().unwrap();
    crate::harness::wait_until("the slot's release", || running() == 0);
}
