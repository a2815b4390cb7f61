//! Memory profiles of models in the store: as of their files, where they are told, and across releases.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use helios_model::profile::parallel::{Degrees, Precision};
use helios_model::profile::profile_of_path;
use helios_model::{Manifest, MemoryProfile, Role};
use serde_json::Value;

use crate::models::{self, Place};

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

#[tokio::test]
async fn a_profile_that_is_not_in_the_manifest_is_made_from_headers_once() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::large_gguf(1 << 20));
    let imported = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    let today = (*imported.manifest).clone();
    let earlier = Manifest { metadata: None, profile: None, ..today.clone() };
    let weights = today.required(Role::Weights).expect("weights");
    let blob = place.store().join("blobs/sha256").join(weights.blob.digest.hex());
    let mut bytes = fs::read(&blob).expect("a blob");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o600)).expect("writable");
    fs::write(&blob, bytes).expect("a blob that is wrong behind its header");
    assert_eq!(registry.profile(&earlier).await.ok(), today.profile);
    assert!(registry.blob(weights).await.is_err(), "the whole file is wrong");
    assert!(!registry.blobs().contains(&weights.blob.digest), "it is in the quarantine");
    assert_eq!(registry.profile(&earlier).await.ok(), today.profile, "it is kept");
}

#[test]
fn the_catalogue_says_of_its_model_what_the_file_says() {
    let file = std::env::var_os("HELIOS_TEST_MODEL")
        .expect("HELIOS_TEST_MODEL is not set: `cargo xtask test` sets it");
    let entry = &helios_registry::CATALOGUE[0];
    assert_eq!(entry.memory_profile(), profile_of_path(Path::new(&file)).expect("a profile"));
}
