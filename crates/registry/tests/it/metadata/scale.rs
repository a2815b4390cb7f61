//! A registry of 100,000 models with a million blobs: how long it takes to start, and to resolve a tag.
//!
//! Prints figures, asserts none; long, so by name only:
//! `cargo test --profile ci --workspace --test it -- --ignored --nocapture a_large_registry`.

use std::time::Instant;

use helios_registry::metadata::{Change, Metadata, SqlMetadata};

use super::made::{Random, manifest, name, put, set_tag};
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
