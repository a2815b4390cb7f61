//! A store of several directories: what leaves, what stays, and that a model is read wherever its bytes are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use helios_model::Role;
use helios_registry::{
    FetchConfig, FromSource, LeasedModel, ModelStore, Registry, RegistryClient, RegistryConfig, Resolved,
    ScrubConfig, WorkerLease, WorkerRole, http,
};
use helios_storage::tiers::{TierDirectory, TierKind, TierState};
use helios_types::{Classify, ErrorCode, ModelRef, NumericsId};

use crate::models::{self, Place};
use crate::origin::{Manner, Origin, moment};
use crate::over_http::serve;

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

fn tier(kind: TierKind, dir: PathBuf, budget_bytes: u64) -> TierDirectory {
    TierDirectory { kind, dir, budget_bytes: Some(budget_bytes) }
}

/// Bytes of one model's weights and half of another's, and room for the small files of all.
fn one_model() -> u64 {
    models::gguf(1.0).len() as u64 * 3 / 2 + small_files()
}

fn small_files() -> u64 {
    8 << 10
}

async fn open(place: &Place, tiers: Vec<TierDirectory>) -> Arc<Registry> {
    helios_runtime::install_tls_provider();
    let fetch = FetchConfig {
        attempts_max: 2,
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        ..FetchConfig::default()
    };
    let scrub = ScrubConfig { bytes_per_second: u64::MAX, ..ScrubConfig::default() };
    let (gc_grace, members_rebuild) = (Duration::ZERO, Duration::ZERO);
    let config =
        RegistryConfig { fetch, tiers, scrub, gc_grace, members_rebuild, ..RegistryConfig::default() };
    Registry::open(&place.store(), config).await.expect("the store opens")
}

async fn open_bounded(place: &Place, budget_bytes: u64) -> Arc<Registry> {
    open(place, vec![tier(TierKind::Nvme, place.store(), budget_bytes)]).await
}

/// A web server with a model of that fill, and the model pulled from there.
async fn pulled(registry: &Arc<Registry>, fill: f32) -> (Origin, Resolved) {
    let origin = Origin::start(models::gguf(fill), Manner::Honest).await;
    let named = Some(name(&format!("m{fill}")));
    let resolved = registry.pull(&origin.url(), named, &mut |_| {}).await.expect("pulled");
    (origin, resolved)
}

fn is_in(dir: &Path, model: &Resolved) -> bool {
    let weights = model.manifest.required(Role::Weights).expect("weights").blob.digest;
    dir.join("blobs/sha256").join(weights.hex()).is_file()
}

async fn assert_reads(registry: &Arc<Registry>, model: &Resolved, fill: f32) {
    let weights = registry.derived_bytes(&model.manifest, Role::Weights).await.expect("weights");
    assert!(*weights == *models::gguf(fill));
}

/// A version that nobody in this process holds any more.
fn released(model: Resolved) -> Resolved {
    Resolved { manifest: Arc::new((*model.manifest).clone()), ..model }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_fetched_again_makes_room_and_comes_back_when_it_is_read() {
    let place = Place::new();
    let registry = open_bounded(&place, one_model()).await;
    let (first_origin, first) = pulled(&registry, 1.0).await;
    let first = released(first);
    let (_second_origin, second) = pulled(&registry, 2.0).await;
    assert!(!is_in(&place.store(), &first) && is_in(&place.store(), &second));
    // Everything that is asked before a model answers is still here.
    let resolved = registry.resolve(&name("m1")).await.expect("known");
    registry.derived_bytes(&resolved.manifest, Role::Tokenizer).await.expect("the small files stay");

    let second = released(second);
    let asked = first_origin.asked().len();
    assert_reads(&registry, &resolved, 1.0).await;
    assert!(first_origin.asked().len() > asked, "fetched again");
    assert!(is_in(&place.store(), &first) && !is_in(&place.store(), &second));
    let report = &registry.tiers().await.expect("a report")[0];
    assert!(report.used_bytes <= one_model(), "{report:?}");
    // What it learned about where models come from is found again at the next start.
    drop((registry, resolved));
    let registry = open_bounded(&place, one_model()).await;
    let third = pulled(&registry, 3.0).await;
    assert!(!is_in(&place.store(), &first) && is_in(&place.store(), &third.1));
}

/// A version that a client pushed, which has the weights of `pulled`.
async fn pushed_with_weights_of(registry: &Arc<Registry>, pulled: &Resolved, as_name: &str) -> Resolved {
    let weights = pulled.manifest.required(Role::Weights).expect("weights");
    let intake = registry.intake();
    let note = intake.store(b"Tuned.".to_vec()).await.expect("stored");
    let files = BTreeMap::from([("NOTES".to_owned(), note), (weights.path.clone(), weights.blob)]);
    registry.add_version(&name(as_name), files, Vec::new(), intake).await.expect("pushed");
    registry.resolve(&name(as_name)).await.expect("known")
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_left_are_had_again_for_a_pushed_version_when_the_pulled_one_is_removed() {
    let place = Place::new();
    let registry = open_bounded(&place, one_model()).await;
    let (origin, pulled_one) = pulled(&registry, 1.0).await;
    let pushed = released(pushed_with_weights_of(&registry, &pulled_one, "tuned").await);
    let pulled_one = released(pulled_one);
    let (_other_origin, second) = pulled(&registry, 2.0).await;
    let second = released(second);
    assert!(!is_in(&place.store(), &pushed) && is_in(&place.store(), &second));

    registry.remove(&name("m1")).await.expect("removed");
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 0);
    // Also by a process that did not see the pull.
    drop(registry);
    let registry = open_bounded(&place, one_model()).await;
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 0);
    let asked = origin.asked().len();
    assert_reads(&registry, &pushed, 1.0).await;
    assert!(origin.asked().len() > asked, "fetched again");

    // Here again, they are the pushed version's own, and stay with it.
    assert_eq!(registry.gc().await.expect("collected").manifests_removed, 1);
    registry.manifest(&pulled_one.digest).await.expect_err("collected");
    let third = Origin::start(models::gguf(3.0), Manner::Honest).await;
    registry.remove(&name("m2")).await.expect("removed");
    registry.pull(&third.url(), Some(name("m3")), &mut |_| {}).await.expect_err("no room");
    assert_reads(&registry, &pushed, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrubber_leaves_away_what_left_to_make_room() {
    let place = Place::new();
    let registry = open_bounded(&place, one_model()).await;
    let (origin, first) = pulled(&registry, 1.0).await;
    let first = released(first);
    let (_other_origin, second) = pulled(&registry, 2.0).await;
    let second = released(second);
    assert!(!is_in(&place.store(), &first) && is_in(&place.store(), &second));
    let asked = origin.asked().len();
    let report = registry.scrub(&FromSource).await.expect("a pass");
    assert_eq!((report.absent, report.damaged), (1, 0), "{report:?}");
    assert_eq!(origin.asked().len(), asked, "nothing was fetched");
    assert!(!is_in(&place.store(), &first) && is_in(&place.store(), &second));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_leased_or_nowhere_else_stays_and_a_pull_is_told() {
    let place = Place::new();
    let registry = open_bounded(&place, one_model()).await;
    let (_origin, held) = pulled(&registry, 1.0).await;
    let other = Origin::start(models::gguf(2.0), Manner::Honest).await;
    let pull = || async {
        let error = registry.pull(&other.url(), Some(name("other")), &mut |_| {}).await.expect_err("no room");
        assert_eq!(error.code(), ErrorCode::StorageFull, "{error}");
        assert!(error.to_string().contains("hint: `helios rm`"), "{error}");
        assert!(is_in(&place.store(), &held));
    };
    pull().await;
    let lease = WorkerLease {
        id: "w".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
        models: vec![LeasedModel { reference: name("m1"), manifest: held.digest }],
        role: WorkerRole::Unified,
        numerics_id: NumericsId::new("f32", 1, "f16", "test"),
    };
    registry.members().renew(lease, Duration::from_secs(60)).expect("renewed");
    let held = released(held);
    let error = registry.pull(&other.url(), Some(name("other")), &mut |_| {}).await.expect_err("leased");
    assert_eq!(error.code(), ErrorCode::StorageFull, "{error}");
    registry.members().leave("w");
    // A process on this host that has told no server.
    let address = serve(http::router(Arc::clone(&registry))).await;
    let client = RegistryClient::new(&address, None).expect("a client");
    let worker = ModelStore::remote(client, &place.path("worker")).expect("a store");
    worker.resolve(&held.reference).await.expect("it learns where the folder is");
    let on_host = worker.lease_on_host(held.digest).await.expect("the folder is on this host");
    let error = registry.pull(&other.url(), Some(name("other")), &mut |_| {}).await.expect_err("mapped");
    assert_eq!(error.code(), ErrorCode::StorageFull, "{error}");
    drop(on_host);
    let taken =
        registry.pull(&other.url(), Some(name("other")), &mut |_| {}).await.expect("the lease is over");
    assert!(!is_in(&place.store(), &held));

    // A file that only this machine has is never given up.
    let taken = released(taken);
    let local = place.write("local.gguf", &models::gguf(3.0));
    let local = released(registry.import(&local, None, &mut |_| {}).await.expect("imported"));
    assert!(is_in(&place.store(), &local) && !is_in(&place.store(), &taken));
    let error = registry.pull(&other.url(), Some(name("other")), &mut |_| {}).await.expect_err("no room");
    assert_eq!(error.code(), ErrorCode::StorageFull, "{error}");
    assert!(is_in(&place.store(), &local));
}

/// A registry that has just started knows no leases: nothing leaves before workers had time to renew theirs.
#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_after_a_restart_when_leases_are_known() {
    let place = Place::new();
    let registry = open_bounded(&place, one_model()).await;
    let (_origin, held) = pulled(&registry, 1.0).await;
    let held = released(held);
    drop(registry);
    let tiers = vec![tier(TierKind::Nvme, place.store(), one_model())];
    let (gc_grace, members_rebuild) = (Duration::ZERO, Duration::from_secs(2));
    let config = RegistryConfig { tiers, gc_grace, members_rebuild, ..RegistryConfig::default() };
    let registry = place.open_as(config).await;
    let other = Origin::start(models::gguf(2.0), Manner::Honest).await;
    let url = other.url();
    let mut report = |_| {};
    let pull = registry.pull(&url, Some(name("other")), &mut report);
    let renew = async {
        for _ in 0..10 {
            moment().await;
        }
        let models = vec![LeasedModel { reference: name("m1"), manifest: held.digest }];
        let lease = WorkerLease { models, ..crate::membership::worker("w") };
        registry.members().renew(lease, Duration::from_secs(60)).expect("renewed");
    };
    let (pulled, ()) = tokio::join!(pull, renew);
    assert_eq!(pulled.expect_err("leased").code(), ErrorCode::StorageFull);
    assert!(is_in(&place.store(), &held));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_gone_is_an_error_that_names_it() {
    let place = Place::new();
    let registry = open_bounded(&place, one_model()).await;
    let (origin, first) = pulled(&registry, 1.0).await;
    let first = released(first);
    let (_other, _second) = pulled(&registry, 2.0).await;
    assert!(!is_in(&place.store(), &first));
    origin.behave(Manner::Status(404));
    let resolved = registry.resolve(&name("m1")).await.expect("known");
    let error = registry.derived_bytes(&resolved.manifest, Role::Weights).await.expect_err("gone");
    assert!(error.to_string().contains("tiny.gguf"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_goes_to_the_next_directory_and_workers_map_it_there() {
    let place = Place::new();
    let ssd = place.path("ssd");
    let tiers = || {
        vec![
            tier(TierKind::Nvme, place.store(), one_model()),
            tier(TierKind::Ssd, ssd.clone(), 10 * one_model()),
        ]
    };
    let registry = open(&place, tiers()).await;
    let mut models = Vec::new();
    for fill in [1.0, 2.0, 3.0] {
        let file = place.write(&format!("m{fill}.gguf"), &models::gguf(fill));
        models.push(registry.import(&file, None, &mut |_| {}).await.expect("imported"));
    }
    assert!(is_in(&place.store(), &models[0]) && is_in(&ssd, &models[1]) && is_in(&ssd, &models[2]));
    let address = serve(http::router(Arc::clone(&registry))).await;
    let client = RegistryClient::new(&address, None).expect("a client");
    assert_eq!(client.tiers().await.expect("tiers").len(), 2);
    let near = ModelStore::remote(client, &place.path("near")).expect("a store");
    for (model, fill) in models.iter().zip([1.0, 2.0, 3.0]) {
        assert_reads(&registry, model, fill).await;
        let resolved = near.resolve(&model.reference).await.expect("resolved");
        let weights = near.derived_bytes(&resolved.manifest, Role::Weights).await.expect("weights");
        assert!(*weights == *models::gguf(fill));
    }
    assert_eq!(fs::read_dir(place.path("near/blobs/sha256")).expect("a cache").count(), 0, "mapped in place");

    // The directory goes away: what is in the other is read, what was in it is imported again.
    fs::rename(&ssd, place.path("away")).expect("moved");
    fs::write(&ssd, "a file where a folder was").expect("written");
    assert_reads(&registry, &models[0], 1.0).await;
    let report = registry.tiers().await.expect("a report");
    assert_eq!(report[0].state, TierState::Up);
    fs::remove_file(&ssd).expect("removed");
    fs::rename(place.path("away"), &ssd).expect("moved back");
    assert_reads(&registry, &models[1], 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_copied_into_memory_by_use_and_repaired_from_there() {
    let place = Place::new();
    let memory = place.path("memory");
    let tiers = vec![tier(TierKind::Memory, memory.clone(), 10 * one_model())];
    let registry = open(&place, tiers).await;
    let file = place.write("m.gguf", &models::gguf(1.0));
    let model = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    let weights = model.manifest.required(Role::Weights).expect("weights").blob;
    let pins = [(weights.digest, helios_storage::tiers::Residency::Memory)];
    registry.blobs().set_pins(pins.into_iter().collect());
    while !is_in(&memory, &model) {
        moment().await;
    }
    assert_reads(&registry, &model, 1.0).await;
    fs::remove_file(&file).expect("the source is gone");
    let on_disk = place.store().join("blobs/sha256").join(weights.digest.hex());
    fs::write(&on_disk, vec![9; weights.size as usize]).expect("damaged");
    let report = registry.scrub(&FromSource).await.expect("a pass");
    assert_eq!((report.damaged, report.repaired), (1, 1), "from the copy in memory");
    assert!(fs::read(&on_disk).expect("there again") == models::gguf(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_takes_blobs_from_every_directory() {
    let place = Place::new();
    let ssd = place.path("ssd");
    let tiers = vec![
        tier(TierKind::Nvme, place.store(), one_model()),
        tier(TierKind::Ssd, ssd.clone(), 10 * one_model()),
    ];
    let registry = open(&place, tiers).await;
    for fill in [1.0, 2.0] {
        let file = place.write(&format!("m{fill}.gguf"), &models::gguf(fill));
        let model = registry.import(&file, None, &mut |_| {}).await.expect("imported");
        registry.remove(&model.reference).await.expect("removed");
    }
    let report = registry.gc().await.expect("collected");
    assert_eq!(report.manifests_removed, 2);
    for dir in [place.store(), ssd] {
        assert_eq!(fs::read_dir(dir.join("blobs/sha256")).expect("a folder").count(), 0);
    }
    assert!(registry.tiers().await.expect("a report").iter().all(|tier| tier.used_bytes == 0));
}
