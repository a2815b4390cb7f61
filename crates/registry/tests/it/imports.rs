//! From files to manifests.

use std::fs;

use helios_model::{Role, WeightFormat, token_table};
use helios_storage::ModelConfig;
use helios_text::SpecialTokens;
use helios_types::{Classify, ErrorCode, ModelRef, TensorType};

use crate::models::{self, Place};

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

#[tokio::test]
async fn a_gguf_file_becomes_a_model_with_derived_files() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::gguf(0.5));
    let resolved = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    assert_eq!(resolved.reference.to_string(), "tiny:latest");

    let manifest = &resolved.manifest;
    assert_eq!(manifest.facts().expect("a model").architecture, "llama");
    assert_eq!(manifest.facts().expect("a model").format, WeightFormat::Gguf);
    assert_eq!(manifest.facts().expect("a model").licence.as_deref(), Some("apache-2.0"));
    assert_eq!(
        (manifest.facts().expect("a model").context_tokens, manifest.facts().expect("a model").quantisation),
        (64, TensorType::F32)
    );
    assert_eq!(
        manifest.memory_profile().expect("a model").weight_bytes,
        4 * manifest.facts().expect("a model").parameters
    );
    assert_eq!(manifest.memory_profile().expect("a model").kv_bytes_per_token, 2 * 2 * 32);
    let config = registry.derived_bytes(manifest, Role::Config).await.expect("a config");
    let config: ModelConfig = serde_json::from_slice(&config).expect("a model config");
    assert_eq!((config.layers, config.vocab), (1, 258));
    let special = registry.derived_bytes(manifest, Role::SpecialTokens).await.expect("special tokens");
    let special: SpecialTokens = serde_json::from_slice(&special).expect("special tokens");
    assert_eq!(special.eos, [257]);
    let template = registry.derived_bytes(manifest, Role::ChatTemplate).await.expect("a template");
    assert_eq!(&*template, b"{{ messages[0].content }}");
    let table = registry.derived_bytes(manifest, Role::TokenBytes).await.expect("a table");
    let table = token_table::decode(&table).expect("a table");
    assert_eq!((table.len(), table[0], table[257]), (258, &b"!"[..], &b"<|im_end|>"[..]));
    let weights = registry.derived_bytes(manifest, Role::Weights).await.expect("weights");
    assert_eq!(&*weights, models::gguf(0.5));
}

#[tokio::test]
async fn hugging_face_folders_become_models_whole_and_in_shards() {
    let place = Place::new();
    let registry = place.open().await;
    for (folder, shards) in [("one", 1), ("three", 3)] {
        models::hugging_face(&place.path(folder), shards);
        let resolved = registry.import(&place.path(folder), None, &mut |_| {}).await.expect(folder);
        let manifest = &resolved.manifest;
        assert_eq!(manifest.facts().expect("a model").format, WeightFormat::Safetensors);
        assert_eq!(manifest.facts().expect("a model").quantisation, TensorType::BF16);
        assert_eq!(manifest.files(Role::Weights).count(), shards);
        assert_eq!(manifest.file(Role::WeightsIndex).is_some(), shards > 1);
        assert!(manifest.file(Role::ChatTemplate).is_none());
        assert!(manifest.files.iter().all(|file| file.path != "README.md"));
        for file in &manifest.files {
            registry.blob(file).await.expect(&file.path);
        }
    }
}

#[tokio::test]
async fn files_that_are_no_model_are_refused_and_leave_nothing() {
    let place = Place::new();
    let registry = place.open().await;
    let whole = models::gguf(0.5);
    let mut flipped = whole.clone();
    flipped[8] ^= 0xff;
    let cases: [(&str, &[u8], &str); 4] = [
        ("truncated", &whole[..whole.len() / 2], "truncated.gguf"),
        ("empty", b"", "empty.gguf"),
        ("text", b"GGUFthis is no model at all", "text.gguf"),
        ("flipped", &flipped, "flipped.gguf"),
    ];
    for (stem, bytes, named) in cases {
        let file = place.write(&format!("{stem}.gguf"), bytes);
        let error = registry.import(&file, None, &mut |_| {}).await.expect_err(stem);
        assert!(error.to_string().contains(named), "{stem}: {error}");
        assert!(error.code() != ErrorCode::Internal, "{stem}: {error}");
    }
    let folder = place.path("folder");
    models::hugging_face(&folder, 1);
    fs::remove_file(folder.join("tokenizer.json")).expect("removed");
    let error = registry.import(&folder, None, &mut |_| {}).await.expect_err("no tokenizer");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");

    assert!(registry.list().await.expect("a list").is_empty());
    registry.gc().await.expect("collected");
    assert_eq!(fs::read_dir(place.store().join("blobs/sha256")).expect("blobs").count(), 0);
    let file = place.write("good.gguf", &whole);
    registry.import(&file, Some(name("good:v1")), &mut |_| {}).await.expect("the store is unharmed");
}
