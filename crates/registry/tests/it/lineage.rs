//! Where models come from, as their files say, and manifests of before that.

use std::fs;
use std::sync::Arc;

use helios_model::{BaseModel, Lineage, Manifest, Relation, Role};
use helios_registry::Registry;
use helios_types::{ModelRef, TensorType};

use crate::convert::write_model;
use crate::models::{self, Place};

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

fn base(model: &str, relation: Option<Relation>) -> BaseModel {
    BaseModel { model: model.to_owned(), relation, version: None }
}

/// A folder in the Hugging Face form with a card.
async fn with_card(place: &Place, registry: &Arc<Registry>, folder: &str, card: &str) -> Arc<Manifest> {
    models::hugging_face(&place.path(folder), 1);
    fs::write(place.path(folder).join("README.md"), card).expect("a card");
    registry.import(&place.path(folder), None, &mut |_| {}).await.expect(folder).manifest
}

/// As the folder of [`with_card`], of a model that can be converted.
fn convertible(place: &Place, folder: &str, card: &str) {
    write_model(&place.path(folder), true, TensorType::F16, TensorType::F16);
    fs::write(place.path(folder).join("README.md"), card).expect("a card");
}

#[tokio::test]
async fn a_card_says_what_a_model_was_made_from() {
    let place = Place::new();
    let registry = place.open().await;
    let card = "---\nlicense: mit\nbase_model:\n- org/base\n- org/other\nbase_model_relation: merge\n---\n# Merged\n";
    let manifest = with_card(&place, &registry, "merged", card).await;
    let lineage = manifest.lineage.as_ref().expect("a lineage");
    let merged = Some(Relation::Merge);
    assert_eq!(lineage.base_models, [base("org/base", merged), base("org/other", merged)]);
    assert_eq!(manifest.licence(), Some("mit"));
    assert_eq!(manifest.facts().expect("a model").licence.as_deref(), Some("mit"));
    assert!(manifest.files.iter().all(|file| file.path != "README.md"), "the card itself is not kept");
}

#[tokio::test]
async fn a_gguf_header_says_what_a_model_was_made_from() {
    let place = Place::new();
    let registry = place.open().await;
    let keys = [
        ("general.base_model.0.name", "Base"),
        ("general.base_model.0.organization", "Org"),
        ("general.base_model.0.version", "v1.5"),
        ("general.base_model.1.name", "Other"),
        ("general.base_model.1.repo_url", "https://huggingface.co/org/other-1b"),
        ("general.quantized_by", "somebody"),
        ("general.source.repo_url", "https://huggingface.co/org/made"),
        ("general.repo_url", "https://huggingface.co/somebody/made-GGUF"),
    ];
    let file = place.write("made.gguf", &models::gguf_with("llama", 1.0, &keys));
    let manifest = registry.import(&file, None, &mut |_| {}).await.expect("imported").manifest;
    let mut first = base("Org/Base", None);
    first.version = Some("v1.5".to_owned());
    let expected = Lineage {
        base_models: vec![first, base("org/other-1b", None), base("org/made", Some(Relation::Quantized))],
        quantised_by: Some("somebody".to_owned()),
        published_at: Some("https://huggingface.co/somebody/made-GGUF".to_owned()),
        ..Lineage::default()
    };
    assert_eq!(manifest.lineage, Some(expected));
    assert_eq!(manifest.licence(), Some("apache-2.0"));
}

#[tokio::test]
async fn what_is_converted_says_from_what_and_by_whom() {
    let place = Place::new();
    let registry = place.open().await;
    let card = "---\nbase_model: org/base\nbase_model_relation: finetune\n---\n";
    convertible(&place, "source", card);
    let resolved = registry.import(&place.path("source"), None, &mut |_| {}).await.expect("imported");
    let converted = registry.pull("convert:source#gguf", Some(name("converted")), &mut |_| {}).await;
    let converted = converted.expect("converted").manifest;
    let lineage = converted.lineage.as_ref().expect("a lineage");
    assert_eq!(lineage.base_models, resolved.manifest.lineage.as_ref().expect("a lineage").base_models);
    let made = lineage.converted.as_ref().expect("it was converted");
    assert_eq!((made.model.to_string(), made.manifest), ("source:latest".to_owned(), resolved.digest));
    assert_eq!(made.by, format!("helios {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn manifests_without_a_lineage_keep_their_bytes() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("m.gguf", &models::gguf(1.0));
    let manifest = registry.import(&file, None, &mut |_| {}).await.expect("imported").manifest;
    assert_eq!(manifest.lineage, None);
    let bytes = manifest.to_bytes();
    assert!(
        !String::from_utf8_lossy(&bytes).contains("lineage"),
        "nothing is written where nothing is known"
    );
    assert_eq!(Manifest::parse("it", &bytes).expect("parsed").to_bytes(), bytes);
    assert!(manifest.file(Role::Tokenizer).is_some() && manifest.file(Role::ChatTemplate).is_some());
}

/// Lineages of strangers may lead in circles, and to the model itself: nothing that the store does follows them.
#[tokio::test]
async fn a_lineage_that_leads_back_to_itself_changes_nothing() {
    let place = Place::new();
    let registry = place.open().await;
    for (folder, base) in [("selfish", "selfish"), ("hen", "egg"), ("egg", "hen")] {
        let card = format!("---\nbase_model: {base}\n---\n");
        convertible(&place, folder, &card);
        registry.import(&place.path(folder), None, &mut |_| {}).await.expect(folder);
    }
    registry.pull("convert:selfish#gguf", Some(name("selfish:gguf")), &mut |_| {}).await.expect("converted");
    registry.remove(&name("hen")).await.expect("removed");
    let report = registry.gc().await.expect("collected");
    assert_eq!((report.manifests_removed, report.manifests_kept), (1, 3));
}
