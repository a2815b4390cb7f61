//! Garbage collection beside everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use helios_model::Role;
use helios_registry::{
    LeasedModel, ModelStore, Registry, RegistryConfig, Resolved, WallClock, WorkerLease, WorkerRole,
};
use helios_runtime::Clock;
use helios_types::{ModelRef, NumericsId};

use crate::metadata::made::Random;
use crate::models::{self, Place};

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

#[tokio::test]
async fn only_what_nobody_needs_is_collected() {
    let place = Place::new();
    let registry = place.open().await;
    for (stem, fill) in [("kept", 1.0), ("held", 2.0), ("leased", 3.0), ("gone", 4.0)] {
        let file = place.write(&format!("{stem}.gguf"), &models::gguf(fill));
        registry.import(&file, None, &mut |_| {}).await.expect(stem);
    }
    let held = registry.resolve(&name("held")).await.expect("held");
    let leased = registry.resolve(&name("leased")).await.expect("leased").digest;
    let lease = WorkerLease {
        id: "w".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
        models: vec![LeasedModel { reference: name("leased"), manifest: leased }],
        role: WorkerRole::Unified,
        numerics_id: NumericsId::new("f32", 1, "f16", "test"),
    };
    registry.members().renew(lease, Duration::from_secs(60)).expect("renewed");
    for stem in ["held", "leased", "gone"] {
        registry.remove(&name(stem)).await.expect(stem);
    }

    let report = registry.gc().await.expect("collected");
    assert_eq!((report.manifests_removed, report.manifests_kept), (1, 3));
    // The weights of `gone`; its small files are those of the others.
    assert_eq!((report.blobs_removed, report.bytes_freed), (1, models::gguf(4.0).len() as u64));
    for manifest in [held.manifest.clone(), registry.manifest(&leased).await.expect("leased")] {
        registry.derived_bytes(&manifest, Role::Weights).await.expect("still here");
    }

    registry.members().leave("w");
    drop(held);
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 2);
    registry.resolve(&name("kept")).await.expect("kept");
    let again = registry.gc().await.expect("collected");
    assert_eq!((again.manifests_removed, again.blobs_removed, again.bytes_freed), (0, 0, 0));
}

/// A version that somebody elsewhere holds by a lease, or asked for by its digest, stays; without either it goes.
#[tokio::test]
async fn leases_end_by_themselves_and_questions_by_digest_hold_for_the_grace() {
    let place = Place::new();
    let registry = place.open_with_grace(Duration::from_secs(3600)).await;
    let mut digests = Vec::new();
    for (stem, fill) in [("leased", 1.0), ("asked", 2.0)] {
        let file = place.write(&format!("{stem}.gguf"), &models::gguf(fill));
        digests.push(registry.import(&file, None, &mut |_| {}).await.expect(stem).digest);
    }
    let lease = WorkerLease {
        id: "w".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
        models: vec![LeasedModel { reference: name("leased"), manifest: digests[0] }],
        role: WorkerRole::Unified,
        numerics_id: NumericsId::new("f32", 1, "f16", "test"),
    };
    registry.members().renew(lease.clone(), Duration::from_secs(60)).expect("renewed");
    let address = crate::over_http::serve(helios_registry::http::router(Arc::clone(&registry))).await;
    let client = helios_registry::RegistryClient::new(&address, None).expect("a client");
    drop(client.manifest(&digests[1]).await.expect("known"));
    for stem in ["leased", "asked"] {
        registry.remove(&name(stem)).await.expect(stem);
    }
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 0);
    // The worker dies: nobody renews any more.
    registry.members().renew(lease, Duration::from_millis(1)).expect("renewed");
    while !registry.members().snapshot().workers.is_empty() {
        crate::origin::moment().await;
    }
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 1);
    registry.manifest(&digests[0]).await.expect_err("nobody holds it");
    let manifest = registry.manifest(&digests[1]).await.expect("asked for within the grace");
    registry.derived_bytes(&manifest, Role::Weights).await.expect("with its files");
}

#[tokio::test]
async fn whoever_fetches_file_by_file_for_longer_than_the_grace_is_not_cut() {
    let place = Place::new();
    let now_ms = Arc::new(AtomicU64::new(0));
    let wall_clock = WallClock::Simulated(Arc::clone(&now_ms));
    let config =
        RegistryConfig { wall_clock, gc_grace: Duration::from_secs(60), ..RegistryConfig::default() };
    let registry = Registry::open(&place.store(), config).await.expect("a store");
    let file = place.write("m.gguf", &models::large_gguf(3 << 20));
    registry.import(&file, None, &mut |_| {}).await.expect("imported");
    let address = crate::over_http::serve(helios_registry::http::router(Arc::clone(&registry))).await;
    let client = helios_registry::RegistryClient::new(&address, None).expect("a client");
    let told = client.resolve(&name("m")).await.expect("known");
    let weights = told.manifest.required(Role::Weights).expect("weights").blob.digest;
    registry.remove(&name("m")).await.expect("removed");

    let blobs = told.manifest.files.iter().map(|file| format!("blobs/{}", file.blob.digest));
    let others = [format!("trees/{weights}"), format!("pieces/{weights}/0"), format!("pieces/{weights}/1")];
    for path in blobs.chain(others) {
        now_ms.fetch_add(40_000, Ordering::SeqCst);
        assert_eq!(registry.gc().await.expect("collected").manifests_removed, 0, "before {path}");
        let answer = reqwest::get(format!("{address}/registry/v1/{path}")).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
    }
    now_ms.fetch_add(61_000, Ordering::SeqCst);
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 1);
}

/// A registry that has just started knows no leases: it collects only after workers had time to renew theirs.
#[tokio::test]
async fn a_collection_after_a_restart_waits_for_the_leases() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("m.gguf", &models::gguf(1.0));
    let digest = registry.import(&file, None, &mut |_| {}).await.expect("imported").digest;
    registry.remove(&name("m")).await.expect("removed");
    drop(registry);
    let (gc_grace, members_rebuild) = (Duration::ZERO, Duration::from_secs(2));
    let config = RegistryConfig { gc_grace, members_rebuild, ..RegistryConfig::default() };
    let registry = place.open_as(config).await;
    let mut collection = std::pin::pin!(registry.gc());
    assert!(futures::poll!(&mut collection).is_pending());
    // That one has renewed does not mean that all have.
    registry.members().renew(crate::membership::worker("early"), Duration::from_secs(60)).expect("renewed");
    let waited = Clock.timeout(Duration::from_millis(300), &mut collection).await;
    waited.expect_err("it waits for the others");
    let models = vec![LeasedModel { reference: name("m"), manifest: digest }];
    let lease = WorkerLease { models, ..crate::membership::worker("w") };
    registry.members().renew(lease, Duration::from_secs(60)).expect("renewed");
    assert_eq!(collection.await.expect("collected").manifests_removed, 0);
    assert!(!registry.members().snapshot().rebuilding);
    let manifest = registry.manifest(&digest).await.expect("leased");
    registry.derived_bytes(&manifest, Role::Weights).await.expect("with its files");
}

/// A process that maps the files of a store in place is known to whoever collects it, also if it has told no server; until
/// it ends.
#[tokio::test]
async fn who_maps_files_in_place_holds_them_without_a_server() {
    let place = Place::new();
    let registry = place.open().await;
    let file = place.write("m.gguf", &models::gguf(1.0));
    let digest = registry.import(&file, None, &mut |_| {}).await.expect("imported").digest;
    let address = crate::over_http::serve(helios_registry::http::router(Arc::clone(&registry))).await;
    let client = helios_registry::RegistryClient::new(&address, None).expect("a client");
    let worker = ModelStore::remote(client, &place.path("worker")).expect("a store");
    let resolved = worker.resolve(&name("m")).await.expect("resolved");
    let lease = worker.lease_on_host(resolved.digest).await.expect("the folder is on this host");
    registry.remove(&name("m")).await.expect("removed");
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 0);
    let weights = worker.derived_bytes(&resolved.manifest, Role::Weights).await.expect("mapped in place");
    assert!(*weights == *models::gguf(1.0));
    drop(lease);
    let report = registry.gc().await.expect("collected");
    assert_eq!((report.manifests_removed, registry.manifest(&digest).await.is_err()), (1, true));
    assert!(
        ModelStore::Local(registry).lease_on_host(digest).await.is_none(),
        "it holds what it uses itself"
    );
}

/// Pulls, removals, collections and reads of the same two models at once: a model that resolves can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_fails_beside_pull_remove_and_collection() {
    const ROUNDS: usize = 40;
    let place = Place::new();
    let registry = place.open().await;
    let files = [1.0, 2.0].map(|fill| place.write(&format!("m{fill}.gguf"), &models::gguf(fill)));
    let pulls = async {
        for round in 0..ROUNDS {
            registry.import(&files[round % 2], Some(name("m")), &mut |_| {}).await.expect("a pull");
        }
    };
    let removals = async {
        for _ in 0..ROUNDS {
            // Whether it is there just then is chance.
            let _found = registry.remove(&name("m")).await;
            registry.gc().await.expect("a collection");
        }
    };
    let reads = async {
        for _ in 0..ROUNDS * 4 {
            let Ok(resolved) = registry.resolve(&name("m")).await else {
                tokio::task::yield_now().await;
                continue;
            };
            for file in &resolved.manifest.files {
                let blob = registry.blob(file).await.expect("a read");
                assert_eq!(blob.len() as u64, file.blob.size);
            }
        }
    };
    tokio::join!(pulls, removals, reads);
}

/// Many tasks that pull, tag, remove, collect, lease and read the same few models in an order that the seed and the
/// machine decide: whoever has resolved a model can read all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_fails_whatever_runs_beside_it() {
    const TASKS: u64 = 8;
    const STEPS: usize = 40;
    for seed in 0..3 {
        let place = Place::new();
        let registry = place.open().await;
        let files = [1.0, 2.0, 3.0].map(|fill| place.write(&format!("m{fill}.gguf"), &models::gguf(fill)));
        let tasks = (0..TASKS).map(|task| {
            let mut random = Random(seed * TASKS + task);
            let (registry, files) = (registry.clone(), files.clone());
            async move {
                for _ in 0..STEPS {
                    step(&registry, &files, &mut random).await;
                }
            }
        });
        futures::future::join_all(tasks.map(tokio::task::spawn)).await.into_iter().for_each(|ended| {
            ended.expect("no read failed");
        });
        for model in ["m0", "m1"] {
            drop(registry.remove(&name(model)).await);
        }
        registry.gc().await.expect("collected");
        let counts = registry.gc().await.expect("collected again");
        assert_eq!((counts.manifests_kept, counts.blobs_removed), (0, 0), "seed {seed}: {counts:?}");
    }
}

async fn step(registry: &Arc<Registry>, files: &[std::path::PathBuf], random: &mut Random) {
    let model = name(&format!("m{}", random.below(2)));
    match random.below(8) {
        0..=1 => {
            let file = &files[random.below(3) as usize];
            let pulled = registry.import(file, Some(model), &mut |_| {}).await.expect("a pull");
            read(registry, &pulled).await;
        }
        // Whether it is there just then is chance.
        2 => drop(registry.remove(&model).await),
        3 => drop(registry.gc().await.expect("a collection")),
        4 => drop(registry.tag(&model, &name("m0")).await),
        _ => {
            if let Ok(resolved) = registry.resolve(&model).await {
                tokio::task::yield_now().await;
                read(registry, &resolved).await;
            }
        }
    }
}

async fn read(registry: &Arc<Registry>, resolved: &Resolved) {
    for file in &resolved.manifest.files {
        let blob = registry.blob(file).await.expect("a read");
        assert_eq!(blob.len() as u64, file.blob.size);
    }
}
