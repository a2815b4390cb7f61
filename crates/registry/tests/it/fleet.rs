//! Registries that work together: parents, and nodes that share what they fetch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use helios_model::Role;
use helios_registry::{FetchConfig, FleetConfig, FromSource, PullEvent, Registry, RegistryClient, http};
use helios_types::{Classify, ErrorCode, ModelRef};
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use crate::downloads::{hub_config, hub_listing};
use crate::models::{self, Place};
use crate::origin::{Manner, Origin};

pub(crate) const NODES: usize = 8;

pub(crate) fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a socket");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, address)
}

#[allow(clippy::disallowed_methods, reason = "a server that ends with its test")]
pub(crate) fn serve(listener: TcpListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move { axum::serve(listener, router).await.expect("served") })
}

/// A registry with a listener, in a folder of its own.
pub(crate) struct Node {
    pub(crate) registry: Arc<Registry>,
    pub(crate) address: String,
    /// Bytes of blobs that it served as an origin does.
    egress: Arc<AtomicUsize>,
    server: JoinHandle<()>,
    _place: Place,
}

impl Node {
    pub(crate) async fn start(fleet: FleetConfig, fetch: FetchConfig) -> Self {
        let (listener, address) = listen().await;
        Self::start_at(listener, address, fleet, fetch).await
    }

    async fn start_at(
        listener: TcpListener,
        address: String,
        fleet: FleetConfig,
        fetch: FetchConfig,
    ) -> Self {
        let place = Place::new();
        let fleet = FleetConfig { advertise: Some(address.clone()), ..fleet };
        let registry = place.open_in(fleet, fetch).await;
        let egress = Arc::new(AtomicUsize::new(0));
        let router =
            http::router(Arc::clone(&registry)).layer(from_fn_with_state(Arc::clone(&egress), count));
        Self { registry, address, egress, server: serve(listener, router), _place: place }
    }

    /// A parent with a model `org/large:v1` of that file.
    pub(crate) async fn parent(file: &[u8]) -> Self {
        let node = Self::start(FleetConfig::default(), FetchConfig::default()).await;
        let path = node._place.write("large.gguf", file);
        node.registry.import(&path, Some(name("org/large:v1")), &mut |_| {}).await.expect("imported");
        node
    }

    pub(crate) async fn child(&self) -> Self {
        let fleet = FleetConfig { parent: Some(self.address.clone()), ..FleetConfig::default() };
        Self::start(fleet, FetchConfig::default()).await
    }

    pub(crate) fn egress(&self) -> usize {
        self.egress.load(Ordering::Relaxed)
    }

    pub(crate) async fn pull(&self, spec: &str) {
        self.registry.pull(spec, None, &mut |_| {}).await.expect("pulled");
    }

    pub(crate) async fn assert_has(&self, model: &str, file: &[u8]) {
        let resolved = self.registry.resolve(&name(model)).await.expect("known");
        let weights = self.registry.derived_bytes(&resolved.manifest, Role::Weights).await.expect("weights");
        assert!(*weights == *file, "{}: another file", self.address);
    }
}

/// Counts the bytes of blobs that leave whole or in ranges, as from an origin.
async fn count(State(egress): State<Arc<AtomicUsize>>, request: Request, next: Next) -> Response {
    let is_blob = request.uri().path().contains("/blobs/");
    let response = next.run(request).await;
    if !is_blob {
        return response;
    }
    let (parts, body) = response.into_parts();
    let counted = body.into_data_stream().inspect(move |chunk| {
        egress.fetch_add(chunk.as_ref().map_or(0, |chunk| chunk.len()), Ordering::Relaxed);
    });
    Response::from_parts(parts, axum::body::Body::from_stream(counted))
}

pub(crate) fn assert_at_most_a_tenth_more(egress: usize, size: usize) {
    assert!(egress * 10 <= size * 11, "{egress} bytes left the origin for a model of {size}");
    assert!(egress >= size, "{egress} bytes cannot make {size}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_nodes_take_each_byte_from_the_parent_once() {
    let file = models::large_gguf(64 << 20);
    let parent = Node::parent(&file).await;
    let nodes = futures::future::join_all((0..NODES).map(|_| parent.child())).await;
    futures::future::join_all(nodes.iter().map(|node| node.pull("org/large:v1"))).await;
    for node in &nodes {
        node.assert_has("org/large:v1", &file).await;
    }
    assert_at_most_a_tenth_more(parent.egress.load(Ordering::Relaxed), file.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_peers_without_a_parent_take_each_byte_from_the_hub_once() {
    let file = models::large_gguf(64 << 20);
    let hub = Origin::start(file.clone(), Manner::Honest).await;
    hub.list(hub_listing("large.gguf", &file, Some(models::sha256(&file))));
    let listeners = futures::future::join_all((0..NODES).map(|_| listen())).await;
    let peers: Vec<String> = listeners.iter().map(|(_, address)| address.clone()).collect();
    let nodes = listeners.into_iter().map(|(listener, address)| {
        let fleet = FleetConfig { peers: peers.clone(), ..FleetConfig::default() };
        Node::start_at(listener, address, fleet, hub_config(&hub))
    });
    let nodes = futures::future::join_all(nodes).await;
    futures::future::join_all(nodes.iter().map(|node| node.pull("hf:org/large"))).await;
    for node in &nodes {
        node.assert_has("org/large", &file).await;
    }
    let asked = hub.asked();
    let ranges = asked.iter().filter_map(|asked| Some(asked.bytes()?.len()));
    assert_at_most_a_tenth_more(ranges.sum(), file.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_keeps_as_a_recipe_comes_from_there() {
    let [base, variant] = ["base", "variant"].map(|name| models::gguf_sharing(name, 5 << 20));
    let hub = Origin::start(variant.clone(), Manner::Honest).await;
    hub.list(hub_listing("variant.gguf", &variant, Some(models::sha256(&variant))));
    let [one, other] = [listen().await, listen().await];
    let peers = vec![one.1.clone(), other.1.clone()];
    let start = async |(listener, address)| {
        let fleet = FleetConfig { peers: peers.clone(), ..FleetConfig::default() };
        Node::start_at(listener, address, fleet, hub_config(&hub)).await
    };
    let (one, other) = (start(one).await, start(other).await);
    for (file, bytes) in [("base.gguf", &base), ("variant.gguf", &variant)] {
        let file = one._place.write(file, bytes);
        one.registry.import(&file, None, &mut |_| {}).await.expect("imported");
    }
    assert_eq!(one.registry.deduplicate().await.expect("deduplicated").recipes_made, 1);
    let shutdown = helios_runtime::Shutdown::default();
    tokio::join!(one.registry.announce(&shutdown), async { shutdown.trigger() });

    other.pull("hf:org/variant").await;
    other.assert_has("org/variant", &variant).await;
    let asked = hub.asked();
    assert!(asked.iter().all(|asked| !asked.path.contains("resolve")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_without_a_root_is_given_on_when_it_is_whole_and_not_before() {
    let file = models::large_gguf(9 << 20);
    // The first piece comes; the others only when more of them are asked for than there are.
    let hub = Origin::start(file.clone(), Manner::Together(Arc::new(Barrier::new(100)))).await;
    hub.list(hub_listing("large.gguf", &file, Some(models::sha256(&file))));
    let (_nobody, peer) = listen().await;
    let fleet = FleetConfig { peers: vec![peer], ..FleetConfig::default() };
    let node = Node::start(fleet, hub_config(&hub)).await;
    let first = format!("{}/registry/v1/pieces/sha256:{}/0", node.address, models::sha256(&file));
    let ask = async || reqwest::get(&first).await.expect("an answer");
    let mut pull = node.registry.start_pull("hf:org/large", None).await.expect("begun");
    loop {
        match pull.next().await.expect("an event") {
            PullEvent::Progress(progress) if progress.done > 0 => break,
            PullEvent::Progress(_) => {}
            PullEvent::Done(_) => panic!("it was to hang"),
        }
    }
    assert_eq!(ask().await.status(), 404, "its digest is not known to be right");
    drop(pull);
    hub.behave(Manner::Honest);
    node.pull("hf:org/large").await;
    let piece = ask().await.bytes().await.expect("a piece");
    assert!(*piece == file[..2 << 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_download_left_wrong_is_given_to_nobody() {
    let file = models::large_gguf(9 << 20);
    let parent = Node::parent(&file).await;
    let child = parent.child().await;
    let digest = models::sha256(&file);
    // As a power loss leaves it: long enough, and full of holes.
    child._place.write(&format!("store/partial/{digest}"), &vec![0; 8 << 20]);
    let client = reqwest::Client::new();
    let first = format!("{}/registry/v1/pieces/sha256:{digest}/0", child.address);
    let given = async {
        loop {
            let answer = client.get(&first).send().await.expect("an answer");
            if answer.status().is_success() {
                return answer.bytes().await.expect("a piece");
            }
            tokio::task::yield_now().await;
        }
    };
    let (given, ()) = tokio::join!(given, child.pull("org/large:v1"));
    assert!(*given == file[..2 << 20], "a wrong piece");
    child.assert_has("org/large:v1", &file).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_midway_stops_nobody() {
    let file = models::large_gguf(64 << 20);
    let parent = Node::parent(&file).await;
    let mut nodes = futures::future::join_all((0..4).map(|_| parent.child())).await;
    let dying = nodes.pop().expect("a node");
    let death = async {
        let mut pull = dying.registry.start_pull("org/large:v1", None).await.expect("begun");
        loop {
            match pull.next().await.expect("an event") {
                PullEvent::Progress(progress) if progress.done > 0 => break,
                PullEvent::Progress(_) => {}
                PullEvent::Done(_) => panic!("it was to die"),
            }
        }
        dying.server.abort();
        drop(pull);
    };
    let pulls = futures::future::join_all(nodes.iter().map(|node| node.pull("org/large:v1")));
    tokio::join!(death, pulls);
    for node in &nodes {
        node.assert_has("org/large:v1", &file).await;
    }
    // What the dead node had fetched and not passed on is all that comes twice.
    let egress = parent.egress.load(Ordering::Relaxed);
    assert!(egress < 2 * file.len(), "{egress} bytes left the parent");
}

/// A peer that has everything, and none of it right. Returns its address and how often it was asked for a piece.
pub(crate) async fn liar() -> (String, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let (counter, own) = (Arc::clone(&asked), address.clone());
    let router = Router::new().fallback(move |request: Request| {
        let (counter, own) = (Arc::clone(&counter), own.clone());
        async move {
            if request.uri().path().contains("/pieces/") {
                counter.fetch_add(1, Ordering::Relaxed);
                return vec![0_u8; 2 << 20].into_response();
            }
            axum::Json(serde_json::json!({ "peer": own })).into_response()
        }
    });
    serve(listener, router);
    (address, asked)
}

pub(crate) async fn announce(tracker: &str, node: &str, digest: &str) {
    let body = serde_json::json!({ "node": node, "blobs": [digest] });
    let request = reqwest::Client::new().put(format!("{tracker}/registry/v1/holdings")).json(&body);
    assert!(request.send().await.expect("an answer").status().is_success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_peer_is_caught_at_its_first_range_and_the_download_goes_on() {
    let file = models::large_gguf(64 << 20);
    let parent = Node::parent(&file).await;
    let (address, asked) = liar().await;
    announce(&parent.address, &address, &format!("sha256:{}", models::sha256(&file))).await;
    let node = parent.child().await;
    node.pull("org/large:v1").await;
    node.assert_has("org/large:v1", &file).await;
    let asked = asked.load(Ordering::Relaxed);
    assert!(
        (1..=8).contains(&asked),
        "asked {asked} times: the first ranges go out together, none after them"
    );
    assert_at_most_a_tenth_more(parent.egress.load(Ordering::Relaxed), file.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_peer_of_a_blob_without_a_root_is_caught_by_the_digest() {
    let file = models::large_gguf(9 << 20);
    let hub = Origin::start(file.clone(), Manner::Honest).await;
    hub.list(hub_listing("large.gguf", &file, Some(models::sha256(&file))));
    let (address, asked) = liar().await;
    let fleet = FleetConfig { peers: vec![address.clone()], ..FleetConfig::default() };
    let node = Node::start(fleet, hub_config(&hub)).await;
    announce(&node.address, &address, &format!("sha256:{}", models::sha256(&file))).await;
    node.pull("hf:org/large").await;
    node.assert_has("org/large", &file).await;
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn what_is_not_here_comes_from_the_parent_and_stays_when_it_is_gone() {
    let parent = Node::parent(&models::gguf(1.0)).await;
    let other = parent._place.write("other.gguf", &models::gguf(2.0));
    parent.registry.import(&other, Some(name("other:v1")), &mut |_| {}).await.expect("imported");
    let child = parent.child().await;
    child.assert_has("org/large:v1", &models::gguf(1.0)).await;
    let grandchild = child.child().await;
    grandchild.assert_has("org/large:v1", &models::gguf(1.0)).await;
    let other = parent.registry.resolve(&name("other:v1")).await.expect("known");
    assert_eq!(grandchild.registry.manifest(&other.digest).await.expect("through both"), other.manifest);

    parent.server.abort();
    child.assert_has("org/large:v1", &models::gguf(1.0)).await;
    let error = child.registry.resolve(&name("third:v1")).await.expect_err("nobody knows");
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert!(error.to_string().contains("model `third:v1` is not here"), "{error}");
    let client = RegistryClient::new(&child.address, None).expect("a client");
    let error = client.pull("third:v1", None, &mut |_| {}).await.expect_err("nobody knows");
    assert!(error.to_string().contains("keeps working"), "{error}");
}

#[tokio::test]
async fn the_scrubber_fetches_nothing_that_nobody_has_read() {
    let parent = Node::parent(&models::gguf(1.0)).await;
    let by_digest = parent._place.write("other.gguf", &models::gguf(2.0));
    let by_digest = parent.registry.import(&by_digest, None, &mut |_| {}).await.expect("imported").digest;
    let place = Place::new();
    let fleet = FleetConfig { parent: Some(parent.address.clone()), ..FleetConfig::default() };
    let child = place.open_in(fleet.clone(), FetchConfig::default()).await;
    let resolved = child.resolve(&name("org/large:v1")).await.expect("known");
    child.manifest(&by_digest).await.expect("known");
    let tokenizer = resolved.manifest.required(Role::Tokenizer).expect("a tokenizer");
    child.blob(tokenizer).await.expect("read");
    let before = parent.egress();
    drop((resolved, child));
    let child = place.open_in(fleet, FetchConfig::default()).await;
    let report = child.scrub(&FromSource).await.expect("a pass");
    assert_eq!((report.blobs, report.damaged), (1, 0), "{report:?}");
    assert!(report.absent > 3, "{report:?}");
    assert_eq!(parent.egress(), before);
}

#[tokio::test]
async fn a_child_has_its_parent_pull_what_neither_has() {
    let file = models::gguf(1.0);
    let origin = Origin::start(file.clone(), Manner::Honest).await;
    let parent = Node::start(FleetConfig::default(), FetchConfig::default()).await;
    let (first, second) = (parent.child().await, parent.child().await);
    let url = origin.url();
    tokio::join!(first.pull(&url), second.pull(&url));
    for node in [&parent, &first, &second] {
        node.assert_has("tiny", &file).await;
    }
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn parents_in_a_circle_are_an_error_and_not_an_endless_question() {
    let (listener, address) = listen().await;
    let own = FleetConfig { parent: Some(address.clone()), ..FleetConfig::default() };
    let alone = Node::start_at(listener, address, own, FetchConfig::default()).await;
    let error = alone.registry.resolve(&name("x")).await.expect_err("its own parent");
    assert!(error.to_string().contains("form a circle"), "{error}");

    let (listener, address) = listen().await;
    let below = FleetConfig { parent: Some(address.clone()), ..FleetConfig::default() };
    let second = Node::start(below, FetchConfig::default()).await;
    let above = FleetConfig { parent: Some(second.address.clone()), ..FleetConfig::default() };
    let first = Node::start_at(listener, address, above, FetchConfig::default()).await;
    for node in [&first, &second] {
        let error = node.registry.resolve(&name("x")).await.expect_err("a circle");
        assert!(error.to_string().contains("form a circle"), "{error}");
        let error = node.registry.pull("x", None, &mut |_| {}).await.expect_err("a circle");
        assert!(error.to_string().contains("form a circle"), "{error}");
    }
}

#[tokio::test]
async fn the_routes_of_the_fleet_refuse_nonsense() {
    let node = Node::parent(&models::gguf(1.0)).await;
    let client = reqwest::Client::new();
    let unknown = format!("sha256:{}", "0".repeat(64));
    let resolved = node.registry.resolve(&name("org/large:v1")).await.expect("known");
    let known = resolved.manifest.required(Role::Weights).expect("weights").blob.digest;
    for (path, status) in [
        ("pieces/..%2F..%2Fetc%2Fpasswd/0".to_owned(), 400),
        ("pieces/sha256:xyz/0".to_owned(), 400),
        (format!("pieces/{known}/-1"), 400),
        (format!("pieces/{known}/99999999999"), 400),
        (format!("pieces/{unknown}/0"), 404),
        (format!("trees/{unknown}"), 404),
        (format!("pieces/{known}/0"), 200),
    ] {
        let answer =
            client.get(format!("{}/registry/v1/{path}", node.address)).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
}
