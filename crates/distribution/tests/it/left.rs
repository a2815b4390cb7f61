//! Files that left the store and could be fetched again: questions about them wait for nothing, reads fetch them, and they
//! are in no version's way.

use std::sync::Arc;

use helios_distribution::{hub, oci};
use helios_model::{FileEntry, Role};
use helios_registry::{FetchConfig, FleetConfig, Registry, http};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::models::{self, Place};
use crate::origin::{Manner, Origin};
use crate::serve;

/// The model `org/away:v1` from a web server, its weights not here.
struct Away {
    registry: Arc<Registry>,
    origin: Origin,
    bytes: Vec<u8>,
    weights: FileEntry,
    hub: String,
    oci: String,
    _place: Place,
}

impl Away {
    async fn start() -> Self {
        let place = Place::new();
        let registry = place.open_with(FetchConfig { attempts_max: 1, ..FetchConfig::default() }).await;
        let bytes = models::gguf(1.0);
        let origin = Origin::start(bytes.clone(), Manner::Honest).await;
        let name = "org/away:v1".parse().expect("a name");
        let pulled = registry.pull(&origin.url(), Some(name), &mut |_| {}).await.expect("pulled");
        let weights = pulled.manifest.required(Role::Weights).expect("weights").clone();
        let hub = serve(hub::router(Arc::clone(&registry), hub::Limits::default())).await;
        let oci = serve(oci::router(Arc::clone(&registry))).await;
        let away = Self { registry, origin, bytes, weights, hub, oci, _place: place };
        away.leave();
        away
    }

    /// As the tiers have it leave when room is short.
    fn leave(&self) {
        self.registry.blobs().remove(&self.weights.blob.digest).expect("removed");
    }

    fn is_here(&self) -> bool {
        self.registry.blobs().contains(&self.weights.blob.digest)
    }

    fn asked(&self) -> usize {
        self.origin.asked().len()
    }

    fn hub_file(&self, repository: &str, revision: &str) -> String {
        format!("{}/{repository}/resolve/{revision}/{}", self.hub, self.weights.path)
    }

    fn oci_blob(&self) -> String {
        format!("{}/v2/org/away/blobs/{}", self.oci, self.weights.blob.digest)
    }

    async fn commit(&self, repository: &str, revision: &str, line: &Value) -> Response {
        let url = format!("{}/api/models/{repository}/commit/{revision}", self.hub);
        let request = Client::new().post(url).header("content-type", "application/x-ndjson");
        request.body(line.to_string()).send().await.expect("an answer")
    }

    /// What the batch call of LFS says of the weights.
    async fn batch(&self) -> Value {
        let object = json!({ "oid": self.weights.blob.digest.hex(), "size": self.bytes.len() });
        let url = format!("{}/org/other.git/info/lfs/objects/batch", self.hub);
        let body = json!({ "operation": "upload", "objects": [object] });
        let answer = Client::new().post(url).json(&body).send().await.expect("an answer");
        answer.json::<Value>().await.expect("JSON")["objects"][0].clone()
    }

    /// A line of a commit that names the weights.
    fn copy(&self) -> Value {
        let oid = self.weights.blob.digest.hex();
        json!({ "key": "lfsFile", "value": { "path": self.weights.path, "algo": "sha256", "oid": oid } })
    }
}

async fn call(method: Method, url: &str, header: Option<(&str, &str)>) -> Response {
    let request = Client::new().request(method, url);
    let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    request.send().await.expect("an answer")
}

fn readme() -> Value {
    json!({ "key": "file", "value": { "content": "IyBIaQ==", "path": "README.md", "encoding": "base64" } })
}

#[tokio::test]
async fn questions_about_a_file_fetch_nothing_and_a_read_fetches_it() {
    let away = Away::start().await;
    let asked = away.asked();
    let (size, tag) = (away.bytes.len().to_string(), format!("\"{}\"", away.weights.blob.digest.hex()));
    for url in [away.hub_file("org/away", "v1"), away.oci_blob()] {
        let head = call(Method::HEAD, &url, None).await;
        assert_eq!(head.status(), 200, "{url}");
        for (name, value) in [("content-length", &size), ("etag", &tag)] {
            assert_eq!(head.headers()[name], **value, "{name} of {url}");
        }
        assert_eq!(call(Method::GET, &url, Some(("if-none-match", &tag))).await.status(), 304, "{url}");
        let behind = format!("bytes={size}-");
        assert_eq!(call(Method::GET, &url, Some(("range", &behind))).await.status(), 416, "{url}");
    }
    let head = call(Method::HEAD, &away.hub_file("org/away", "v1"), None).await;
    for (name, value) in [("x-linked-size", &size), ("x-linked-etag", &tag)] {
        assert_eq!(head.headers()[name], **value, "{name}");
    }
    assert!(!away.is_here() && away.asked() == asked, "nothing was fetched");

    for url in [away.hub_file("org/away", "v1"), away.oci_blob()] {
        let part = call(Method::GET, &url, Some(("range", "bytes=10-99"))).await;
        assert_eq!(part.status(), 206, "{url}");
        assert_eq!(*part.bytes().await.expect("bytes"), away.bytes[10..100], "{url}");
        assert!(away.is_here(), "{url}");
        away.leave();
    }
}

#[tokio::test]
async fn a_commit_brings_back_what_its_version_keeps_or_names() {
    let away = Away::start().await;
    assert_eq!(away.commit("org/away", "v1", &readme()).await.status(), 200);
    assert!(away.is_here());
    away.leave();
    assert_eq!(away.commit("org/copy", "main", &away.copy()).await.status(), 200);
    // The newest version with the weights was pushed; what they can be fetched from is the source of the first.
    away.leave();
    for url in [away.hub_file("org/away", "v1"), away.hub_file("org/copy", "main")] {
        let whole = call(Method::GET, &url, None).await.bytes().await.expect("bytes");
        assert!(*whole == *away.bytes, "{url}");
    }
}

#[tokio::test]
async fn what_is_nowhere_any_more_can_be_sent_again() {
    let away = Away::start().await;
    away.origin.behave(Manner::Status(404));
    assert_eq!(away.commit("org/other", "main", &away.copy()).await.status(), 502);
    let object = away.batch().await;
    let upload = object["actions"]["upload"]["href"].as_str().expect("a place to send it to");
    let sent = Client::new().put(upload).body(away.bytes.clone()).send().await.expect("an answer");
    assert_eq!(sent.status(), 200);
    assert!(away.batch().await.get("actions").is_none(), "it is here");
    assert_eq!(away.commit("org/other", "main", &away.copy()).await.status(), 200);
}

#[tokio::test]
async fn a_push_by_oci_brings_back_what_it_names() {
    let away = Away::start().await;
    let client = Client::new();
    let digest = format!("sha256:{}", models::sha256(b"{}"));
    let config = client.post(format!("{}/v2/org/pushed/blobs/uploads/?digest={digest}", away.oci)).body("{}");
    assert_eq!(config.send().await.expect("an answer").status(), 201);
    assert_eq!(call(Method::HEAD, &away.oci_blob(), None).await.status(), 200, "nobody sends it");
    let title = json!({ "org.opencontainers.image.title": "m.gguf" });
    let layer = json!({
        "mediaType": "a/b", "digest": away.weights.blob.digest.to_string(), "size": away.bytes.len(),
        "annotations": title,
    });
    let config = json!({ "mediaType": "a/b", "digest": digest, "size": 2 });
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let push = client.put(format!("{}/v2/org/pushed/manifests/v1", away.oci)).body(manifest.to_string());
    let push = push.header("content-type", "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(push.send().await.expect("an answer").status(), 201);
    assert!(away.is_here());
}

/// A client that has it sends it again.
#[tokio::test]
async fn what_is_lost_and_nowhere_else_is_missing() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::gguf(1.0));
    let imported = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    let weights = imported.manifest.required(Role::Weights).expect("weights").blob.digest;
    let url = serve(oci::router(Arc::clone(&registry))).await;
    let blob = format!("{url}/v2/tiny/blobs/{weights}");
    assert_eq!(call(Method::HEAD, &blob, None).await.status(), 200);
    registry.blobs().remove(&weights).expect("removed");
    assert_eq!(call(Method::HEAD, &blob, None).await.status(), 404);
}

/// Where a mount would need the bytes and they are not here, the client is asked for them.
#[tokio::test]
async fn a_mount_of_what_left_becomes_an_upload() {
    let away = Away::start().await;
    let mount = format!("{}/v2/org/other/blobs/uploads/?mount={}", away.oci, away.weights.blob.digest);
    assert_eq!(call(Method::POST, &mount, None).await.status(), 202);
}

/// A child knows a version of its parent before it has any file of it.
#[tokio::test]
async fn every_file_of_a_parents_version_is_to_be_had_from_its_child() {
    let (above, below) = (Place::new(), Place::new());
    let parent = above.open().await;
    models::hugging_face(&above.path("tiny"), 1);
    parent.import(&above.path("tiny"), None, &mut |_| {}).await.expect("imported");
    let address = serve(http::router(Arc::clone(&parent))).await;
    let fleet = FleetConfig { parent: Some(address), ..FleetConfig::default() };
    let child = below.open_in(fleet, FetchConfig::default()).await;
    let version = child.resolve(&"tiny".parse().expect("a name")).await.expect("known above").manifest;
    let url = serve(oci::router(Arc::clone(&child))).await;
    for file in version.files.iter().filter(|file| !helios_model::is_derived(&file.path)) {
        assert!(!child.blobs().contains(&file.blob.digest), "{}", file.path);
        let blob = format!("{url}/v2/tiny/blobs/{}", file.blob.digest);
        assert_eq!(call(Method::HEAD, &blob, None).await.status(), 200, "{}", file.path);
        let bytes = call(Method::GET, &blob, None).await.bytes().await.expect("bytes");
        assert_eq!(models::sha256(&bytes), file.blob.digest.hex(), "{}", file.path);
    }
}
