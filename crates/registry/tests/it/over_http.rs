//! The HTTP routes through the client, and what they refuse.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use helios_model::Role;
use helios_registry::{ModelStore, Registry, RegistryClient, RegistryError, http};
use helios_storage::Tiers;
use helios_types::{Classify, ErrorCode, ModelRef};

use crate::membership::worker;
use crate::models::{self, Place};

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

#[allow(clippy::disallowed_methods, reason = "a server that ends with its test")]
pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn registry_with_model(place: &Place) -> (Arc<Registry>, RegistryClient) {
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::gguf(1.0));
    registry.import(&file, Some(name("org/tiny:v1")), &mut |_| {}).await.expect("imported");
    let address = serve(http::router(Arc::clone(&registry))).await;
    (registry, RegistryClient::new(&address, None).expect("a client"))
}

#[tokio::test]
async fn everything_the_store_does_can_be_asked_over_http() {
    let place = Place::new();
    let (registry, client) = registry_with_model(&place).await;
    let model = client.model(&name("org/tiny:v1")).await.expect("a model");
    let local = registry.resolve(&name("org/tiny:v1")).await.expect("resolved");
    assert_eq!((model.resolved.digest, &*model.resolved.manifest), (local.digest, &*local.manifest));
    assert_eq!(model.history, registry.history(&name("org/tiny:v1")).await.expect("history"));
    assert_eq!(client.manifest(&local.digest).await.expect("a manifest"), local.manifest);
    assert_eq!(client.list().await.expect("a list"), registry.list().await.expect("a list"));

    assert_eq!(client.profile(&local.digest).await.ok(), local.manifest.profile);
    let stranger = format!("sha256:{:064x}", 7).parse().expect("a digest");
    assert_eq!(client.profile(&stranger).await.expect_err("unknown").code(), ErrorCode::NotFound);

    let other = place.write("other.gguf", &models::gguf(2.0));
    let mut reports = 0;
    let spec = format!("file:{}", other.display());
    let pulled = client.pull(&spec, Some(name("other:v2")), &mut |_| reports += 1).await.expect("pulled");
    assert_eq!(pulled.digest, registry.resolve(&name("other:v2")).await.expect("resolved").digest);
    client.tag(&name("other:v2"), &name("other:v3")).await.expect("tagged");
    client.remove(&name("other:v2")).await.expect("removed");
    assert_eq!(client.gc().await.expect("collected").manifests_removed, 0);
    let error = client.resolve(&name("other:v2")).await.expect_err("gone");
    assert_eq!(error.code(), ErrorCode::ModelNotFound);
    let RegistryError::Remote { hint, .. } = &error else { panic!("{error:?}") };
    assert!(hint.is_some() && error.to_string().contains("did you mean `other:v3`"), "{error}");
    let error = client.pull("hf:../evil", None, &mut |_| {}).await.expect_err("no source");
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
    let missing = format!("file:{}", place.path("missing.gguf").display());
    let error = client.pull(&missing, None, &mut |_| {}).await.expect_err("no file");
    assert_eq!(error.code(), ErrorCode::NotFound, "{error}");
}

#[tokio::test]
async fn blobs_come_verified_by_map_on_this_host_and_by_download_elsewhere() {
    let place = Place::new();
    let (registry, client) = registry_with_model(&place).await;
    let near = ModelStore::remote(client.clone(), &place.path("near")).expect("a store");
    let resolved = near.resolve(&name("org/tiny:v1")).await.expect("resolved");
    let weights = near.derived_bytes(&resolved.manifest, Role::Weights).await.expect("weights");
    assert!(*weights == *models::gguf(1.0));
    let cached =
        |folder: &str| fs::read_dir(place.path(folder).join("blobs/sha256")).expect("a cache").count();
    assert_eq!(cached("near"), 0);

    let far = Tiers::open(&place.path("far"), Vec::new()).expect("a cache");
    for file in &resolved.manifest.files {
        let blob = client.blob(file.blob, &far).await.expect(&file.path);
        assert!(*blob == *registry.blob(file).await.expect("the original"));
    }
    assert!(cached("far") > 0);
}

#[tokio::test]
async fn a_partial_blob_is_finished_with_a_range() {
    let place = Place::new();
    let (registry, client) = registry_with_model(&place).await;
    let resolved = registry.resolve(&name("org/tiny:v1")).await.expect("resolved");
    let info = resolved.manifest.required(Role::Weights).expect("weights").blob;
    let far = Tiers::open(&place.path("far"), Vec::new()).expect("a cache");
    let mut writer = far.writer(&info.digest.hex(), None).expect("a writer");
    writer.write(&models::gguf(1.0)[..1000]).expect("written");
    drop(writer);
    assert!(*client.blob(info, &far).await.expect("the rest") == *models::gguf(1.0));
    // Wrong bytes of an earlier attempt are found out and cost only themselves.
    let elsewhere = Tiers::open(&place.path("elsewhere"), Vec::new()).expect("a cache");
    let mut writer = elsewhere.writer(&info.digest.hex(), None).expect("a writer");
    writer.write(&[9; 1000]).expect("written");
    drop(writer);
    assert!(*client.blob(info, &elsewhere).await.expect("begun again") == *models::gguf(1.0));
}

#[tokio::test]
async fn leases_are_kept_and_waited_for_over_http() {
    let place = Place::new();
    let (registry, client) = registry_with_model(&place).await;
    client.renew(&worker("w/1"), Duration::from_secs(60)).await.expect("renewed");
    let snapshot = client.members(None, Duration::ZERO).await.expect("members");
    assert_eq!(snapshot.workers, [worker("w/1")]);
    let same = client.members(Some(snapshot.version), Duration::from_millis(10)).await.expect("members");
    assert_eq!(same, snapshot);
    let (next, ()) = tokio::join!(client.members(Some(snapshot.version), Duration::from_secs(20)), async {
        client.leave("w/1").await.expect("left");
    });
    assert!(next.expect("members").workers.is_empty());
    assert!(registry.members().snapshot().workers.is_empty());
}

#[tokio::test]
async fn requests_that_a_page_could_send_or_that_make_no_sense_are_refused_in_json() {
    let place = Place::new();
    let address = serve(http::router(place.open().await)).await;
    let url = |path: &str| format!("{address}/registry/v1/{path}");
    let client = reqwest::Client::new();
    let digest = format!("blobs/sha256:{}", "0".repeat(64));
    let cases = [
        (client.post(url("gc")).body("{}"), 415, "unsupported_media_type"),
        (
            client.post(url("pull")).header("content-type", "text/plain").body("{}"),
            415,
            "unsupported_media_type",
        ),
        (
            client.post(url("pull")).header("content-type", "application/json").body("{"),
            400,
            "invalid_request",
        ),
        (
            client.post(url("tag")).header("content-type", "application/json").body(vec![b' '; 2 << 20]),
            413,
            "payload_too_large",
        ),
        (client.get(url("model?model=../x")), 400, "invalid_request"),
        (client.get(url("model?model=none")), 404, "model_not_found"),
        (client.get(url("blobs/..%2F..%2Fetc%2Fpasswd")), 400, "invalid_request"),
        (client.get(url(&digest)), 404, "not_found"),
        (client.get(url("no/such/route")), 404, "not_found"),
        (client.put(url("models")), 405, "method_not_allowed"),
    ];
    for (request, status, code) in cases {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), status, "{code}");
        let body: serde_json::Value = response.json().await.expect("JSON");
        assert_eq!(body["error"]["code"], code, "{body}");
    }
}
