//! Memory profiles: against what `accelerate estimate-memory` says, and across releases.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use helios_registry::profile::parallel::{Degrees, Precision};
use helios_registry::profile::profile_of_path;
use helios_registry::{Manifest, MemoryProfile};
use serde::Deserialize;
use serde_json::Value;

use crate::models::{self, Place};

/// Made by `cargo xtask reference`.
const REFERENCE: &str = include_str!("../fixtures/accelerate.json");

#[derive(Deserialize)]
struct Reference {
    models: Vec<ReferenceModel>,
}

#[derive(Deserialize)]
struct ReferenceModel {
    name: String,
    config: Value,
    tensors: BTreeMap<String, Vec<u64>>,
    bytes: BTreeMap<String, Figures>,
}

#[derive(Deserialize)]
struct Figures {
    largest_layer: f64,
    total: f64,
}

/// A folder with the headers of a model and nothing behind them.
fn write_headers(folder: &Path, model: &ReferenceModel) {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("config.json"), model.config.to_string()).expect("a configuration");
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in &model.tensors {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        let entry = serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    let size = file.len() as u64 + end;
    let path = folder.join("model.safetensors");
    fs::write(&path, file).expect("a file");
    fs::File::options().write(true).open(&path).expect("the file").set_len(size).expect("its size");
}

#[test]
fn estimates_equal_those_of_accelerate_to_the_byte() {
    let place = Place::new();
    let reference: Reference = serde_json::from_str(REFERENCE).expect("the fixture");
    assert!(reference.models.len() >= 8);
    let precisions = [
        ("float32", Precision::F32),
        ("float16", Precision::F16),
        ("int8", Precision::Int8),
        ("int4", Precision::Int4),
    ];
    for model in &reference.models {
        let folder = place.path(&model.name);
        write_headers(&folder, model);
        let profile = profile_of_path(&folder).expect(&model.name);
        let scope = profile.details.as_ref().and_then(|details| details.accelerate).expect(&model.name);
        for (name, precision) in precisions {
            let figures = &model.bytes[name];
            let told = (profile.accelerate_bytes(precision), scope.largest_layer_bytes(precision));
            // The tool divides to halves of a byte.
            let expected = (Some(figures.total.ceil() as u64), Some(figures.largest_layer.ceil() as u64));
            assert_eq!(told, expected, "{} in {name}", model.name);
        }
        let elements: u64 = model.tensors.values().map(|shape| shape.iter().product::<u64>()).sum();
        assert_eq!(profile.serving_bytes(), 2 * elements, "{}", model.name);
    }
}

#[tokio::test]
async fn headers_of_files_and_imports_give_one_profile() {
    let place = Place::new();
    let registry = place.open().await;
    let folder = place.path("sharded");
    models::hugging_face(&folder, 3);
    let imported = registry.import(&folder, None, &mut |_| {}).await.expect("imported");
    assert_eq!(profile_of_path(&folder).ok(), imported.manifest.profile);
    let file = place.write("tiny.gguf", &models::gguf(0.5));
    let imported = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    assert_eq!(profile_of_path(&file).ok(), imported.manifest.profile);
    let profile = imported.manifest.profile.clone().expect("a profile");
    let details = profile.details.clone().expect("details");
    assert_eq!(details.weight_bytes(Precision::Stored, Degrees::ONE), profile.weight_bytes);
}

#[tokio::test]
async fn both_totals_have_their_names_where_a_profile_is_told() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::gguf(0.5));
    let imported = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    let profile = imported.manifest.profile.clone().expect("a profile");
    let address = crate::over_http::serve(helios_registry::http::router(registry)).await;
    let url = format!("{address}/registry/v1/profiles/{}", imported.digest);
    let told: Value = reqwest::get(url).await.expect("an answer").json().await.expect("JSON");
    assert_eq!(told["serving_bytes"], profile.weight_bytes);
    for (name, precision) in [("f32", Precision::F32), ("f16", Precision::F16), ("int4", Precision::Int4)] {
        let bytes = profile.accelerate_bytes(precision).expect("a known family");
        assert_eq!(told["accelerate_bytes"][name], bytes, "{name}");
    }
}

#[tokio::test]
async fn manifests_of_earlier_releases_keep_their_bytes() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::gguf(0.5));
    let imported = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    let today = (*imported.manifest).clone();
    let profile = today.profile.clone().expect("a profile");
    let earlier = Manifest { profile: Some(MemoryProfile { details: None, ..profile.clone() }), ..today };
    let bytes = earlier.to_bytes();
    assert!(!String::from_utf8_lossy(&bytes).contains("details"));
    let read = Manifest::parse("earlier", &bytes).expect("a manifest");
    assert_eq!(read.to_bytes(), bytes);
    assert_eq!(registry.profile(&read).await.expect("from the headers"), profile);
}

#[test]
fn folders_that_are_no_model_are_refused_by_name() {
    let place = Place::new();
    let folder = place.path("broken");
    models::hugging_face(&folder, 1);
    let told = |problem: &str| {
        let error = profile_of_path(&folder).expect_err(problem).to_string();
        assert!(error.contains(problem), "{error}");
    };
    fs::write(folder.join("config.json"), r#"{"model_type": "llama", "hidden_size": 64}"#).expect("a file");
    told("num_attention_heads");
    fs::remove_file(folder.join("config.json")).expect("removed");
    told("config.json");
    fs::write(folder.join("model.safetensors"), 100_u64.to_le_bytes()).expect("a file");
    told("model.safetensors");
}

#[test]
fn the_catalogue_says_of_its_model_what_the_file_says() {
    let file = std::env::var_os("HELIOS_TEST_MODEL")
        .expect("HELIOS_TEST_MODEL is not set: `cargo xtask test` sets it");
    let entry = &helios_registry::CATALOGUE[0];
    assert_eq!(entry.memory_profile(), profile_of_path(Path::new(&file)).expect("a profile"));
}
