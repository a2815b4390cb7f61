//! Memory profiles of folders: against what `accelerate estimate-memory` says, and of what is no model.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use helios_model::profile::parallel::Precision;
use helios_model::profile::profile_of_path;
use serde::Deserialize;
use serde_json::Value;

use crate::tiny;

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
    let place = tempfile::tempdir().expect("a temporary folder");
    let reference: Reference = serde_json::from_str(REFERENCE).expect("the fixture");
    assert!(reference.models.len() >= 8);
    let precisions = [
        ("float32", Precision::F32),
        ("float16", Precision::F16),
        ("int8", Precision::Int8),
        ("int4", Precision::Int4),
    ];
    for model in &reference.models {
        let folder = place.path().join(&model.name);
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

#[test]
fn folders_that_are_no_model_are_refused_by_name() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("broken");
    tiny::hugging_face(&folder, 1);
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
