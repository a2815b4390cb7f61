//! Variants of one model: kept once, read as if kept twice.

use std::fs;
use std::sync::Arc;

use futures::TryStreamExt;
use helios_model::Role;
use helios_registry::{ModelStore, Registry, Resolved};
use helios_storage::Checkpoint;

use crate::models::Place;
use crate::variants::{import, open, write_variant};

async fn assert_reads_back(registry: &Arc<Registry>, place: &Place, model: &Resolved, folder: &str) {
    let expected = fs::read(place.path(folder).join("model.safetensors")).expect("the source");
    let entry = model.manifest.required(Role::Weights).expect("weights");
    let file = ModelStore::Local(Arc::clone(registry)).file(entry).await.expect("opened");
    let checkpoint = Checkpoint::from_safetensors(vec![("model.safetensors".to_owned(), file)], None);
    assert_eq!(checkpoint.expect("a checkpoint").tensors().len(), 4);
    let content = registry.content(entry.blob);
    let stream = content.read(100..expected.len() as u64).await.expect("readable");
    let pieces: Vec<_> = stream.try_collect().await.expect("streamed");
    assert!(pieces.concat() == expected[100..], "{folder}");
}

#[tokio::test]
async fn variants_are_kept_as_recipes_and_read_the_same() {
    let place = Place::new();
    let registry = open(&place, false).await;
    write_variant(&place, "base", &[1, 2, 3, 4]);
    write_variant(&place, "tuned", &[1, 2, 3, 9]);
    write_variant(&place, "tuned-again", &[1, 2, 8, 9]);
    write_variant(&place, "stranger", &[11, 12, 13, 14]);
    let mut models = Vec::new();
    for folder in ["base", "tuned", "tuned-again", "stranger"] {
        models.push((folder, import(&registry, &place, folder).await));
    }
    let report = registry.deduplicate().await.expect("deduplicated");
    assert_eq!((report.files, report.recipes_made, report.recipes_kept), (4, 2, 0));
    // 3 of 4 tensors of 16 KiB are shared with the base; the last one of the third with the second's own.
    assert!((5 * 16_384 - 16_384..=6 * 16_384).contains(&report.bytes_saved), "{report:?}");
    for (folder, model) in &models {
        assert_reads_back(&registry, &place, model, folder).await;
    }
    let again = registry.deduplicate().await.expect("deduplicated");
    assert_eq!((again.recipes_made, again.recipes_kept, again.bytes_saved), (0, 2, 0));

    // What recipes need stays when the model it came from goes.
    registry.remove(&"base".parse().expect("a name")).await.expect("removed");
    let (_, base) = models.remove(0);
    drop(base);
    registry.gc().await.expect("collected");
    for (folder, model) in &models {
        assert_reads_back(&registry, &place, model, folder).await;
    }
    for folder in ["tuned", "tuned-again", "stranger"] {
        registry.remove(&folder.parse().expect("a name")).await.expect("removed");
    }
    models.clear();
    registry.gc().await.expect("collected");
    for folder in ["blobs/sha256", "recipes", "derived"] {
        assert_eq!(fs::read_dir(place.store().join(folder)).expect(folder).count(), 0, "{folder}");
    }
}

#[tokio::test]
async fn new_models_are_deduplicated_as_they_come_if_asked() {
    let place = Place::new();
    let registry = open(&place, true).await;
    write_variant(&place, "base", &[1, 2, 3, 4]);
    write_variant(&place, "tuned", &[1, 2, 3, 9]);
    import(&registry, &place, "base").await;
    let tuned = import(&registry, &place, "tuned").await;
    assert_eq!(fs::read_dir(place.store().join("recipes")).expect("recipes").count(), 1);
    assert_reads_back(&registry, &place, &tuned, "tuned").await;
    let again = import(&registry, &place, "tuned").await;
    assert_eq!(again.digest, tuned.digest, "the same files are the same version, however they are kept");
    assert_reads_back(&registry, &place, &again, "tuned").await;
}
