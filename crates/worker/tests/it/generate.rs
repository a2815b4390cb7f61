//! Answers: the same in process and over the wire, whole, continuable, refused where the request is wrong.

use std::time::Duration;

use futures::StreamExt;
use helios_api::worker::{Worker, v1};
use helios_types::{Digest, ErrorCode};

use crate::harness::{Server, config, read, request, sampled, start, start_with, updates_until};
use crate::tiny_model::{ENDLESS, VOCABULARY};

const PROMPT: [u32; 5] = [3, 1, 4, 1, 5];

#[tokio::test(flavor = "multi_thread")]
async fn the_wire_changes_no_token() {
    let server = Server::start(start().await, None, Duration::ZERO).await;
    let client = server.client(None);
    for request in [request(&PROMPT, 40), sampled(&PROMPT, 40, 7)] {
        let request = v1::GenerateRequest { logprobs: Some(3), prompt_logprobs: Some(2), ..request };
        let local = server.host.generate(request.clone()).await.expect("accepted");
        let local = read(local, 0).await.expect("an answer");
        let remote = client.generate(request).await.expect("accepted");
        let remote = read(remote, 0).await.expect("an answer");
        assert_eq!((&local.tokens, &local.logprobs), (&remote.tokens, &remote.logprobs));
        assert_eq!(local.finish, remote.finish);
        assert_eq!(local.prompt.logprobs, remote.prompt.logprobs);
        assert_eq!((remote.tokens.len(), remote.logprobs.len()), (40, 40));
        assert_eq!(remote.finish.reason(), v1::FinishReason::Length);
        assert_eq!(remote.prompt.prompt_tokens, 5);
        assert_eq!(remote.prompt.logprobs.len(), 4);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_rank_what_was_drawn() {
    let host = start().await;
    let request = v1::GenerateRequest { logprobs: Some(4), ..request(&PROMPT, 8) };
    let answer = read(host.generate(request).await.expect("accepted"), 0).await.expect("an answer");
    for (token, logprobs) in answer.tokens.iter().zip(&answer.logprobs) {
        assert_eq!((logprobs.token, logprobs.rank, logprobs.top.len()), (*token, 1, 4));
        assert_eq!((logprobs.top[0].token, logprobs.top[0].logprob), (*token, logprobs.logprob));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_elsewhere_with_the_same_tail() {
    let (first, second) = (start().await, start().await);
    for request in [request(&PROMPT, 30), sampled(&PROMPT, 30, 11)] {
        let whole =
            read(first.generate(request.clone()).await.expect("accepted"), 0).await.expect("an answer");
        for split in [1, 16, 29] {
            let emitted = whole.tokens[..split].to_vec();
            let rest = v1::GenerateRequest { emitted, ..request.clone() };
            let rest = second.generate(rest).await.expect("accepted");
            let rest = read(rest, split as u32).await.expect("an answer");
            assert_eq!(rest.tokens, whole.tokens[split..]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_token_ends_the_answer_and_is_named() {
    let host = start().await;
    let free =
        read(host.generate(request(&PROMPT, 20)).await.expect("accepted"), 0).await.expect("an answer");
    let stop = free.tokens[10];
    let place = free.tokens.iter().position(|&token| token == stop).expect("it is there");
    let request = v1::GenerateRequest { stop_tokens: vec![stop], ..request(&PROMPT, 20) };
    let answer = read(host.generate(request).await.expect("accepted"), 0).await.expect("an answer");
    assert_eq!(answer.tokens, free.tokens[..place]);
    assert_eq!(answer.finish, v1::Finish { reason: v1::FinishReason::Stop.into(), stop_token: Some(stop) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_seen_before_is_found_in_the_cache() {
    let host = start().await;
    let prompt: Vec<u32> = (0..50).collect();
    let first =
        read(host.generate(request(&prompt, 4)).await.expect("accepted"), 0).await.expect("an answer");
    let again =
        read(host.generate(request(&prompt, 4)).await.expect("accepted"), 0).await.expect("an answer");
    assert_eq!((first.prompt.cached_tokens, again.prompt.cached_tokens), (0, 48));
    assert_eq!(first.tokens, again.tokens);
    let salted = v1::GenerateRequest { tenant_salt: vec![1].into(), ..request(&prompt, 4) };
    let salted = read(host.generate(salted).await.expect("accepted"), 0).await.expect("an answer");
    assert_eq!(salted.prompt.cached_tokens, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_frees_its_place() {
    let server = Server::start(start().await, None, Duration::ZERO).await;
    let client = server.client(None);
    let mut updates = client.watch().await.expect("a watch");
    let mut chunks = client.generate(request(&PROMPT, ENDLESS)).await.expect("accepted");
    chunks.next().await.expect("a chunk").expect("no error");
    let running = |update: &v1::WatchUpdate| update.status.expect("a status").running_sequences;
    updates_until(&mut updates, |update| running(update) == 1).await;
    drop(chunks);
    // Without the cancellation the answer would go on for hours.
    updates_until(&mut updates, |update| running(update) == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_queue_holds_is_overload() {
    let mut config = config();
    (config.sequences_max, config.queue_max) = (1, 1);
    let server = Server::start(start_with(&config).await, None, Duration::ZERO).await;
    let client = server.client(None);
    let endless = || client.generate(request(&PROMPT, ENDLESS));
    let (first, second) = (endless().await.expect("accepted"), endless().await.expect("queued"));
    let error = endless().await.err().expect("refused");
    assert_eq!(error.code, ErrorCode::Overloaded, "{error}");
    drop((first, second));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_by_field() {
    type Change = fn(&mut v1::GenerateRequest);
    fn sampling(request: &mut v1::GenerateRequest) -> &mut v1::Sampling {
        request.sampling.as_mut().expect("set")
    }
    let cases: [(&str, ErrorCode, Change); 12] = [
        ("prompt", ErrorCode::InvalidRequest, |request| request.prompt.clear()),
        ("prompt", ErrorCode::InvalidRequest, |request| request.prompt[0] = VOCABULARY),
        ("emitted", ErrorCode::InvalidRequest, |request| request.emitted = vec![VOCABULARY]),
        ("max_tokens", ErrorCode::InvalidRequest, |request| request.max_tokens = 0),
        ("logprobs", ErrorCode::InvalidRequest, |request| request.logprobs = Some(1000)),
        ("sampling", ErrorCode::InvalidRequest, |request| request.sampling = None),
        ("top_p", ErrorCode::InvalidRequest, |request| sampling(request).top_p = 0.0),
        ("temperature", ErrorCode::InvalidRequest, |request| sampling(request).temperature = f32::NAN),
        ("repetition_penalty", ErrorCode::InvalidRequest, |request| {
            sampling(request).repetition_penalty = 0.0
        }),
        ("manifest_digest", ErrorCode::InvalidRequest, |request| request.manifest_digest = "x".to_owned()),
        ("serves manifest", ErrorCode::ModelNotFound, |request| {
            request.manifest_digest = Digest::from_bytes([8; 32]).to_string();
        }),
        ("tokens", ErrorCode::ContextLengthExceeded, |request| request.max_tokens = u32::MAX),
    ];
    let server = Server::start(start().await, None, Duration::ZERO).await;
    let client = server.client(None);
    for (word, code, change) in cases {
        let mut request = request(&PROMPT, 4);
        change(&mut request);
        let error = client.generate(request).await.err().unwrap_or_else(|| panic!("{word}: accepted"));
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
    // None of them hurt the engine.
    let answer = client.generate(request(&PROMPT, 4)).await.expect("accepted");
    assert_eq!(read(answer, 0).await.expect("an answer").tokens.len(), 4);
    server.stop().await;
}
