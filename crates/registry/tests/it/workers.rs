//! Workers as nodes of the fleet: they take from each other and from registries before they ask their own.

use std::sync::Arc;

use helios_model::{FileEntry, Role};
use helios_registry::{ModelStore, RegistryClient, SharedCache, http};
use helios_types::{Classify, ErrorCode};
use tokio::task::JoinHandle;

use crate::fleet::{NODES, Node, announce, assert_at_most_a_tenth_more, liar, listen, name, serve};
use crate::models::{self, Place};

const MODEL: &str = "org/large:v1";

/// A worker's store on another host than its registry: it never looks for the registry's folder.
struct Worker {
    store: ModelStore,
    node: Arc<SharedCache>,
    address: String,
    server: JoinHandle<()>,
    place: Place,
}

impl Worker {
    async fn start(registry: &str) -> Self {
        Self::start_in(Place::new(), registry).await
    }

    async fn start_in(place: Place, registry: &str) -> Self {
        Self::start_with(place, registry, None).await
    }

    /// With a cache of so many bytes.
    async fn start_with(place: Place, registry: &str, budget: Option<u64>) -> Self {
        let (listener, address) = listen().await;
        let client = RegistryClient::new(registry, None).expect("a client");
        let (store, node) =
            ModelStore::node(client, &place.path("cache"), budget, address.clone(), None).expect("a store");
        let server = serve(listener, http::node_router(Arc::clone(&node)));
        Self { store, node, address, server, place }
    }

    async fn assert_gets(&self, weights: &FileEntry, file: &[u8]) {
        let got = self.store.file(weights).await.expect("the weights");
        assert!(*got.to_blob() == *file, "{}: another file", self.address);
    }
}

/// The entry of the model's weights in its manifest.
async fn weights(registry: &str) -> FileEntry {
    let client = RegistryClient::new(registry, None).expect("a client");
    let resolved = client.resolve(&name(MODEL)).await.expect("known");
    resolved.manifest.required(Role::Weights).expect("weights").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_workers_take_each_byte_from_their_registry_once() {
    let file = models::large_gguf(64 << 20);
    let registry = Node::parent(&file).await;
    let weights = weights(&registry.address).await;
    let workers = futures::future::join_all((0..NODES).map(|_| Worker::start(&registry.address))).await;
    futures::future::join_all(workers.iter().map(|worker| worker.assert_gets(&weights, &file))).await;
    assert_at_most_a_tenth_more(registry.egress(), file.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_registries_of_one_fleet_share_with_each_other() {
    let file = models::large_gguf(64 << 20);
    let parent = Node::parent(&file).await;
    let weights = weights(&parent.address).await;
    let workers = futures::future::join_all((0..NODES / 2).map(|_| Worker::start(&parent.address))).await;
    let registries = futures::future::join_all((0..NODES / 2).map(|_| parent.child())).await;
    let loads = futures::future::join_all(workers.iter().map(|worker| worker.assert_gets(&weights, &file)));
    let pulls = futures::future::join_all(registries.iter().map(|node| node.pull(MODEL)));
    tokio::join!(loads, pulls);
    for node in &registries {
        node.assert_has(MODEL, &file).await;
    }
    assert_at_most_a_tenth_more(parent.egress(), file.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_kept_is_given_to_others_after_its_restart() {
    let file = models::large_gguf(20 << 20);
    let registry = Node::parent(&file).await;
    let weights = weights(&registry.address).await;
    let first = Worker::start(&registry.address).await;
    first.assert_gets(&weights, &file).await;
    let before = registry.egress();
    first.server.abort();
    let again = Worker::start_in(first.place, &registry.address).await;
    // The tracker may still name the one before: who is sent there finds nobody, and asks on.
    again.assert_gets(&weights, &file).await;
    again.node.announce_once().await;
    let second = Worker::start(&registry.address).await;
    second.assert_gets(&weights, &file).await;
    assert_eq!(registry.egress(), before, "all of it was next door");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_finds_a_lying_neighbour_out_at_its_first_pieces() {
    let file = models::large_gguf(64 << 20);
    let registry = Node::parent(&file).await;
    let weights = weights(&registry.address).await;
    let (address, asked) = liar().await;
    announce(&registry.address, &address, &weights.blob.digest.to_string()).await;
    let worker = Worker::start(&registry.address).await;
    worker.assert_gets(&weights, &file).await;
    let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=8).contains(&asked), "asked {asked} times: the first pieces together, none after them");
    assert_at_most_a_tenth_more(registry.egress(), file.len());
}

#[tokio::test]
async fn a_worker_gives_pieces_of_what_it_was_asked_for_and_nothing_else() {
    let file = models::large_gguf(9 << 20);
    let registry = Node::parent(&file).await;
    let weights = weights(&registry.address).await;
    let worker = Worker::start(&registry.address).await;
    worker.assert_gets(&weights, &file).await;
    let (known, unknown) = (weights.blob.digest, format!("sha256:{}", "0".repeat(64)));
    let client = reqwest::Client::new();
    for (path, status) in [
        (format!("pieces/{known}/4"), 200),
        (format!("pieces/{known}/5"), 400),
        (format!("pieces/{known}/-1"), 400),
        ("pieces/..%2F..%2Fetc%2Fpasswd/0".to_owned(), 400),
        ("pieces/sha256:xyz/0".to_owned(), 400),
        (format!("pieces/{unknown}/0"), 404),
        (format!("blobs/{known}"), 404),
        (format!("trees/{known}"), 404),
        ("models".to_owned(), 404),
    ] {
        let url = format!("{}/registry/v1/{path}", worker.address);
        let answer = client.get(url).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
}

/// A registry with a model of each size, and what their weights are, ordered by digest: the order in which they would leave
/// a cache that knew nothing of their use.
async fn registry_of(sizes: &[usize]) -> (String, Vec<FileEntry>, Place) {
    let place = Place::new();
    let registry = place.open().await;
    let mut weights = Vec::new();
    for size in sizes {
        let file = place.write("m.gguf", &models::large_gguf(*size));
        let model = name(&format!("m{size}"));
        let resolved = registry.import(&file, Some(model), &mut |_| {}).await.expect("imported");
        weights.push(resolved.manifest.required(Role::Weights).expect("weights").clone());
    }
    weights.sort_by_key(|file| file.blob.digest);
    let (listener, address) = listen().await;
    serve(listener, http::router(registry));
    (address, weights, place)
}

/// Which of these files the cache of a worker has.
fn cached<'a>(worker: &Worker, files: &'a [FileEntry]) -> Vec<&'a FileEntry> {
    let blobs = worker.place.path("cache/blobs/sha256");
    files.iter().filter(|file| blobs.join(file.blob.digest.hex()).exists()).collect()
}

const MIB: usize = 1 << 20;
/// Three files of which two fit into a cache of [`TWO`].
const THREE: [usize; 3] = [4 * MIB, 4 * MIB + 1, 4 * MIB + 2];
const TWO: Option<u64> = Some(9 << 20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_keeps_to_its_budget_and_what_was_used_least_of_late_leaves() {
    let (registry, files, _place) = registry_of(&THREE).await;
    let worker = Worker::start_with(Place::new(), &registry, TWO).await;
    for number in [0, 1, 0, 2] {
        worker.store.file(&files[number]).await.expect("the weights");
    }
    assert_eq!(cached(&worker, &files), [&files[0], &files[2]]);
    worker.server.abort();
    // What was used is remembered, and a budget that became smaller is kept to at once.
    let Worker { place, store, node, .. } = worker;
    drop((store, node));
    let again = Worker::start_with(place, &registry, Some(5 << 20)).await;
    assert_eq!(cached(&again, &files), [&files[0]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_uses_does_not_leave_a_cache_for_what_comes() {
    let (registry, files, _place) = registry_of(&THREE).await;
    let worker = Worker::start_with(Place::new(), &registry, TWO).await;
    let open = worker.store.file(&files[0]).await.expect("the weights");
    let also_open = worker.store.file(&files[1]).await.expect("the weights");
    let error = worker.store.file(&files[2]).await.expect_err("no room");
    assert_eq!(error.code(), ErrorCode::StorageFull);
    assert!(error.to_string().contains("--cache-budget"), "{error}");
    drop((open, also_open));

    // As the worker of another process, which only tells what it has opened since it began.
    let client = RegistryClient::new(&registry, None).expect("a client");
    let cache = worker.place.path("cache");
    let (other, _node) =
        ModelStore::node(client, &cache, TWO, worker.address.clone(), None).expect("a store");
    let error = other.file(&files[2]).await.expect_err("the first worker is alive");
    assert_eq!(error.code(), ErrorCode::StorageFull);
    assert_eq!(cached(&worker, &files), [&files[0], &files[1]]);
    worker.store.file(&files[2]).await.expect("nobody else uses what leaves");
    assert_eq!(cached(&worker, &files).len(), 2);
}
