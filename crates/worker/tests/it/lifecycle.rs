//! Start and end: models that cannot run are refused, and no stream ends without a word.

use std::time::Duration;

use futures::StreamExt;
use helios_api::worker::Worker;
use helios_storage::Blob;
use helios_types::{Classify, ErrorCode};
use helios_worker::{Host, HostError, Machine, WeightFiles};

use crate::harness::{PATIENCE, Server, config, files, read, request, start, updates_until, within};
use crate::tiny_model::{ENDLESS, tiny_gguf};

#[tokio::test(flavor = "multi_thread")]
async fn running_streams_finish_within_the_grace() {
    let server = Server::start(start().await, None, PATIENCE).await;
    let client = server.client(None);
    let mut updates = client.watch().await.expect("a watch");
    let chunks = client.generate(request(&[1, 2, 3], 2000)).await.expect("accepted");
    server.tasks.shutdown().trigger();
    let answer = read(chunks, 0).await.expect("an answer that nothing broke");
    assert_eq!(answer.tokens.len(), 2000);
    updates_until(&mut updates, |update| update.status.expect("a status").draining).await;
    server.stop().await;
    assert!(client.describe().await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_outlast_the_grace_end_in_an_error() {
    let server = Server::start(start().await, None, Duration::ZERO).await;
    let client = server.client(None);
    let mut chunks = client.generate(request(&[1, 2, 3], ENDLESS)).await.expect("accepted");
    within(chunks.next()).await.expect("a chunk").expect("no error");
    server.stop().await;
    let mut last = None;
    while let Some(chunk) = within(chunks.next()).await {
        last = Some(chunk);
    }
    let error = last.expect("an end").expect_err("not a clean one");
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    assert!(error.is_retryable());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_host_takes_no_more() {
    let host = start().await;
    let running = host.generate(request(&[1, 2, 3], 50)).await.expect("accepted");
    host.drain();
    let refused = host.generate(request(&[1], 1)).await.err().expect("refused");
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(!host.describe().await.expect("a description").ready);
    assert_eq!(read(running, 0).await.expect("an answer").tokens.len(), 50);
    assert!(host.stop(PATIENCE).await, "nothing was left to break off");
    let stopped = host.generate(request(&[1], 1)).await.err().expect("refused");
    assert_eq!(stopped.code, ErrorCode::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_model_is_refused_with_its_name() {
    let machine = Machine::new(&config(), 1).expect("good settings");
    let half = tiny_gguf(1).split_at(5000).0.to_vec();
    for bytes in [b"nonsense".to_vec(), half] {
        let mut files = files();
        files.weights =
            WeightFiles::Gguf { name: "broken.gguf".to_owned(), blob: Blob::from_vec(bytes).into() };
        let error = Host::start(&machine, files).await.expect_err("no model");
        assert!(matches!(error, HostError::Engine { .. }), "{error:?}");
        assert_eq!(error.code(), ErrorCode::Corrupt, "{error:?}");
        let source = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(source.contains("broken.gguf"), "{source}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_models_share_one_machine() {
    let machine = Machine::new(&config(), 2).expect("good settings");
    let mut other = files();
    other.weights =
        WeightFiles::Gguf { name: "other.gguf".to_owned(), blob: Blob::from_vec(tiny_gguf(2)).into() };
    let first = Host::start(&machine, files()).await.expect("a host");
    let second = Host::start(&machine, other).await.expect("a second host");
    assert_ne!(first.worker_id(), second.worker_id());
    assert_eq!(first.kv_budget().bytes, 32 << 20);
    assert!(first.kv_budget().to_string().ends_with("as configured, shared by 2 models"));
    let (one, two) =
        tokio::join!(first.generate(request(&[5, 6], 30)), second.generate(request(&[5, 6], 30)));
    let (one, two) = tokio::join!(read(one.expect("accepted"), 0), read(two.expect("accepted"), 0));
    assert_ne!(one.expect("an answer").tokens, two.expect("an answer").tokens);
}
