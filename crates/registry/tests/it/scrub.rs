//! The scrubber: a flipped bit is found without a reader, put aside, and replaced from where the model came from.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use helios_model::Role;
use helios_registry::{FromSource, Registry, RegistryConfig, ScrubConfig, ScrubReport};
use helios_runtime::Clock;

use crate::models::{self, Place};

async fn open(place: &Place, bytes_per_second: u64) -> Arc<Registry> {
    let scrub = ScrubConfig { bytes_per_second, ..ScrubConfig::default() };
    let members_rebuild = std::time::Duration::ZERO;
    let config = RegistryConfig { scrub, members_rebuild, ..RegistryConfig::default() };
    Registry::open(&place.store(), config).await.expect("a store")
}

/// A store with one model, and the files of its weights and of its tokenizer, which was derived at import.
async fn imported(place: &Place) -> (Arc<Registry>, [PathBuf; 2]) {
    let registry = open(place, u64::MAX).await;
    let source = place.write("m.gguf", &models::gguf(1.0));
    let resolved = registry.import(&source, None, &mut |_| {}).await.expect("imported");
    let path = |role| {
        let file = resolved.manifest.required(role).expect("every model has it");
        place.store().join("blobs/sha256").join(file.blob.digest.hex())
    };
    // Verified since boot: a reader would not notice what happens now.
    for file in &resolved.manifest.files {
        registry.blob(file).await.expect("right");
    }
    (registry, [path(Role::Weights), path(Role::Tokenizer)])
}

fn flip_a_bit(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("a blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn a_flipped_bit_is_found_put_aside_and_repaired_from_the_source() {
    let place = Place::new();
    let (registry, files) = imported(&place).await;
    let right = files.each_ref().map(|path| fs::read(path).expect("a blob"));
    let healthy = registry.scrub(&FromSource).await.expect("a pass");
    assert!(healthy.blobs > 2 && healthy.damaged == 0, "{healthy:?}");

    let damages: [fn(&PathBuf); 2] = [flip_a_bit, |path| fs::remove_file(path).expect("lost")];
    for (file, damage) in files.iter().zip(damages) {
        damage(file);
        let report = registry.scrub(&FromSource).await.expect("a pass");
        assert_eq!(report, ScrubReport { damaged: 1, repaired: 1, bytes: report.bytes, ..healthy });
    }
    assert_eq!(files.each_ref().map(|path| fs::read(path).expect("replaced")), right);
    let quarantine = fs::read_dir(place.store().join("quarantine")).expect("a folder");
    assert_eq!(quarantine.count(), 1, "the wrong file is kept for whoever wants to look");
    assert_eq!(registry.scrub(&FromSource).await.expect("a pass"), healthy);
}

#[tokio::test]
async fn what_cannot_be_repaired_is_reported_and_tried_again_in_the_next_pass() {
    let place = Place::new();
    let (registry, files) = imported(&place).await;
    flip_a_bit(&files[0]);
    let source = place.path("m.gguf");
    let content = fs::read(&source).expect("the source");
    fs::write(&source, models::gguf(2.0)).expect("another file now");
    for _ in 0..2 {
        let report = registry.scrub(&FromSource).await.expect("a pass");
        assert_eq!((report.damaged, report.repaired), (1, 0));
        assert!(!files[0].exists(), "a wrong file is not left where readers look");
    }
    fs::write(&source, content).expect("it is back");
    let report = registry.scrub(&FromSource).await.expect("a pass");
    assert_eq!((report.damaged, report.repaired), (1, 1));
}

#[tokio::test]
async fn an_interrupted_pass_goes_on_where_it_stopped() {
    let place = Place::new();
    let (registry, _) = imported(&place).await;
    let whole = registry.scrub(&FromSource).await.expect("a pass");
    let digests = {
        let mut names: Vec<_> = fs::read_dir(place.store().join("blobs/sha256")).expect("blobs").collect();
        names.sort_by_key(|entry| entry.as_ref().expect("an entry").file_name());
        names.into_iter().map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>()
    };
    let stopped = format!(r#"{{"began_at":1,"after":"sha256:{}","done":false}}"#, digests[1].display());
    place.write("store/scrub.json", stopped.as_bytes());
    let rest = registry.scrub(&FromSource).await.expect("the rest");
    assert_eq!(rest.blobs, whole.blobs - 2);
}

#[tokio::test]
async fn small_blobs_keep_to_the_rate_like_large_ones() {
    let place = Place::new();
    let (registry, _) = imported(&place).await;
    let bytes = registry.scrub(&FromSource).await.expect("a pass").bytes;
    drop(registry);
    let registry = open(&place, bytes * 4).await;
    let began = Clock.now();
    let report = registry.scrub(&FromSource).await.expect("a pass");
    assert_eq!(report.bytes, bytes);
    // A bound and no measurement: whatever the machine does, that many bytes take a quarter of a second.
    assert!(began.elapsed() >= Duration::from_millis(249), "{:?}", began.elapsed());
}
