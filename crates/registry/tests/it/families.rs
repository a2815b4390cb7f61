//! Models that the native engine does not run: the registry takes them all the same, with what their headers say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use helios_model::{Manifest, ModelError, Role};
use helios_types::{Classify, ErrorCode, ModelRef, TensorType};
use serde_json::{Value, json};

use crate::downloads::{hub_config, hub_listing};
use crate::models::{self, Place};
use crate::origin::{Manner, Origin};

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

/// A folder of that family, in two shards.
fn write_folder(dir: &Path, family: &str) {
    models::hugging_face(dir, 2);
    let mut config: Value =
        serde_json::from_slice(&fs::read(dir.join("config.json")).expect("a file")).expect("JSON");
    config["model_type"] = family.into();
    fs::write(dir.join("config.json"), config.to_string()).expect("a file");
}

/// What the hub lists of a folder, whose files it then has.
fn publish(hub: &Origin, dir: &Path) {
    let mut siblings = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let (name, bytes) = (path.file_name().expect("a name").display().to_string(), fs::read(&path));
        let bytes = bytes.expect("a file");
        siblings.push(json!({ "rfilename": name, "size": bytes.len() }));
        hub.hold(&name, bytes);
    }
    hub.list(json!({ "sha": "0123456789012345678901234567890123456789", "siblings": siblings }));
}

/// It is a model with everything that is told of one, but for the native engine.
fn assert_foreign(manifest: &Manifest, family: &str, stored_as: TensorType) {
    let facts = manifest.facts().expect("a model");
    assert_eq!((facts.architecture.as_str(), facts.context_tokens), (family, 64));
    let profile = manifest.memory_profile().expect("a profile");
    assert_eq!(profile.weight_bytes_by_type, BTreeMap::from([(stored_as, profile.weight_bytes)]));
    assert_eq!(profile.weight_bytes, facts.parameters * stored_as.block_bytes() as u64);
    let details = profile.details.as_ref().expect("details");
    assert_eq!((details.shape.layers, details.shape.hidden), (1, 32));
    for role in [Role::Tokenizer, Role::SpecialTokens, Role::TokenBytes] {
        manifest.required(role).expect("what a proxy needs");
    }
    assert!(!manifest.is_native());
}

#[tokio::test]
async fn other_families_are_taken_from_files_and_from_the_hub() {
    let place = Place::new();
    let (folder, gguf) = (place.path("qwen"), models::gguf_of("qwen2", 0.5));
    write_folder(&folder, "qwen2");
    let file = place.write("other.gguf", &gguf);
    let hub = Origin::start(gguf.clone(), Manner::Honest).await;
    let registry = place.open_with(hub_config(&hub)).await;

    let imported = registry.import(&folder, None, &mut |_| {}).await.expect("a folder");
    assert_foreign(&imported.manifest, "qwen2", TensorType::BF16);
    let imported = registry.import(&file, None, &mut |_| {}).await.expect("a file");
    assert_foreign(&imported.manifest, "qwen2", TensorType::F32);

    hub.list(hub_listing("other.gguf", &gguf, None));
    let pulled = registry.pull("hf:org/file", None, &mut |_| {}).await.expect("a file of the hub");
    assert_foreign(&pulled.manifest, "qwen2", TensorType::F32);
    publish(&hub, &folder);
    let pulled = registry.pull("hf:org/folder", None, &mut |_| {}).await.expect("a folder of the hub");
    assert_foreign(&pulled.manifest, "qwen2", TensorType::BF16);
    assert_eq!(registry.profile(&pulled.manifest).await.ok(), pulled.manifest.profile);
}

#[tokio::test]
async fn an_upload_is_described_as_a_pull() {
    let place = Place::new();
    let registry = place.open().await;
    let gguf = models::gguf_of("qwen2", 0.5);
    let file = place.write("other.gguf", &gguf);
    let pulled = registry.import(&file, None, &mut |_| {}).await.expect("imported").manifest;
    let intake = registry.intake();
    let blob = intake.store(gguf).await.expect("stored");
    let files = BTreeMap::from([("other.gguf".to_owned(), blob)]);
    registry.add_version(&name("org/up"), files, Vec::new(), intake).await.expect("pushed");
    let pushed = registry.resolve(&name("org/up")).await.expect("known").manifest;
    assert_eq!((&pushed.files, &pushed.profile), (&pulled.files, &pulled.profile));
}

#[tokio::test]
async fn a_feature_of_a_native_family_that_is_not_run_is_no_reason_to_refuse() {
    let place = Place::new();
    let registry = place.open().await;
    let folder = place.path("scaled");
    write_folder(&folder, "llama");
    let mut config: Value =
        serde_json::from_slice(&fs::read(folder.join("config.json")).expect("a file")).expect("JSON");
    config["rope_scaling"] = json!({ "rope_type": "llama3", "factor": 8.0 });
    fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    let imported = registry.import(&folder, None, &mut |_| {}).await.expect("imported");
    assert_foreign(&imported.manifest, "llama", TensorType::BF16);
}

#[tokio::test]
async fn what_helios_cannot_read_of_a_model_is_kept_and_said() {
    let place = Place::new();
    let registry = place.open().await;
    let folder = place.path("pieces");
    write_folder(&folder, "bert");
    let words = json!({ "model": { "type": "WordPiece", "vocab": { "a": 0 } } });
    fs::write(folder.join("tokenizer.json"), words.to_string()).expect("a file");
    let imported = registry.import(&folder, None, &mut |_| {}).await.expect("imported");
    assert!(imported.manifest.memory_profile().is_ok() && !imported.manifest.is_native());
    let error = imported.manifest.required(Role::SpecialTokens).expect_err("no such tokenizer");
    assert!(matches!(error, ModelError::NoTokenizer), "{error}");

    let mut gguf = models::gguf_of("qwen2", 0.5);
    let norm = b"output_norm.weight";
    let at = gguf.windows(norm.len()).position(|bytes| bytes == norm).expect("a tensor");
    let tensor_type = at + norm.len() + 4 + 8;
    gguf[tensor_type..][..4].copy_from_slice(&12_u32.to_le_bytes());
    let file = place.write("k.gguf", &gguf);
    let imported = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    assert!(imported.manifest.facts().is_err());
    assert_eq!(imported.manifest.files(Role::Weights).count(), 1);
    let error = registry.profile(&imported.manifest).await.expect_err("an unknown element type");
    assert!(error.to_string().contains("element type Q4_K"), "{error}");
}

#[tokio::test]
async fn a_malformed_model_is_refused_before_its_weights_are_fetched() {
    let place = Place::new();
    let hub = Origin::start(Vec::new(), Manner::Honest).await;
    let registry = place.open_with(hub_config(&hub)).await;
    let folder = place.path("broken");
    let cases = [
        ("config.json", "{ no JSON", "config.json"),
        ("config.json", r#"{"model_type": "llama", "hidden_size": 1}"#, "missing field"),
        ("tokenizer.json", "[]", "tokenizer.json"),
        ("model.safetensors.index.json", "{}", "weight_map"),
    ];
    for (file, text, named) in cases {
        write_folder(&folder, "llama");
        fs::write(folder.join(file), text).expect("a file");
        publish(&hub, &folder);
        let error = registry.pull("hf:org/broken", None, &mut |_| {}).await.expect_err(file);
        assert_eq!(error.code(), ErrorCode::Corrupt, "{file}: {error}");
        assert!(error.to_string().contains(named), "{file}: {error}");
    }
    hub.list(hub_listing("pytorch_model.bin", b"pickle", None));
    let error = registry.pull("hf:org/broken", None, &mut |_| {}).await.expect_err("a pickle");
    assert!(error.to_string().contains("hint: take the safetensors form"), "{error}");
    let asked = hub.asked();
    assert!(!asked.iter().any(|asked| asked.path.ends_with(".safetensors") || asked.path.ends_with(".bin")));
    assert!(registry.list().await.expect("a list").is_empty());
}
