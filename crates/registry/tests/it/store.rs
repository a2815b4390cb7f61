//! Names, history, and what survives a restart.

use std::fs;

use helios_registry::RegistryError;
use helios_types::{Classify, ErrorCode, ModelRef};

use crate::models::{self, Place};

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

#[tokio::test]
async fn tags_move_keep_their_history_and_survive_a_restart() {
    let place = Place::new();
    let registry = place.open().await;
    let first = place.write("a.gguf", &models::gguf(1.0));
    let second = place.write("b.gguf", &models::gguf(2.0));
    let one = registry.import(&first, Some(name("m:v")), &mut |_| {}).await.expect("first");
    let two = registry.import(&second, Some(name("m:v")), &mut |_| {}).await.expect("second");
    assert_ne!(one.digest, two.digest);
    registry.import(&second, Some(name("m:v")), &mut |_| {}).await.expect("the same again");
    registry.tag(&name("m:v"), &name("m/n:other")).await.expect("tagged");
    let digests = |history: Vec<helios_registry::TagEntry>| {
        history.iter().map(|entry| entry.digest).collect::<Vec<_>>()
    };
    assert_eq!(digests(registry.history(&name("m:v")).await.expect("history")), [one.digest, two.digest]);
    let listed = registry.list().await.expect("a list");
    drop((one, two, registry));

    let registry = place.open().await;
    assert_eq!(registry.list().await.expect("a list"), listed);
    assert_eq!(registry.history(&name("m:v")).await.expect("history").len(), 2);
    let resolved = registry.resolve(&name("m/n:other")).await.expect("resolved");
    for file in &resolved.manifest.files {
        registry.blob(file).await.expect(&file.path);
    }
    registry.remove(&name("m:v")).await.expect("removed");
    let error = registry.remove(&name("m:v")).await.expect_err("gone");
    assert_eq!(error.code(), ErrorCode::ModelNotFound);
    drop((resolved, registry));
    assert_eq!(place.open().await.list().await.expect("a list").len(), 1);
}

#[tokio::test]
async fn a_version_that_is_pulled_again_is_the_latest_of_its_name_also_after_a_restart() {
    let place = Place::new();
    let registry = place.open().await;
    let files = [1.0, 2.0].map(|fill| place.write(&format!("{fill}.gguf"), &models::gguf(fill)));
    for (file, tag) in [(0, "m:a"), (1, "m:b"), (0, "m:a")] {
        registry.import(&files[file], Some(name(tag)), &mut |_| {}).await.expect(tag);
        crate::origin::moment().await;
    }
    let newest = async |registry: &helios_registry::Registry| {
        let models = registry.list().await.expect("a list");
        models.into_iter().max_by_key(|model| model.changed_at).expect("a model").model
    };
    assert_eq!(newest(&registry).await, name("m:a"));
    assert_eq!(registry.history(&name("m:a")).await.expect("a history").len(), 1);
    drop(registry);
    assert_eq!(newest(&*place.open().await).await, name("m:a"));
    place.rebuild().await;
    assert_eq!(newest(&*place.open().await).await, name("m:a"), "its file says so, too");
}

#[tokio::test]
async fn a_rollback_adds_to_the_history_and_can_be_taken_back() {
    let place = Place::new();
    let registry = place.open().await;
    let files = [1.0, 2.0].map(|fill| place.write(&format!("{fill}.gguf"), &models::gguf(fill)));
    let one = registry.import(&files[0], Some(name("m")), &mut |_| {}).await.expect("first").digest;
    let two = registry.import(&files[1], Some(name("m")), &mut |_| {}).await.expect("second").digest;
    let to = |text: &str| text.parse().expect("a version");
    registry.rollback(&name("m"), &to("1")).await.expect("back");
    assert_eq!(registry.resolve(&name("m")).await.expect("m").digest, one);
    registry.gc().await.expect("collected");
    registry.rollback(&name("m"), &to(&two.hex()[..12])).await.expect("forth");
    let history = registry.history(&name("m")).await.expect("a history");
    assert_eq!(history.iter().map(|entry| entry.digest).collect::<Vec<_>>(), [one, two, one, two]);
    for none in ["4", "000000"] {
        let error = registry.rollback(&name("m"), &to(none)).await.expect_err(none);
        assert!(error.to_string().contains("helios history m"), "{error}");
    }
}

#[tokio::test]
async fn an_open_store_is_refused_with_its_holder() {
    let place = Place::new();
    let _registry = place.open().await;
    let error =
        helios_registry::Registry::open(&place.store(), helios_registry::RegistryConfig::default()).await;
    let error = error.expect_err("held");
    assert_eq!(error.code(), ErrorCode::Conflict);
    let text = error.to_string();
    assert!(text.contains(&std::process::id().to_string()) && text.contains("HELIOS_HOST"), "{text}");
}

#[tokio::test]
async fn unknown_names_get_a_suggestion_or_a_way_to_fetch_them() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::gguf(1.0));
    registry.import(&file, Some(name("tiny-llama:v1")), &mut |_| {}).await.expect("imported");
    let suggestion = async |text: &str| match registry.resolve(&name(text)).await {
        Err(RegistryError::ModelNotFound { suggestion, hint, .. }) => (suggestion, hint),
        other => panic!("{other:?}"),
    };
    assert_eq!(suggestion("tiny-lama").await.0.as_deref(), Some("tiny-llama:v1"));
    assert_eq!(suggestion("smolm2").await.0.as_deref(), Some("smollm2:135m-instruct"));
    assert!(suggestion("smollm2").await.1.contains("helios pull smollm2:135m-instruct"));
    let error = registry.start_pull("no-such-model", None).await.err().expect("unknown");
    assert_eq!(error.code(), ErrorCode::ModelNotFound);
    for hostile in ["../../etc/passwd", "a:b:c", "hf:../x", "pypi:-r==1#x", "http://u:p@h/x.gguf"] {
        let error = registry.start_pull(hostile, None).await.err().expect(hostile);
        assert_eq!(error.code(), ErrorCode::InvalidRequest, "{hostile}");
    }
}

#[tokio::test]
async fn a_catalogue_name_without_tag_means_its_default() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("tiny.gguf", &models::gguf(1.0));
    registry.import(&file, Some(name("smollm2:135m-instruct")), &mut |_| {}).await.expect("imported");
    let resolved = registry.resolve(&name("smollm2")).await.expect("resolved");
    assert_eq!(resolved.reference, name("smollm2:135m-instruct"));
}

#[tokio::test]
async fn damaged_small_files_cost_only_what_they_describe() {
    let place = Place::new();
    let registry = place.open().await;
    for (stem, fill) in [("a", 1.0), ("b", 2.0)] {
        let file = place.write(&format!("{stem}.gguf"), &models::gguf(fill));
        registry.import(&file, None, &mut |_| {}).await.expect(stem);
    }
    let digest = registry.resolve(&name("a")).await.expect("a").digest;
    drop(registry);
    let manifest = place.store().join(format!("manifests/{}.json", digest.hex()));
    let mut bytes = fs::read(&manifest).expect("a manifest");
    bytes[20] ^= 1;
    fs::write(&manifest, bytes).expect("written");
    place.write("store/tags/c/@latest.json", b"[{]");

    // The database still has what the files have lost, until it is made again from them.
    let registry = place.open().await;
    registry.resolve(&name("a")).await.expect("from the database");
    drop(registry);
    place.rebuild().await;
    let registry = place.open().await;
    assert!(registry.resolve(&name("a")).await.is_err());
    assert!(registry.resolve(&name("c")).await.is_err());
    registry.resolve(&name("b")).await.expect("unharmed");
    // A pull makes it whole again.
    registry.import(&place.path("a.gguf"), None, &mut |_| {}).await.expect("again");
    registry.resolve(&name("a")).await.expect("healed");
}

#[tokio::test]
async fn a_blob_that_changed_on_disk_is_never_served() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("a.gguf", &models::gguf(1.0));
    let resolved = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    drop(registry);
    let registry = place.open().await;
    let weights = resolved.manifest.required(helios_model::Role::Weights).expect("weights");
    let path = place.store().join("blobs/sha256").join(weights.blob.digest.hex());
    let mut bytes = fs::read(&path).expect("a blob");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&path, bytes).expect("written");
    let error = registry.blob(weights).await.expect_err("corrupt");
    assert_eq!(error.code(), ErrorCode::Corrupt);
}

#[tokio::test]
async fn a_store_without_a_database_has_nothing_to_back_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy.db"));
    let backup =
        helios_registry::Registry::backup(&store, &helios_registry::RegistryConfig::default(), &copy).await;
    let error = backup.expect_err("nothing to copy");
    assert!(error.to_string().contains("hint: check --store"), "{error}");
    assert!(!copy.exists() && !store.exists(), "an empty database was made");
}
