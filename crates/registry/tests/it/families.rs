//! Models that the native engine does not run: the registry takes them all the same, with what their headers say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use helios_model::profile::parallel::Precision;
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

/// A GGUF file with another element type for the last norm.
fn with_norm_stored_as(type_number: u32, mut gguf: Vec<u8>) -> Vec<u8> {
    let norm = b"output_norm.weight";
    let at = gguf.windows(norm.len()).position(|bytes| bytes == norm).expect("a tensor");
    let tensor_type = at + norm.len() + 4 + 8;
    gguf[tensor_type..][..4].copy_from_slice(&type_number.to_le_bytes());
    gguf
}

#[tokio::test]
async fn a_native_family_stored_in_a_way_without_kernels_has_a_profile_and_is_not_native() {
    const Q5_1: u32 = 7;
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("five.gguf", &with_norm_stored_as(Q5_1, models::gguf(0.5)));
    let manifest = registry.import(&file, None, &mut |_| {}).await.expect("imported").manifest;
    let by_type = &manifest.memory_profile().expect("a profile").weight_bytes_by_type;
    // One block of 32 elements.
    assert_eq!(by_type.get(&TensorType::Q5_1), Some(&24));
    assert!(!manifest.is_native());
    manifest.required(Role::TokenBytes).expect("what a proxy needs");
    let error = ModelError::not_native(&manifest).to_string();
    assert!(error.contains("family `llama`, stored as f32, q5_1\n"), "{error}");
}

/// Matrices of bytes with a scale beside each, as FP8 checkpoints have them, or packed by a quantiser.
fn write_quantised(dir: &Path, stored_as: &str, shape: [usize; 2], bytes: usize) {
    write_folder(dir, "llama");
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "safetensors")
            || path.ends_with("model.safetensors.index.json")
        {
            fs::remove_file(path).expect("removed");
        }
    }
    let header = json!({
        "model.layers.0.mlp.up_proj.weight": { "dtype": stored_as, "shape": shape, "data_offsets": [0, bytes] },
        "model.layers.0.mlp.up_proj.weight_scale": { "dtype": "F32", "shape": [1], "data_offsets": [bytes, bytes + 4] },
    });
    let header = header.to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes + 4]].concat();
    fs::write(dir.join("model.safetensors"), file).expect("a file");
}

#[tokio::test]
async fn quantised_checkpoints_have_profiles_of_what_their_headers_tell() {
    let place = Place::new();
    let registry = place.open().await;
    let folder = place.path("fp8");
    write_quantised(&folder, "F8_E4M3", [64, 32], 64 * 32);
    let manifest = registry.import(&folder, None, &mut |_| {}).await.expect("imported").manifest;
    let profile = manifest.memory_profile().expect("a profile");
    let by_type = BTreeMap::from([(TensorType::F32, 4), (TensorType::F8E4M3, 64 * 32)]);
    assert_eq!((&profile.weight_bytes_by_type, profile.is_packed()), (&by_type, false));
    assert_eq!(profile.accelerate_bytes(Precision::F32), None, "the tool would not count the scale");
    assert_eq!(manifest.facts().expect("a model").quantisation, TensorType::F8E4M3);
    assert!(!manifest.is_native());

    let folder = place.path("packed");
    write_quantised(&folder, "I32", [8, 32], 8 * 32 * 4);
    let manifest = registry.import(&folder, None, &mut |_| {}).await.expect("imported").manifest;
    let profile = manifest.memory_profile().expect("a profile");
    assert_eq!((profile.weight_bytes, profile.is_packed()), (8 * 32 * 4 + 4, true));
    assert_eq!(profile.details.as_ref().expect("details").precisions(), [Precision::Stored]);
    assert_eq!(manifest.facts().expect("a model").parameters, 0);
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

    let file = place.write("new.gguf", &with_norm_stored_as(99, models::gguf_of("qwen2", 0.5)));
    let imported = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    assert!(imported.manifest.facts().is_err());
    assert_eq!(imported.manifest.files(Role::Weights).count(), 1);
    let error = registry.profile(&imported.manifest).await.expect_err("an unknown element type");
    assert!(error.to_string().contains("element type number 99"), "{error}");
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
