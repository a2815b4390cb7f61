//! A registry that dies at any commit of its database, and databases made again from the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use helios_metadata::{Fault, SimulatedMetadata};
use helios_registry::{Registry, RegistryConfig, RegistryError};
use helios_storage::RealDisk;
use helios_types::{Digest, ModelRef};

use super::made::{Random, name};
use crate::models::{self, Place};

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
enum Step {
    Import(usize, &'static str),
    Tag(&'static str, &'static str),
    Remove(&'static str),
    Collect,
}

const NAMES: [&str; 3] = ["m:v", "x", "org/y:z"];

/// What every tag pointed to.
pub(super) type Histories = BTreeMap<ModelRef, Vec<Digest>>;

pub(super) async fn open(place: &Place, metadata: &Arc<SimulatedMetadata>) -> Arc<Registry> {
    let config = || RegistryConfig {
        gc_grace: std::time::Duration::ZERO,
        members_rebuild: std::time::Duration::ZERO,
        ..RegistryConfig::default()
    };
    loop {
        let opened = Registry::open_on(Arc::new(RealDisk), metadata.clone(), &place.store(), config()).await;
        match opened {
            Err(RegistryError::StoreInUse { .. }) => tokio::task::yield_now().await,
            result => return result.expect("the store opens"),
        }
    }
}

fn files(place: &Place) -> [PathBuf; 3] {
    [1.0, 2.0, 3.0].map(|fill| place.write(&format!("m{fill}.gguf"), &models::gguf(fill)))
}

async fn take(registry: &Arc<Registry>, files: &[PathBuf], step: Step) -> Result<(), RegistryError> {
    match step {
        Step::Import(file, to) => registry.import(&files[file], Some(name(to)), &mut |_| {}).await.map(drop),
        Step::Tag(from, to) => registry.tag(&name(from), &name(to)).await.map(drop),
        Step::Remove(tag) => registry.remove(&name(tag)).await,
        Step::Collect => registry.gc().await.map(drop),
    }
}

/// Every tag's history, each version of which must be there with all its files.
async fn histories(registry: &Arc<Registry>) -> Histories {
    let mut histories = Histories::new();
    for model in registry.list().await.expect("a list") {
        let history = registry.history(&model.model).await.expect("a history");
        for entry in &history {
            let manifest = registry.manifest(&entry.digest).await.expect("a version of a history");
            for file in &manifest.files {
                registry.blob(file).await.expect("a file of a version");
            }
        }
        histories.insert(model.model, history.iter().map(|entry| entry.digest).collect());
    }
    histories
}

#[tokio::test]
async fn a_crash_at_any_commit_loses_nothing_and_converges_with_the_files() {
    let steps = [
        Step::Import(0, "m:v"),
        Step::Import(1, "m:v"),
        Step::Tag("m:v", "x"),
        Step::Remove("x"),
        Step::Import(2, "x"),
        Step::Remove("x"),
        Step::Collect,
        Step::Import(0, "org/y:z"),
    ];
    for crash_at in 0..64 {
        let place = Place::new();
        let files = files(&place);
        let metadata = Arc::new(SimulatedMetadata::new(crash_at));
        let registry = open(&place, &metadata).await;
        metadata.plan(crash_at, Fault::Crash);
        let mut acknowledged = Histories::new();
        let mut interrupted = None;
        for step in steps {
            let outcome = take(&registry, &files, step).await;
            if outcome.is_err() {
                interrupted = Some(step);
                break;
            }
            acknowledged = histories(&registry).await;
        }
        drop(registry);
        metadata.restart();
        let registry = open(&place, &metadata).await;
        let found = histories(&registry).await;
        let Some(step) = interrupted else { return };
        if found != acknowledged {
            // The step that was not acknowledged may have been made, whole.
            let changed: Vec<&ModelRef> =
                NAMES_PARSED.iter().filter(|tag| found.get(tag) != acknowledged.get(tag)).collect();
            assert_eq!(changed.len(), 1, "crash at {crash_at} in {step:?}: {changed:?}");
        }
        drop(registry);
        let rebuilt = open(&place, &Arc::new(SimulatedMetadata::new(0))).await;
        assert_eq!(
            histories(&rebuilt).await,
            found,
            "crash at {crash_at} in {step:?}: the files say otherwise"
        );
    }
    unreachable!("the steps end before so many commits");
}

static NAMES_PARSED: std::sync::LazyLock<Vec<ModelRef>> =
    std::sync::LazyLock::new(|| NAMES.iter().map(|text| name(text)).collect());

#[tokio::test]
async fn a_rebuilt_database_says_what_the_lost_one_said() {
    for seed in 0..3 {
        let mut random = Random(seed + 1);
        let place = Place::new();
        let files = files(&place);
        let registry = place.open().await;
        registry.put_record("pin", "a", &seed).await.expect("a record");
        for _ in 0..20 {
            let tag = |random: &mut Random| NAMES[random.below(3) as usize];
            let step = match random.below(5) {
                0..=1 => Step::Import(random.below(3) as usize, tag(&mut random)),
                2 => Step::Tag(tag(&mut random), tag(&mut random)),
                3 => Step::Remove(tag(&mut random)),
                _ => Step::Collect,
            };
            match take(&registry, &files, step).await {
                Ok(()) | Err(RegistryError::ModelNotFound { .. }) => {}
                Err(error) => unreachable!("{step:?}: {error}"),
            }
        }
        let (before, models) = (histories(&registry).await, registry.list().await.expect("a list"));
        drop(registry);
        for damage in [None, Some("it is rubbish from here on")] {
            if let Some(rubbish) = damage {
                fs::write(place.store().join("metadata.db"), rubbish).expect("damaged");
            }
            place.rebuild().await;
            let registry = place.open().await;
            assert_eq!(histories(&registry).await, before, "seed {seed}");
            assert_eq!(registry.list().await.expect("a list"), models, "seed {seed}");
            let kept: Option<u64> = registry.record("pin", "a").await.expect("an answer");
            assert_eq!(kept.is_some(), damage.is_none(), "records live in the database alone");
        }
    }
}

#[tokio::test]
async fn a_damaged_database_is_refused_with_the_way_out_and_a_lost_one_is_made_again() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("m.gguf", &models::gguf(1.0));
    registry.import(&file, Some(name("m")), &mut |_| {}).await.expect("imported");
    let before = histories(&registry).await;
    drop(registry);
    let forget_database = || {
        for file in ["metadata.db", "metadata.db-wal", "metadata.db-shm"] {
            drop(fs::remove_file(place.store().join(file)));
        }
    };
    forget_database();
    let registry = place.open().await;
    assert_eq!(histories(&registry).await, before);
    drop(registry);
    forget_database();
    fs::write(place.store().join("metadata.db"), [0x42; 4096]).expect("damaged");
    let error = loop {
        match Registry::open(&place.store(), RegistryConfig::default()).await {
            Err(RegistryError::StoreInUse { .. }) => tokio::task::yield_now().await,
            result => break result.expect_err("damaged"),
        }
    };
    assert!(error.to_string().contains("helios registry rebuild"), "{error}");
    let counts = place.rebuild().await;
    assert_eq!((counts.manifests, counts.tags), (1, 1));
    assert_eq!(histories(&place.open().await).await, before);
}

/// A rebuild is killed while it reads the files: the store as it was then has all its records, and gives them to the next
/// rebuild.
#[tokio::test]
async fn a_rebuild_that_is_killed_loses_no_records() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("m.gguf", &models::gguf(1.0));
    registry.import(&file, Some(name("m")), &mut |_| {}).await.expect("imported");
    registry.put_record("pin", "a", &7).await.expect("a record");
    let before = histories(&registry).await;
    drop(registry);
    let killed = Place::new();
    let (from, to) = (place.store(), killed.store());
    let copy_once = move |progress: helios_registry::RebuildProgress| {
        if progress.done == 1 {
            let copied = std::process::Command::new("cp").arg("-a").arg(&from).arg(&to).status();
            assert!(copied.expect("cp runs").success());
        }
    };
    place.rebuild_as(&RegistryConfig::default(), copy_once).await;
    assert!(killed.store().join("metadata.db.new").exists(), "it was killed too late to show anything");
    for place in [&killed, &place] {
        for rebuilds in [false, true] {
            if rebuilds {
                place.rebuild().await;
            }
            let registry = place.open().await;
            assert_eq!(histories(&registry).await, before);
            assert_eq!(registry.record("pin", "a").await.expect("an answer"), Some(7));
            assert!(!place.store().join("metadata.db.new").exists());
        }
    }
}

/// What a crash between the two renames leaves: the new database, whole, and the old one's log.
#[tokio::test]
async fn a_rebuild_that_was_whole_takes_its_place_at_the_next_start() {
    let place = Place::new();
    let registry = place.open().await;
    registry.put_record("pin", "a", &7).await.expect("a record");
    drop(registry);
    place.rebuild().await;
    let path = |ending: &str| place.store().join(format!("metadata.db{ending}"));
    fs::rename(path(""), path(".new")).expect("renamed");
    fs::write(path("-wal"), "the log of another").expect("written");
    let registry = place.open().await;
    assert_eq!(registry.record("pin", "a").await.expect("an answer"), Some(7));
}
