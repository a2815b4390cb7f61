//! What others may send to harm: registries and peers that lie, stall or never end, names that lead elsewhere, digests
//! that are none, things that refer to each other. What origins do is in `downloads`, what clients send in the tests
//! of `distribution`, wheels are in `packages`, model files in the tests of `storage`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures::{StreamExt, stream};
use helios_model::Role;
use helios_registry::{FetchConfig, FleetConfig, RegistryClient, Secret, http};
use helios_runtime::Clock;
use helios_storage::{BlobInfo, BlobStore};
use helios_types::{Classify, Digest, ErrorCode};
use serde_json::json;

use crate::downloads::hub_config;
use crate::fleet::{Node, announce, listen, name, serve};
use crate::models::{self, Place};
use crate::origin::{Manner, Origin, moment};

/// How somebody answers whatever is asked.
#[derive(Clone, Debug)]
enum Answer {
    Redirect(String),
    Compressed,
    Endless,
    Silent,
    /// Says nothing after the first byte.
    Stalls,
    /// A byte now and then.
    Drips,
    Garbage,
    /// So many bytes.
    Bytes(usize),
}

fn endless() -> Body {
    let chunk = Bytes::from(vec![b' '; 1 << 20]);
    Body::from_stream(stream::repeat(chunk).map(Ok::<_, std::convert::Infallible>))
}

async fn respond(answer: Answer) -> Response {
    match answer {
        Answer::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response(),
        Answer::Compressed => ([(header::CONTENT_ENCODING, "gzip")], vec![0; 100]).into_response(),
        Answer::Endless => endless().into_response(),
        Answer::Silent => std::future::pending().await,
        Answer::Stalls => {
            let first = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b" "))]);
            Body::from_stream(first.chain(stream::pending())).into_response()
        }
        Answer::Drips => {
            let drops = stream::repeat(()).then(|()| async {
                moment().await;
                Ok::<_, std::convert::Infallible>(Bytes::from_static(b" "))
            });
            Body::from_stream(drops).into_response()
        }
        Answer::Garbage => "no registry".into_response(),
        Answer::Bytes(length) => vec![7_u8; length].into_response(),
    }
}

/// Somebody who answers so; returns the address and how often it was asked.
async fn somebody(answer: Answer) -> (String, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let asked = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&asked);
    serve(
        listener,
        Router::new().fallback(move |_: Request| {
            counter.fetch_add(1, Ordering::Relaxed);
            respond(answer.clone())
        }),
    );
    (address, asked)
}

/// What is given up by itself and not by somebody's much longer time limit.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    Clock.timeout(Duration::from_secs(30), work).await.expect("given up in time")
}

fn digest_of(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

#[tokio::test]
async fn a_registry_that_answers_nonsense_is_told_from_one() {
    helios_runtime::install_tls_provider();
    let (elsewhere, asked_elsewhere) = somebody(Answer::Garbage).await;
    for (answer, problem) in [
        (Answer::Redirect(elsewhere), "status 307"),
        (Answer::Compressed, "content encoding \"gzip\", which was not asked for"),
        (Answer::Endless, "an answer over 16777216 bytes"),
        (Answer::Garbage, "no registry's answer"),
    ] {
        let (address, _) = somebody(answer.clone()).await;
        let token = Secret::from("cluster-token".to_owned());
        let client = RegistryClient::new(&address, Some(&token)).expect("a client");
        let error = client.model(&name("m")).await.expect_err("no registry");
        let text = error.to_string();
        assert_eq!(error.code(), ErrorCode::Unavailable, "{text}");
        assert!(text.contains(problem) && text.contains("hint: check its address"), "{answer:?}: {text}");
        if matches!(answer, Answer::Endless | Answer::Compressed) {
            let text = client.manifest(&digest_of(1)).await.expect_err("no manifest").to_string();
            assert!(text.contains(problem), "{answer:?}: {text}");
        }
    }
    assert_eq!(asked_elsewhere.load(Ordering::Relaxed), 0, "no redirect of a registry is followed");
}

#[tokio::test]
async fn a_manifest_of_another_digest_is_refused() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::gguf(1.0));
    let imported = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    let (listener, address) = listen().await;
    let body = json!({
        "model": "tiny:latest", "digest": digest_of(3), "manifest": *imported.manifest, "history": [], "stores": [],
    });
    let bytes = imported.manifest.to_bytes();
    let answer = move |request: Request| {
        let (body, bytes) = (body.clone(), bytes.clone());
        async move {
            match request.uri().path().contains("/manifests/") {
                true => bytes.into_response(),
                false => Json(body).into_response(),
            }
        }
    };
    serve(listener, Router::new().fallback(answer));
    let client = RegistryClient::new(&address, None).expect("a client");
    for error in [
        client.resolve(&name("tiny")).await.expect_err("another digest"),
        client.manifest(&digest_of(3)).await.expect_err("another digest"),
    ] {
        assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
        assert!(error.to_string().contains("its bytes have digest sha256:"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stalls_redirects_or_sends_too_much_or_too_little_is_left_alone() {
    let file = models::large_gguf(9 << 20);
    let parent = Node::parent(&file).await;
    let digest = format!("sha256:{}", models::sha256(&file));
    let (elsewhere, asked_elsewhere) = somebody(Answer::Garbage).await;
    for answer in [
        Answer::Silent,
        Answer::Stalls,
        Answer::Drips,
        Answer::Redirect(elsewhere),
        Answer::Compressed,
        Answer::Endless,
        Answer::Bytes(0),
        Answer::Bytes((4 << 20) - 1),
        Answer::Bytes((4 << 20) + 1),
    ] {
        let (peer, asked) = somebody(answer.clone()).await;
        announce(&parent.address, &peer, &digest).await;
        let fleet = FleetConfig { parent: Some(parent.address.clone()), ..FleetConfig::default() };
        // Long enough for an honest piece, short enough for a test.
        let fetch = FetchConfig { stall_timeout: Duration::from_secs(2), ..FetchConfig::default() };
        let node = Node::start(fleet, fetch).await;
        soon(node.pull("org/large:v1")).await;
        node.assert_has("org/large:v1", &file).await;
        let asked = asked.load(Ordering::Relaxed);
        assert!((1..=3).contains(&asked), "{answer:?}: asked {asked} times for three pieces");
    }
    assert_eq!(asked_elsewhere.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_that_says_nothing_is_done_without() {
    let file = models::large_gguf(9 << 20);
    let hub = Origin::start(file.clone(), Manner::Honest).await;
    hub.list(crate::downloads::hub_listing("large.gguf", &file, Some(models::sha256(&file))));
    let (tracker, asked) = somebody(Answer::Silent).await;
    let fleet = FleetConfig { peers: vec![tracker], ..FleetConfig::default() };
    let place = Place::new();
    let registry = place.open_in(fleet, hub_config(&hub)).await;
    soon(registry.pull("hf:org/large", None, &mut |_| {})).await.expect("pulled without it");
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_hub_that_answers_compressed_or_without_end_is_refused() {
    let place = Place::new();
    for (answer, problem) in [
        (Answer::Compressed, "content encoding \"gzip\""),
        (Answer::Endless, "an answer over"),
        (Answer::Garbage, ""),
    ] {
        let (address, _) = somebody(answer.clone()).await;
        let fetch = FetchConfig { hub_url: address, attempts_max: 1, ..FetchConfig::default() };
        let registry = place.open_with(fetch).await;
        let text = registry.pull("hf:org/repo", None, &mut |_| {}).await.expect_err("no hub").to_string();
        assert!(text.contains("sent something wrong") && text.contains(problem), "{answer:?}: {text}");
        assert!(text.contains("hint: "), "{answer:?}: {text}");
        assert!(registry.list().await.expect("a list").is_empty());
    }
}

#[tokio::test]
async fn a_hub_that_is_silent_stalls_or_drips_is_given_up() {
    let place = Place::new();
    for (answer, problem) in
        [(Answer::Silent, "it stalled"), (Answer::Stalls, "it stalled"), (Answer::Drips, "it drips")]
    {
        let (address, _) = somebody(answer.clone()).await;
        let fetch = FetchConfig { hub_url: address, attempts_max: 1, ..FetchConfig::default() };
        let registry = place.open_with(fetch).await;
        let pulled = soon(registry.pull("hf:org/repo", None, &mut |_| {})).await;
        let text = pulled.expect_err("no hub").to_string();
        assert!(text.contains(problem), "{answer:?}: {text}");
    }
}

#[tokio::test]
async fn what_is_no_digest_is_refused_by_every_route_that_takes_one() {
    let place = Place::new();
    let (listener, address) = listen().await;
    serve(listener, http::router(place.open().await));
    let client = reqwest::Client::new();
    let hex = "0".repeat(64);
    let none = [
        "sha256:".to_owned(),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha256:{}g", &hex[1..]),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha512:{hex}"),
        format!("SHA256:{hex}"),
        hex.clone(),
        "..%2F..%2Fmetadata.db".to_owned(),
        format!("sha256:..%2F{}", &hex[3..]),
        format!("sha256:{}%00", &hex[1..]),
    ];
    for route in ["manifests/DIGEST", "blobs/DIGEST", "trees/DIGEST", "pieces/DIGEST/0", "profiles/DIGEST"] {
        for bad in &none {
            let url = format!("{address}/registry/v1/{}", route.replace("DIGEST", bad));
            let answer = client.get(&url).send().await.expect("an answer");
            assert_eq!(answer.status(), 400, "{url}");
            let text = answer.text().await.expect("text");
            assert!(text.contains("is not a digest: expected `sha256:` and 64"), "{url}: {text}");
        }
        let url = format!("{address}/registry/v1/{}", route.replace("DIGEST", &format!("sha256:{hex}")));
        assert_eq!(client.get(&url).send().await.expect("an answer").status(), 404, "{url}");
    }
}

/// Every file below a folder.
fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn names_of_tensors_never_become_paths() {
    let place = Place::new();
    let registry = place.open().await;
    let folder = place.path("model");
    models::hugging_face(&folder, 1);
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).expect("the weights");
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
    let mut header: serde_json::Value =
        serde_json::from_slice(&bytes[8..8 + header_bytes]).expect("a header");
    let end = bytes.len() - 8 - header_bytes;
    let evil = ["../../../evil", "/tmp/helios-evil", "a/../../evil", "..\\evil", "evil\u{0}"];
    for (index, tensor) in evil.iter().enumerate() {
        let at = end + 4 * index;
        header[*tensor] = json!({ "dtype": "F32", "shape": [1], "data_offsets": [at, at + 4] });
    }
    let mut text = header.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text);
    file.extend(&bytes[8 + header_bytes..]);
    file.extend(vec![0; 4 * evil.len()]);
    fs::write(&path, file).expect("written");
    let before = files_below(&folder);
    // Whether such a model is taken is not the question; what is done with it stays in the store's own names.
    let imported = registry.import(&folder, None, &mut |_| {}).await;
    registry.deduplicate().await.expect("deduplicated");
    drop(registry.pull("convert:model#gguf", None, &mut |_| {}).await);
    for path in files_below(&place.path("")) {
        let known = path.starts_with(place.store()) || before.contains(&path);
        assert!(known && !path.to_string_lossy().contains("evil"), "{}", path.display());
    }
    if let Ok(imported) = imported {
        registry.derived_bytes(&imported.manifest, Role::Weights).await.expect("read back");
    }
}

#[tokio::test]
async fn recipes_that_refer_to_each_other_are_an_error_and_not_an_endless_search() {
    let place = Place::new();
    drop(place.open().await);
    let blob = |number: u8| BlobInfo { digest: digest_of(number), blake3: [number; 32], size: 100 };
    let recipe = |whole: u8, part: u8| {
        let parts = json!([{ "blob": digest_of(part), "offset": 0, "length": 100 }]);
        let text =
            json!({ "schema": 1, "whole": blob(whole), "own": blob(part), "parts": parts }).to_string();
        let folder = place.store().join("recipes");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("{}.json", digest_of(whole).hex())), text).expect("a recipe");
    };
    recipe(1, 2);
    recipe(2, 1);
    recipe(3, 3);
    let store = BlobStore::open(&place.store()).expect("a store");
    for number in 1..=3 {
        let error = store.open_file(&blob(number)).expect_err("a circle").to_string();
        assert!(error.contains(&digest_of(number).hex()) || error.contains("sha256:"), "{error}");
    }
    drop(store);
    let registry = place.open().await;
    registry.gc().await.expect("a collection ends");
    assert_eq!(
        fs::read_dir(place.store().join("recipes")).expect("a folder").count(),
        0,
        "nothing needs them"
    );
}
