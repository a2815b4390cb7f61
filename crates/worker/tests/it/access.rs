//! Who may call: nobody without the cluster token, where there is one.

use std::net::SocketAddr;
use std::time::Duration;

use helios_api::worker::{GrpcWorker, Worker, WorkerError};
use helios_runtime::Shutdown;
use helios_types::ErrorCode;
use helios_worker::{HostError, ServeOptions, serve};

use crate::harness::{Server, read, request, start};

async fn refusals(client: &GrpcWorker) -> [Option<WorkerError>; 3] {
    [client.describe().await.err(), client.generate(request(&[1], 1)).await.err(), client.watch().await.err()]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_needs_the_cluster_token() {
    let server = Server::start(start().await, Some("open sesame"), Duration::ZERO).await;
    for token in [None, Some(""), Some("open sesam"), Some("open sesame!"), Some("OPEN SESAME")] {
        for refusal in refusals(&server.client(token)).await {
            let refusal = refusal.unwrap_or_else(|| panic!("{token:?} was let in"));
            assert_eq!(refusal.code, ErrorCode::Unauthenticated, "{token:?}: {refusal}");
        }
    }
    let client = server.client(Some("open sesame"));
    assert!(refusals(&client).await.iter().all(Option::is_none));
    let answer = client.generate(request(&[1, 2], 3)).await.expect("accepted");
    assert_eq!(read(answer, 0).await.expect("an answer").tokens.len(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_listener_without_a_token_is_refused() {
    let host = start().await;
    let listener = helios_runtime::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.expect("a free port");
    let refused = serve(host, listener, ServeOptions::default(), &Shutdown::default()).await;
    assert!(matches!(refused, Err(HostError::InsecureBind { .. })), "{refused:?}");
}
