//! What watchers hear: a snapshot first, then every change, numbered without a gap.

use std::collections::BTreeSet;
use std::time::Duration;

use helios_api::worker::{Worker, v1};
use helios_types::{BLOCK_TOKENS, BlockRoot, NumericsId};

use crate::harness::{MANIFEST, Server, next_update, read, request, start, updates_until};

/// The hashes of the whole blocks of `tokens`, computed without the worker.
fn hashes(numerics: &str, tokens: &[u32]) -> BTreeSet<Vec<u8>> {
    let numerics = NumericsId::from(numerics.to_owned());
    let root = BlockRoot {
        manifest: MANIFEST,
        adapter: None,
        numerics: &numerics,
        block_tokens: BLOCK_TOKENS as u32,
        tenant_salt: b"",
    };
    root.hash().chain(tokens, BLOCK_TOKENS).iter().map(|hash| hash.as_bytes().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_a_snapshot_and_then_every_change() {
    let server = Server::start(start().await, None, Duration::ZERO).await;
    let client = server.client(None);
    let mut updates = client.watch().await.expect("a watch");
    let first = next_update(&mut updates).await;
    assert!(first.snapshot);
    assert_eq!(first.blocks_stored.len(), 0);
    let status = first.status.expect("a status");
    assert!(status.ready && !status.draining);
    assert_eq!((status.running_sequences, status.sequences_max), (0, 4));
    assert!(status.kv_blocks_total > 0);

    let prompt: Vec<u32> = (0..40).collect();
    let answer = client.generate(request(&prompt, 10)).await.expect("accepted");
    read(answer, 0).await.expect("an answer");
    let expected = hashes(server.host.numerics_id().as_str(), &prompt);
    assert_eq!(expected.len(), 2);
    let mut known = BTreeSet::new();
    let seen = updates_until(&mut updates, |update| {
        known.extend(update.blocks_stored.iter().map(|hash| hash.to_vec()));
        known.is_superset(&expected)
    })
    .await;
    let numbers: Vec<u64> = seen.iter().map(|update| update.sequence).collect();
    assert_eq!(numbers, (2..2 + seen.len() as u64).collect::<Vec<_>>());
    assert!(seen.iter().all(|update| !update.snapshot));

    let mut late = client.watch().await.expect("a second watch");
    let snapshot = next_update(&mut late).await;
    assert_eq!((snapshot.snapshot, snapshot.sequence), (true, 1));
    let stored: BTreeSet<Vec<u8>> = snapshot.blocks_stored.iter().map(|hash| hash.to_vec()).collect();
    assert!(stored.is_superset(&expected));
    drop((updates, late));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_says_who_this_is() {
    let host = start().await;
    let who = host.describe().await.expect("a description");
    let protocol = who.protocol.expect("protocol");
    assert_eq!(protocol.numerics_id, host.numerics_id().as_str());
    assert_eq!((protocol.minor, protocol.block_hash_version), (0, 1));
    assert!(who.ready);
    assert_eq!(who.worker_id, host.worker_id());
    let model: v1::ModelInfo = who.model.expect("a model");
    assert_eq!((model.reference.as_str(), model.role.as_str()), ("tiny:test", "unified"));
    assert_eq!(model.manifest_digest, MANIFEST.to_string());
    assert_eq!((model.vocabulary, model.block_tokens), (96, 16));
    assert!(model.context_tokens_max > 100_000);
    assert!(who.memory_bytes > 1 << 20, "what the kernel says, not {}", who.memory_bytes);
}
