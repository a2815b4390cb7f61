//! Where models come from, as the protocols tell it and are told.

use std::fs;
use std::sync::Arc;

use helios_distribution::{hub, oci};
use helios_model::{BaseModel, Relation};
use helios_registry::FetchConfig;
use helios_types::ModelRef;
use serde_json::{Value, json};

use crate::models::{self, Place};
use crate::serve;

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

/// The hub's protocol says what a card says, and so a registry that pulls from this one learns it.
#[tokio::test]
async fn what_a_model_was_made_from_is_told_and_pulled() {
    let place = Place::new();
    let registry = place.open().await;
    let card = "---\nlicense: mit\nbase_model:\n- org/base\n- org/other\nbase_model_relation: merge\n---\n# Merged\n";
    models::hugging_face(&place.path("merged"), 1);
    fs::write(place.path("merged").join("README.md"), card).expect("a card");
    let imported = registry.import(&place.path("merged"), None, &mut |_| {}).await.expect("imported");
    let manifest = imported.manifest;
    assert!(manifest.lineage.is_some());

    let url = serve(hub::router(Arc::clone(&registry), hub::Limits::default())).await;
    let about = reqwest::get(format!("{url}/api/models/helios/merged")).await.expect("an answer");
    let about: Value = about.json().await.expect("JSON");
    let told =
        json!({ "license": "mit", "base_model": ["org/base", "org/other"], "base_model_relation": "merge" });
    assert_eq!(about["cardData"], told);
    let tags = about["tags"].as_array().expect("tags");
    for tag in ["license:mit", "base_model:org/base", "base_model:merge:org/other"] {
        assert!(tags.contains(&json!(tag)), "{tags:?}");
    }
    let there = Place::new();
    let fetch = FetchConfig { hub_url: url, ..FetchConfig::default() };
    let pulled = there
        .open_with(fetch)
        .await
        .pull("hf:helios/merged", Some(name("merged")), &mut |_| {})
        .await
        .expect("pulled");
    assert_eq!((&pulled.manifest.lineage, pulled.manifest.licence()), (&manifest.lineage, Some("mit")));
}

/// An adapter is no model that could be served, but says what it is for.
#[tokio::test]
async fn an_adapter_that_is_pushed_names_its_base() {
    let place = Place::new();
    let registry = place.open().await;
    let url = serve(oci::router(Arc::clone(&registry))).await;
    let client = reqwest::Client::new();
    let mut layers = Vec::new();
    let config = json!({ "peft_type": "LORA", "base_model_name_or_path": "org/base" }).to_string();
    for (title, bytes) in [
        ("README.md", "---\nlicense: apache-2.0\nlibrary_name: peft\n---\n"),
        ("adapter_config.json", config.as_str()),
        ("adapter_model.safetensors", "no tensors"),
    ] {
        let digest = format!("sha256:{}", models::sha256(bytes.as_bytes()));
        let request = client.post(format!("{url}/v2/adapter/blobs/uploads/?digest={digest}"));
        assert_eq!(request.body(bytes.to_owned()).send().await.expect("an answer").status(), 201);
        let title = json!({ "org.opencontainers.image.title": title });
        layers
            .push(json!({ "mediaType": "a/b", "digest": digest, "size": bytes.len(), "annotations": title }));
    }
    let manifest = json!({ "schemaVersion": 2, "config": layers[1], "layers": layers });
    let request = client.put(format!("{url}/v2/adapter/manifests/v1")).body(manifest.to_string());
    let request = request.header("content-type", "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(request.send().await.expect("an answer").status(), 201);
    let manifest = registry.resolve(&name("adapter:v1")).await.expect("pushed").manifest;
    assert!(manifest.facts().is_err(), "it is no model");
    let lineage = manifest.lineage.as_ref().expect("a lineage");
    assert_eq!(
        lineage.base_models,
        [BaseModel { model: "org/base".to_owned(), relation: Some(Relation::Adapter), version: None }]
    );
    assert_eq!(manifest.licence(), Some("apache-2.0"));
}
