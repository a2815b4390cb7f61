//! Models that were pulled from another hub, read by the hub's protocol under the names that they have there.

use std::sync::Arc;

use helios_distribution::hub;
use helios_registry::{FetchConfig, Registry};
use helios_types::ModelRef;
use reqwest::Response;
use serde_json::{Value, json};

use crate::models::{self, Place};
use crate::origin::{Manner, Origin};
use crate::serve;

/// A commit of the other hub.
const THEIRS: &str = "0123456789012345678901234567890123456789";

struct Mirror {
    registry: Arc<Registry>,
    bytes: Vec<u8>,
    url: String,
    _place: Place,
}

impl Mirror {
    /// With that source pulled from a hub which has `tiny.gguf` in every repository.
    async fn of(spec: &str) -> (Self, ModelRef) {
        let bytes = models::gguf(1.0);
        let origin = Origin::start(bytes.clone(), Manner::Honest).await;
        let lfs = json!({ "sha256": models::sha256(&bytes), "size": bytes.len() });
        let siblings = json!([{ "rfilename": "tiny.gguf", "size": bytes.len(), "lfs": lfs }]);
        origin.list(json!({ "sha": THEIRS, "siblings": siblings }));
        let place = Place::new();
        let fetch = FetchConfig { hub_url: origin.address.clone(), ..FetchConfig::default() };
        let registry = place.open_with(fetch).await;
        let pulled = registry.pull(spec, None, &mut |_| {}).await.expect("pulled");
        let url = serve(hub::router(Arc::clone(&registry), hub::Limits::default())).await;
        (Self { registry, bytes, url, _place: place }, pulled.reference)
    }

    async fn get(&self, path: &str) -> Response {
        reqwest::get(format!("{}{path}", self.url)).await.expect("an answer")
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.expect("JSON")
    }

    async fn assert_served(&self, revision: &str) {
        let about = self.json(&format!("/api/models/org/repo/revision/{revision}?blobs=true")).await;
        assert_eq!(
            (&about["id"], &about["siblings"][0]["rfilename"]),
            (&json!("org/repo"), &json!("tiny.gguf"))
        );
        let tree = self.json(&format!("/api/models/org/repo/tree/{revision}")).await;
        assert_eq!(tree[0]["lfs"]["oid"], models::sha256(&self.bytes));
        let file = self.get(&format!("/org/repo/resolve/{revision}/tiny.gguf")).await;
        assert_eq!(file.headers()["x-repo-commit"], about["sha"].as_str().expect("a commit"));
        assert!(*file.bytes().await.expect("bytes") == *self.bytes, "{revision}");
    }
}

#[tokio::test]
async fn a_model_is_read_under_its_own_name() {
    let (mirror, name) = Mirror::of("hf:org/repo").await;
    assert_eq!(name.to_string(), "org/repo:latest");
    for revision in ["main", "latest"] {
        mirror.assert_served(revision).await;
    }
    let listed = mirror.json("/api/models").await;
    assert_eq!(listed[0]["id"], "org/repo");
}

/// Clients pin models by commits, and a model that is pulled at one has it as its tag.
#[tokio::test]
async fn a_commit_of_the_other_hub_is_a_revision() {
    let (mirror, name) = Mirror::of(&format!("hf:org/repo@{THEIRS}")).await;
    assert_eq!(name.tag(), THEIRS);
    let refs = mirror.json("/api/models/org/repo/refs").await;
    assert_eq!(refs["tags"][0]["name"], THEIRS);
    let ours = refs["tags"][0]["targetCommit"].as_str().expect("a commit");
    for revision in [THEIRS, ours, "main"] {
        mirror.assert_served(revision).await;
    }
    assert_eq!(
        mirror.get("/api/models/org/repo/revision/0000000000000000000000000000000000000000").await.status(),
        404
    );
    assert_eq!(mirror.registry.list().await.expect("a list").len(), 1);
}
