//! Registries that share a database: what one acknowledged, no other loses.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use helios_metadata::{Fault, SimulatedMetadata};
use helios_registry::{LeasedModel, MetadataConfig, Registry, RegistryConfig, WorkerLease};
use helios_types::{Classify, Digest, ErrorCode};

use super::crashes::{Histories, open};
use super::made::name;
use super::postgres_server::Server;
use crate::membership::worker;
use crate::models::{self, Place};

const ROUNDS: u32 = 12;

/// A registry whose configuration names that database.
async fn open_on(server: &Server, place: &Place) -> Arc<Registry> {
    let metadata = MetadataConfig::parse(&server.url("postgres")).expect("an address");
    let (gc_grace, members_rebuild) = (Duration::ZERO, Duration::ZERO);
    place.open_as(RegistryConfig { metadata, gc_grace, members_rebuild, ..RegistryConfig::default() }).await
}

/// A file whose place and contents are the same for all who pull it.
fn source(place: &Place, number: u32) -> PathBuf {
    place.write(&format!("sources/{number}.gguf"), &models::gguf(number as f32))
}

async fn import(registry: &Arc<Registry>, file: &Path, tag: &str) -> Digest {
    registry.import(file, Some(name(tag)), &mut |_| {}).await.expect(tag).digest
}

/// Moves the tag `m` to one version after the other; those that it was told of.
async fn moves(registry: &Arc<Registry>, files: &[PathBuf]) -> Vec<Digest> {
    let mut acknowledged = Vec::new();
    for file in files {
        acknowledged.push(import(registry, file, "m").await);
    }
    acknowledged
}

/// Pulls and drops a version that the others have as well.
async fn pulls(registry: &Arc<Registry>, common: &Path, tag: &str) {
    for _ in 0..ROUNDS {
        import(registry, common, tag).await;
        let resolved = registry.resolve(&name(tag)).await.expect("a tag that does not dangle");
        for file in &resolved.manifest.files {
            registry.blob(file).await.expect("a file of a version that was pulled here");
        }
        drop(resolved);
        registry.remove(&name(tag)).await.expect("removed");
    }
}

async fn collections(registry: &Arc<Registry>) {
    for _ in 0..ROUNDS {
        registry.gc().await.expect("collected");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_registries_on_one_postgresql_database_lose_nothing_of_each_other() {
    let server = Server::start();
    let (one, two) = (Place::new(), Place::new());
    let registries = [open_on(&server, &one).await, open_on(&server, &two).await];
    let common = source(&one, 0);
    let files =
        |registry: u32| (0..ROUNDS).map(|round| source(&one, 1 + 2 * round + registry)).collect::<Vec<_>>();
    let files = [files(0), files(1)];
    let (first, second, ..) = tokio::join!(
        moves(&registries[0], &files[0]),
        moves(&registries[1], &files[1]),
        pulls(&registries[0], &common, "own:0"),
        pulls(&registries[1], &common, "own:1"),
        collections(&registries[0]),
        collections(&registries[1]),
    );
    let acknowledged: BTreeSet<Digest> = [first.clone(), second.clone()].concat().into_iter().collect();
    for registry in &registries {
        let history = registry.history(&name("m")).await.expect("a history");
        let found: Vec<Digest> = history.iter().map(|entry| entry.digest).collect();
        assert_eq!(found.len(), acknowledged.len(), "{found:?}");
        assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), acknowledged);
        for digest in &found {
            registry.manifest(digest).await.expect("a version of a history");
        }
    }
    for (registry, moved) in registries.iter().zip([&first, &second]) {
        for digest in moved {
            let manifest = registry.manifest(digest).await.expect("a version that was pulled here");
            for file in &manifest.files {
                registry.blob(file).await.expect("its files");
            }
        }
    }
    // Both have moved it, so that each one's file and the database differ. A start and a rebuild change nothing.
    let before = registries[0].history(&name("m")).await.expect("a history");
    drop(registries);
    let config = MetadataConfig::parse(&server.url("postgres")).expect("an address");
    let config = RegistryConfig { metadata: config, ..RegistryConfig::default() };
    one.rebuild_as(&config, |_| {}).await;
    let again = open_on(&server, &one).await;
    assert_eq!(again.history(&name("m")).await.expect("a history"), before);
}

/// What one registry collects, another keeps that has it as well and whose worker leases it.
#[tokio::test]
async fn a_collection_leaves_other_registries_what_they_lease() {
    let metadata = Arc::new(SimulatedMetadata::new(1));
    let (one, two) = (Place::new(), Place::new());
    let (first, second) = (open(&one, &metadata).await, open(&two, &metadata).await);
    let file = source(&one, 1);
    let digest = import(&first, &file, "m").await;
    assert_eq!(import(&second, &file, "m").await, digest);
    let models = vec![LeasedModel { reference: name("m"), manifest: digest }];
    second.members().renew(WorkerLease { models, ..worker("w") }, Duration::from_secs(60)).expect("renewed");
    first.remove(&name("m")).await.expect("removed");
    assert_eq!(first.gc().await.expect("collected").manifests_removed, 1);
    assert_eq!(second.gc().await.expect("collected").manifests_removed, 0);
    let manifest = second.manifest(&digest).await.expect("leased");
    for file in &manifest.files {
        second.blob(file).await.expect("a file of it");
    }
    drop(manifest);
    second.members().leave("w");
    assert_eq!(second.gc().await.expect("collected").manifests_removed, 1);
    second.manifest(&digest).await.expect_err("nobody holds it");
    // What is left of its blobs goes where no manifest names them any more.
    first.gc().await.expect("collected");
    assert!(first.blobs().list().expect("a list").is_empty());
}

/// A registry dies at every commit of a move or a removal, another changes the tag, and the first starts again: what the
/// other was told holds.
#[tokio::test]
async fn an_interrupted_change_undoes_nothing_that_others_did_since() {
    // The seed says whether the commit in which it dies survives.
    for (crash_at, seed) in (0..3).flat_map(|crash_at| (0..4).map(move |seed| (crash_at, seed))) {
        for removes in [false, true] {
            for other_removes in [false, true] {
                let what = format!(
                    "commit {crash_at}, seed {seed}, removes {removes}, the other removes {other_removes}"
                );
                let metadata = Arc::new(SimulatedMetadata::new(seed));
                let (one, two) = (Place::new(), Place::new());
                let [base, mine, other] = [1, 2, 3].map(|number| source(&one, number));
                let (first, second) = (open(&one, &metadata).await, open(&two, &metadata).await);
                import(&first, &base, "m").await;
                import(&first, &mine, "spare").await;
                let others = import(&second, &other, "other").await;
                metadata.plan(crash_at, Fault::Crash);
                let _interrupted = match removes {
                    true => first.remove(&name("m")).await,
                    false => first.tag(&name("spare"), &name("m")).await.map(drop),
                };
                drop(first);
                metadata.restart();
                match other_removes {
                    false => assert_eq!(import(&second, &other, "m").await, others),
                    true => match second.remove(&name("m")).await {
                        // The interrupted removal came through.
                        Err(error) if removes => assert_eq!(error.code(), ErrorCode::ModelNotFound, "{what}"),
                        removed => removed.expect(&what),
                    },
                }
                let first = open(&one, &metadata).await;
                let found = match first.resolve(&name("m")).await {
                    Ok(resolved) => Some(resolved.digest),
                    Err(error) if error.code() == ErrorCode::ModelNotFound => None,
                    Err(error) => panic!("{what}: {error}"),
                };
                assert_eq!(found, (!other_removes).then_some(others), "{what}");
            }
        }
    }
}

/// What one store was changing it settles itself: another that starts before it knows nothing of its files.
#[tokio::test]
async fn an_interrupted_change_is_settled_by_its_own_store() {
    for (crash_at, seed) in (0..2).flat_map(|crash_at| (0..4).map(move |seed| (crash_at, seed))) {
        let metadata = Arc::new(SimulatedMetadata::new(seed));
        let (one, two) = (Place::new(), Place::new());
        let (first, second) = (open(&one, &metadata).await, open(&two, &metadata).await);
        let base = import(&first, &source(&one, 1), "m").await;
        let mine = import(&first, &source(&one, 2), "spare").await;
        metadata.plan(crash_at, Fault::Crash);
        first.tag(&name("spare"), &name("m")).await.map(drop).expect_err("a crash before or behind the file");
        drop((first, second));
        metadata.restart();
        let second = open(&two, &metadata).await;
        drop(second);
        let first = open(&one, &metadata).await;
        let history = first.history(&name("m")).await.expect("a history");
        let found: Vec<Digest> = history.iter().map(|entry| entry.digest).collect();
        let in_file = if crash_at == 0 { vec![base] } else { vec![base, mine] };
        assert_eq!(found, in_file, "commit {crash_at}, seed {seed}: the database follows the file");
    }
}

/// A tag on what another registry brought in makes the version one of this store, too.
#[tokio::test]
async fn what_is_tagged_here_is_kept_here() {
    let metadata = Arc::new(SimulatedMetadata::new(1));
    let (one, two) = (Place::new(), Place::new());
    let (first, second) = (open(&one, &metadata).await, open(&two, &metadata).await);
    let digest = import(&first, &source(&one, 1), "m").await;
    second.tag(&name("m"), &name("own")).await.expect("tagged");
    drop((first, second));
    // Made again from the files of this store alone, the tag does not dangle.
    let alone = open(&two, &Arc::new(SimulatedMetadata::new(2))).await;
    assert_eq!(alone.resolve(&name("own")).await.expect("known").digest, digest);
}

#[tokio::test]
async fn a_store_that_joins_a_database_loses_no_history_and_takes_none() {
    let (one, two) = (Place::new(), Place::new());
    let shared = Arc::new(SimulatedMetadata::new(1));
    let first = open(&one, &shared).await;
    let alone = open(&two, &Arc::new(SimulatedMetadata::new(2))).await;
    let mut digests = Vec::new();
    for (number, registry) in (1..).zip([&alone, &first, &alone, &first]) {
        digests.push(import(registry, &source(&one, number), "m").await);
        crate::origin::moment().await;
    }
    drop(alone);
    let joined = open(&two, &shared).await;
    let expected = [(name("m"), digests)].into_iter().collect();
    assert_eq!(histories_of_versions(&joined).await, expected);
    assert_eq!(histories_of_versions(&first).await, expected);
}

/// Every tag's history, each version of which must be known.
async fn histories_of_versions(registry: &Arc<Registry>) -> Histories {
    let mut histories = Histories::new();
    for model in registry.list().await.expect("a list") {
        let history = registry.history(&model.model).await.expect("a history");
        for entry in &history {
            registry.manifest(&entry.digest).await.expect("a version of a history");
        }
        histories.insert(model.model, history.iter().map(|entry| entry.digest).collect());
    }
    histories
}
