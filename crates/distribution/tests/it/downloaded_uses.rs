//! Downloads by the hub's protocol and OCI distribution are uses of models, each once.

use std::sync::Arc;

use helios_distribution::{hub, oci};
use helios_model::Role;
use helios_registry::Registry;
use reqwest::Method;
use serde_json::Value;

use crate::models::{self, Place};
use crate::serve;

/// Uses in the history of the store.
async fn uses(place: &Place, registry: &Arc<Registry>) -> u64 {
    registry.prefetch().await.expect("a pass");
    let history = std::fs::read(place.store().join("history.json")).expect("a history");
    let history: Value = serde_json::from_slice(&history).expect("JSON");
    history["uses"].as_u64().expect("a number")
}

async fn call(method: Method, url: &str, headers: &[(&str, &str)]) {
    let request = reqwest::Client::new().request(method, url);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.expect("an answer");
    assert!(response.status().is_success() || response.status() == 304, "{url}: {}", response.status());
    response.bytes().await.expect("a whole answer");
}

#[tokio::test]
async fn a_download_is_one_use_however_many_requests_it_takes() {
    let place = Place::new();
    let registry = place.open().await;
    let mut layers = Vec::new();
    for (seed, model) in [(1.0, "one"), (2.0, "two")] {
        let file = place.write(&format!("{model}.gguf"), &models::gguf(seed));
        let name = format!("org/{model}:v1").parse().expect("a name");
        let resolved = registry.import(&file, Some(name), &mut |_| {}).await.expect("imported");
        layers.push(resolved.manifest.required(Role::Weights).expect("weights").blob.digest);
    }
    let hub = serve(hub::router(Arc::clone(&registry), hub::Limits::default())).await;
    let oci = serve(oci::router(Arc::clone(&registry))).await;
    let weights = format!("{hub}/org/one/resolve/main/one.gguf");
    let about: [(Method, &[(&str, &str)]); 3] = [
        (Method::HEAD, &[]),
        (Method::GET, &[("range", "bytes=64-127")]),
        (Method::GET, &[("if-none-match", "*")]),
    ];
    for (method, headers) in about {
        call(method, &weights, headers).await;
    }
    call(Method::GET, &format!("{oci}/v2/org/two/manifests/v1"), &[]).await;
    call(Method::HEAD, &format!("{oci}/v2/org/two/blobs/{}", layers[1]), &[]).await;
    assert_eq!(uses(&place, &registry).await, 0, "nothing was begun");

    call(Method::GET, &weights, &[("range", "bytes=0-63")]).await;
    assert_eq!(uses(&place, &registry).await, 1);
    call(Method::GET, &weights, &[]).await;
    assert_eq!(uses(&place, &registry).await, 1, "begun again at once");

    call(Method::GET, &format!("{oci}/v2/org/two/blobs/{}", layers[1]), &[]).await;
    assert_eq!(uses(&place, &registry).await, 2);
    call(Method::GET, &format!("{oci}/v2/org/two/blobs/{}", layers[0]), &[]).await;
    assert_eq!(uses(&place, &registry).await, 2, "weights of another model than the one named");
}
