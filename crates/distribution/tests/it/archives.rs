//! Archives of what was pushed.

use std::sync::Arc;

use futures::StreamExt;
use helios_distribution::oci;
use helios_model::Role;
use helios_registry::Registry;
use helios_types::ModelRef;
use serde_json::json;

use crate::models::{self, Place};
use crate::serve;

/// Pushes an artifact as `pushed:v1`; the bytes of its manifest.
async fn push_artifact(registry: &Arc<Registry>) -> Vec<u8> {
    let url = serve(oci::router(Arc::clone(registry))).await;
    let client = reqwest::Client::new();
    let mut descriptors = Vec::new();
    for bytes in [b"{}".to_vec(), models::gguf(2.0)] {
        let digest = format!("sha256:{}", models::sha256(&bytes));
        let request = client.post(format!("{url}/v2/pushed/blobs/uploads/?digest={digest}"));
        descriptors.push(json!({ "mediaType": "a/b", "digest": digest, "size": bytes.len() }));
        assert_eq!(request.body(bytes).send().await.expect("an answer").status(), 201);
    }
    descriptors[1]["annotations"] = json!({ "org.opencontainers.image.title": "m.gguf" });
    let manifest =
        json!({ "schemaVersion": 2, "config": descriptors[0], "layers": [descriptors[1]], "note": "kept" });
    let bytes = manifest.to_string().into_bytes();
    let request = client.put(format!("{url}/v2/pushed/manifests/v1"));
    let request = request.header("content-type", "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(request.body(bytes.clone()).send().await.expect("an answer").status(), 201);
    bytes
}

/// What clients pushed over OCI comes back byte for byte after it was in an archive, too.
#[tokio::test]
async fn pushed_artifacts_stay_what_they_were() {
    let (from, to) = (Place::new(), Place::new());
    let registry = from.open().await;
    let pushed = push_artifact(&registry).await;
    let name: ModelRef = "pushed:v1".parse().expect("a name");
    let archive = registry.archive(std::slice::from_ref(&name)).await.expect("an archive");
    let there = to.open().await;
    let pieces = archive.read(0..archive.size()).map(|piece| Ok(piece.expect("bytes")));
    there.import_archive(pieces.boxed(), &mut |_| {}).await.expect("imported");
    let manifest = there.resolve(&name).await.expect("pushed").manifest;
    let kept = there.blob(manifest.file(Role::OciManifest).expect("it is a file")).await.expect("kept");
    assert_eq!(*kept, *pushed);
    let url = serve(oci::router(there)).await;
    let pulled = reqwest::get(format!("{url}/v2/pushed/manifests/v1")).await.expect("an answer");
    assert_eq!(*pulled.bytes().await.expect("bytes"), *pushed);
}
