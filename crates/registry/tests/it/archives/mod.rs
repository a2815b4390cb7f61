//! Models in one file: out of one store, into another, and everything that can be wrong with such a file.

mod beside;
mod made;
mod refused;
mod resumed;

use std::fs;

use futures::StreamExt;
use helios_model::Role;
use helios_registry::{ArchiveReport, Registry, RegistryError};
use helios_types::ModelRef;

use crate::models::{self, Place};
use crate::variants;
use made::{archive_of, entries, name, pieces, two_models};

/// Brings an archive in.
async fn import(registry: &std::sync::Arc<Registry>, bytes: &[u8]) -> Result<ArchiveReport, RegistryError> {
    registry.import_archive(pieces(bytes, 100_000), &mut |_| {}).await
}

#[tokio::test]
async fn models_come_back_with_the_same_names_tags_and_manifests() {
    let (from, to) = (Place::new(), Place::new());
    let registry = two_models(&from).await;
    let archive = archive_of(&registry, &["org/b:v2", "a", "org/b:v2"]).await;
    let there = to.open().await;
    let report = import(&there, &archive).await.expect("imported");
    let named: Vec<String> = report.models.iter().map(|model| model.model.to_string()).collect();
    assert_eq!(named, ["a:latest", "org/b:v2"]);

    let digests = |models: Vec<helios_registry::ModelSummary>| -> Vec<_> {
        models.into_iter().map(|model| (model.model, model.digest, model.size)).collect()
    };
    assert_eq!(digests(there.list().await.expect("a list")), digests(registry.list().await.expect("a list")));
    for model in ["a", "org/b:v2"] {
        let (before, after) = (
            registry.resolve(&name(model)).await.expect(model),
            there.resolve(&name(model)).await.expect(model),
        );
        assert_eq!(before.manifest.to_bytes(), after.manifest.to_bytes());
        for file in &after.manifest.files {
            let bytes = there.blob(file).await.expect(&file.path);
            assert_eq!(*bytes, *registry.blob(file).await.expect(&file.path), "{}", file.path);
        }
        let history = there.history(&name(model)).await.expect("a history");
        assert_eq!((history.len(), history[0].source.as_str()), (1, "import"));
    }
    let again = import(&there, &archive).await.expect("imported twice");
    assert_eq!((again.blobs_added, again.bytes_added, again.blobs_there), (0, 0, report.blobs_added));
    assert_eq!(there.history(&name("a")).await.expect("a history").len(), 1, "nothing moved");
}

#[tokio::test]
async fn an_archive_is_always_the_same_and_has_each_blob_once() {
    let place = Place::new();
    let registry = two_models(&place).await;
    let archive = archive_of(&registry, &["a", "org/b:v2"]).await;
    assert_eq!(archive, archive_of(&registry, &["org/b:v2", "a"]).await, "the order of names does not count");
    let entries = entries(&archive);
    let mut names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["oci-layout", "index.json"]);
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    let model = registry.resolve(&name("a")).await.expect("a");
    // Of the two models only the weights differ: two manifests of either kind, one more file.
    assert_eq!(count, 2 + 4 + model.manifest.files.len() + 1);

    let whole = registry.archive(&[name("a"), name("org/b:v2")]).await.expect("an archive");
    for (start, end) in [(0, 1), (511, 513), (700, whole.size() - 3), (whole.size() - 1, whole.size())] {
        let mut part = Vec::new();
        let mut stream = whole.read(start..end);
        while let Some(piece) = stream.next().await {
            part.extend_from_slice(&piece.expect("bytes"));
        }
        assert_eq!(part, archive[start as usize..end as usize], "{start}..{end}");
    }
}

/// The layout as other tools see it: every descriptor leads to the bytes that it names.
#[tokio::test]
async fn an_archive_is_an_oci_image_layout() {
    let place = Place::new();
    let registry = two_models(&place).await;
    let archive = archive_of(&registry, &["a", "org/b:v2"]).await;
    let entries = entries(&archive);
    let find = |path: &str| &entries.iter().find(|(name, _)| name == path).expect(path).1;
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
    assert_eq!(json(find("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let index = json(find("index.json"));
    let manifests = index["manifests"].as_array().expect("manifests");
    assert_eq!(manifests.len(), 2);
    let follow = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let bytes = find(&format!("blobs/{}", digest.replace(':', "/")));
        assert_eq!(format!("sha256:{}", models::sha256(bytes)), digest);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    };
    for descriptor in manifests {
        let manifest = json(follow(descriptor));
        follow(&manifest["config"]);
        for layer in manifest["layers"].as_array().expect("layers") {
            follow(layer);
        }
    }
    assert_eq!(manifests[1]["annotations"]["org.opencontainers.image.ref.name"], "org/b:v2");
    // The listing of a tar that is no friend of ours.
    let file = place.write("models.tar", &archive);
    let listed = std::process::Command::new("tar").arg("tf").arg(&file).output().expect("tar runs");
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), entries.len());
}

#[tokio::test]
async fn what_lies_in_other_files_is_put_together_on_its_way_out() {
    let (from, to) = (Place::new(), Place::new());
    let registry = variants::open(&from, false).await;
    for (folder, fills) in [("base", [1, 2, 3, 4]), ("variant", [1, 2, 3, 9])] {
        variants::write_variant(&from, folder, &fills);
        variants::import(&registry, &from, folder).await;
    }
    let before = archive_of(&registry, &["base", "variant"]).await;
    assert_eq!(registry.deduplicate().await.expect("deduplicated").recipes_made, 1);
    assert!(archive_of(&registry, &["base", "variant"]).await == before, "how blobs are kept does not show");
    let there = to.open().await;
    import(&there, &before).await.expect("imported");
    let model = there.resolve(&name("variant")).await.expect("variant");
    let weights = there.derived_bytes(&model.manifest, Role::Weights).await.expect("weights");
    assert!(*weights == *fs::read(from.path("variant/model.safetensors")).expect("the source"));
}

#[tokio::test]
async fn a_tag_that_is_there_is_moved_and_keeps_its_history() {
    let (from, to) = (Place::new(), Place::new());
    let archive = archive_of(&two_models(&from).await, &["a"]).await;
    let there = to.open().await;
    let file = to.write("own.gguf", &models::gguf(7.0));
    let own = there.import(&file, Some(name("a")), &mut |_| {}).await.expect("imported");
    import(&there, &archive).await.expect("imported");
    let history = there.history(&name("a")).await.expect("a history");
    assert_eq!((history.len(), history[0].digest), (2, own.digest));
    assert_eq!(fs::read_dir(to.store().join("partial")).expect("a folder").count(), 0);
}

#[tokio::test]
async fn names_that_are_not_here_or_too_many_are_no_archive() {
    let place = Place::new();
    let registry = two_models(&place).await;
    let error = registry.archive(&[name("a"), name("b")]).await.expect_err("no such model").to_string();
    assert!(error.contains("no model `b:latest`"), "{error}");
    for models in [Vec::new(), vec![name("a"); 1_001]] {
        let error = registry.archive(&models as &[ModelRef]).await.expect_err("no archive").to_string();
        assert!(error.contains("an archive has 1 to 1000"), "{error}");
    }
}
