//! A registry of 100,000 models with a million blobs: how long it takes to start, and to resolve a tag. And how long
//! one takes to recover: after a kill, and when its database is gone.
//!
//! Prints figures, asserts none; long, so by name only:
//! `cargo test --profile ci --workspace --test it -- --ignored --nocapture scale::`.

use std::fs;
use std::process::Command;
use std::time::Instant;

use helios_metadata::{Change, Metadata, SqlMetadata};

use super::made::{Random, history, manifest, name, put, set_tag};
use crate::models::Place;

const MODELS: u32 = 100_000;
const BLOBS_PER_MODEL: u32 = 10;
const QUESTIONS: usize = 20_000;

#[tokio::test]
#[ignore = "long: fills a database with a million blobs"]
#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn a_large_registry_starts_and_resolves() {
    let place = Place::new();
    drop(place.open().await);
    let began = Instant::now();
    fill(&place).await;
    println!("filled in {:.1} s", began.elapsed().as_secs_f64());

    let began = Instant::now();
    let registry = place.open().await;
    println!("start {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let mut random = Random(1);
    let mut microseconds = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let tag = name(&format!("org/model-{}:v", random.below(MODELS)));
        let began = Instant::now();
        registry.resolve(&tag).await.expect("resolved");
        microseconds.push(began.elapsed().as_micros());
    }
    microseconds.sort_unstable();
    let at = |share: f64| microseconds[(QUESTIONS as f64 * share) as usize];
    println!("resolve of a tag: p50 {} us, p99 {} us, p99.9 {} us", at(0.5), at(0.99), at(0.999));
    let began = Instant::now();
    assert_eq!(registry.list().await.expect("a list").len(), MODELS as usize);
    println!("list of all {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
}

async fn fill(place: &Place) {
    let database = SqlMetadata::sqlite(&place.store().join("metadata.db")).await.expect("the database");
    let numbers: Vec<u32> = (0..MODELS).collect();
    for some in numbers.chunks(500) {
        let model = |number: &u32| {
            let blobs: Vec<u32> = (0..BLOBS_PER_MODEL).map(|blob| number * BLOBS_PER_MODEL + blob).collect();
            let made = manifest(&number.to_string(), &blobs);
            [put(&made), set_tag(&format!("org/model-{number}:v"), &[made.0])]
        };
        let changes: Vec<Change> = some.iter().flat_map(model).collect();
        database.commit(&changes).await.expect("committed");
    }
    database.close().await;
}

/// Manifests, and as many tags: 100,000 objects.
const RECOVERED_MODELS: u32 = 50_000;

#[tokio::test]
#[ignore = "long: writes 100,000 files"]
#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn a_registry_of_100_000_objects_recovers() {
    let place = Place::new();
    drop(place.open().await);
    write_files(&place);
    for file in ["metadata.db", "metadata.db-wal", "metadata.db-shm"] {
        drop(fs::remove_file(place.store().join(file)));
    }
    let began = Instant::now();
    let registry = place.open().await;
    println!("the database is lost: {:.2} s for 100,000 objects", began.elapsed().as_secs_f64());
    assert_eq!(registry.list().await.expect("a list").len(), RECOVERED_MODELS as usize);
    for number in 0..1_000 {
        let [from, to] = ["v", "w"].map(|tag| name(&format!("org/model-{number}:{tag}")));
        registry.tag(&from, &to).await.expect("tagged");
    }
    // What a kill leaves: the files as they are, the database with its log, and no lock.
    let killed = Place::new();
    let copied = Command::new("cp").arg("-a").arg(place.store()).arg(killed.store()).status();
    assert!(copied.expect("cp runs").success());
    let began = Instant::now();
    let again = killed.open().await;
    println!("after a kill: {:.3} s for 100,000 objects", began.elapsed().as_secs_f64());
    assert_eq!(again.list().await.expect("a list").len(), RECOVERED_MODELS as usize + 1_000);
    drop(again);
    let began = Instant::now();
    let counts = killed.rebuild().await;
    println!("rebuilt: {:.2} s for 100,000 objects", began.elapsed().as_secs_f64());
    assert_eq!(counts.manifests, u64::from(RECOVERED_MODELS));
}

fn write_files(place: &Place) {
    for number in 0..RECOVERED_MODELS {
        let (digest, made) = manifest(&number.to_string(), &[number]);
        let folder = place.store().join("manifests");
        fs::write(folder.join(format!("{}.json", digest.hex())), made.to_bytes()).expect("a manifest");
        let folder = place.store().join(format!("tags/org/model-{number}"));
        fs::create_dir_all(&folder).expect("a folder");
        let history = serde_json::to_vec(&history(&[digest])).expect("JSON");
        fs::write(folder.join("@v.json"), history).expect("a tag");
    }
}
