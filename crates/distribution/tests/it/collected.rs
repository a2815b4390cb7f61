//! What clients sent is garbage like anything else once no version names it.

use std::fs;
use std::sync::Arc;

use helios_distribution::{hub, oci};
use reqwest::Client;
use serde_json::json;

use crate::models::{self, Place};
use crate::serve;

fn blobs(place: &Place) -> usize {
    fs::read_dir(place.store().join("blobs/sha256")).expect("blobs").count()
}

#[tokio::test]
async fn what_was_sent_by_lfs_goes_with_its_repository() {
    let place = Place::new();
    let registry = place.open().await;
    let url = serve(hub::router(Arc::clone(&registry), hub::Limits::default())).await;
    let client = Client::new();
    let oid = models::sha256(b"sent");
    let sent = client.put(format!("{url}/api/models/org/made/lfs/{oid}")).body("sent");
    assert_eq!(sent.send().await.expect("an answer").status(), 200);
    registry.gc().await.expect("collected");
    assert_eq!(blobs(&place), 1, "it waits for its commit");
    let line = json!({ "key": "lfsFile", "value": { "path": "a", "algo": "sha256", "oid": oid } });
    let commit = client.post(format!("{url}/api/models/org/made/commit/main")).body(line.to_string());
    assert_eq!(commit.send().await.expect("an answer").status(), 200);
    let name = json!({ "name": "made", "organization": "org", "type": "model" });
    let gone = client.delete(format!("{url}/api/repos/delete")).json(&name);
    assert_eq!(gone.send().await.expect("an answer").status(), 200);
    registry.gc().await.expect("collected");
    assert_eq!(blobs(&place), 0);
}

#[tokio::test]
async fn what_was_pushed_by_oci_goes_with_its_tag() {
    let place = Place::new();
    let registry = place.open().await;
    let url = serve(oci::router(Arc::clone(&registry))).await;
    let client = Client::new();
    let mut descriptors = Vec::new();
    for bytes in [b"{}".to_vec(), models::gguf(1.0)] {
        let digest = format!("sha256:{}", models::sha256(&bytes));
        descriptors.push(json!({ "mediaType": "a/b", "digest": digest, "size": bytes.len() }));
        let sent = client.post(format!("{url}/v2/made/blobs/uploads/?digest={digest}")).body(bytes);
        assert_eq!(sent.send().await.expect("an answer").status(), 201);
    }
    let manifest = json!({ "schemaVersion": 2, "config": descriptors[0], "layers": [descriptors[1]] });
    let push = client.put(format!("{url}/v2/made/manifests/v1")).body(manifest.to_string());
    assert_eq!(push.send().await.expect("an answer").status(), 201);
    let gone = client.delete(format!("{url}/v2/made/manifests/v1"));
    assert_eq!(gone.send().await.expect("an answer").status(), 202);
    registry.gc().await.expect("collected");
    assert_eq!(blobs(&place), 0);
}
