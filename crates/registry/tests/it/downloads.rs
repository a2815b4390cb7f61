//! Sources over HTTP, from origins of every manner.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use helios_metadata::SimulatedMetadata;
use helios_model::Role;
use helios_registry::{FetchConfig, FleetConfig, Registry, RegistryConfig, RegistryError, Resolved, Secret};
use helios_storage::disk::Unsynced;
use helios_storage::{Disk, SimulatedDisk};
use helios_types::{Classify, ErrorCode};

use crate::models::{self, Place};
use crate::origin::{Limit, Manner, Origin, moment};

async fn pull(registry: &Arc<Registry>, spec: &str) -> Result<Resolved, RegistryError> {
    registry.pull(spec, None, &mut |_| {}).await
}

async fn assert_served(registry: &Arc<Registry>, resolved: &Resolved, bytes: &[u8]) {
    let weights = registry.derived_bytes(&resolved.manifest, Role::Weights).await.expect("weights");
    assert!(*weights == *bytes, "the bytes of the store are those of the origin");
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let file = models::gguf(1.0);
    let origin = Origin::start(file.clone(), Manner::Cuts { after: 1000, times: 3 }).await;
    let place = Place::new();
    let registry = place.open().await;
    let resolved = pull(&registry, &origin.url()).await.expect("pulled");
    assert_served(&registry, &resolved, &file).await;
    let starts: Vec<usize> = origin.asked().iter().filter_map(|asked| Some(asked.bytes()?.start)).collect();
    assert_eq!(starts[0], 0);
    assert!(starts.len() >= 2 && starts.is_sorted() && starts[1] > 0, "{starts:?}");
    assert!(origin.asked()[1..].iter().all(|asked| asked.if_range.is_some()));
}

#[tokio::test]
async fn a_pull_of_a_later_process_resumes_what_an_earlier_one_left() {
    let file = models::gguf(1.0);
    let origin = Origin::start(file.clone(), Manner::Cuts { after: 5000, times: 1000 }).await;
    let place = Place::new();
    let impatient = || FetchConfig { attempts_max: 1, ..FetchConfig::default() };
    let registry = place.open_with(impatient()).await;
    let error = pull(&registry, &origin.url()).await.expect_err("cut");
    assert_eq!(error.code(), ErrorCode::Upstream);
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(registry.list().await.expect("a list").is_empty());
    drop(registry);

    origin.behave(Manner::Honest);
    let registry = place.open_with(impatient()).await;
    let resolved = pull(&registry, &origin.url()).await.expect("resumed");
    assert_served(&registry, &resolved, &file).await;
    let last = origin.asked().pop().and_then(|asked| asked.bytes()).expect("a range");
    assert!(last.start > 0 && last.start <= 5000, "{last:?}");
}

/// A registry on a disk that may lose its power.
async fn open_on(disk: &SimulatedDisk, metadata: &Arc<SimulatedMetadata>) -> Arc<Registry> {
    let fetch = FetchConfig { attempts_max: 1, ..FetchConfig::default() };
    let config = RegistryConfig { fetch, ..RegistryConfig::default() };
    let disk = Arc::new(disk.clone());
    Registry::open_on(disk, metadata.clone(), Path::new("/store"), config).await.expect("the store opens")
}

#[tokio::test]
async fn what_was_on_its_way_when_the_power_went_is_not_part_of_a_model() {
    helios_runtime::install_tls_provider();
    let file = models::gguf(1.0);
    let after = file.len() - 1000;
    let origin = Origin::start(file.clone(), Manner::Cuts { after, times: 1000 }).await;
    for seed in 0..8 {
        let (disk, metadata) = (SimulatedDisk::new(seed), Arc::new(SimulatedMetadata::new(seed)));
        origin.behave(Manner::Cuts { after, times: 1000 });
        let registry = open_on(&disk, &metadata).await;
        pull(&registry, &origin.url()).await.expect_err("cut");
        drop(registry);
        disk.lose_power(Unsynced::Scattered);
        metadata.restart();

        origin.behave(Manner::Honest);
        let registry = open_on(&disk, &metadata).await;
        let resolved = pull(&registry, &origin.url()).await.expect("pulled");
        assert_served(&registry, &resolved, &file).await;
        registry.gc().await.expect("collected");
        let partial = disk.list(Path::new("/store/partial")).expect("a folder");
        assert_eq!(partial, [], "what the boot before left is gone");
    }
}

#[tokio::test]
async fn what_was_left_wrong_of_a_known_digest_costs_a_second_download_and_no_error() {
    let file = models::gguf(1.0);
    let hub = Origin::start(file.clone(), Manner::Honest).await;
    hub.list(hub_listing("tiny.gguf", &file, Some(models::sha256(&file))));
    for left in [5000, file.len(), file.len() + 1] {
        let place = Place::new();
        let registry = place.open_with(hub_config(&hub)).await;
        place.write(&format!("store/partial/{}", models::sha256(&file)), &vec![0; left]);
        let resolved = pull(&registry, "hf:org/repo").await.expect("begun again");
        assert_served(&registry, &resolved, &file).await;
    }
    // Where the origin is to blame, it is asked twice and no more.
    let place = Place::new();
    let registry = place.open_with(hub_config(&hub)).await;
    place.write(&format!("store/partial/{}", models::sha256(&file)), &vec![0; 5000]);
    hub.serve(vec![1; file.len()]);
    let before = hub.asked().len();
    let error = pull(&registry, "hf:org/repo").await.expect_err("another file").to_string();
    assert!(error.contains("sent something wrong"), "{error}");
    let files = hub.asked()[before..].iter().filter(|asked| asked.path.contains("/resolve/")).count();
    assert_eq!(files, 2);
}

#[tokio::test]
async fn a_file_that_changed_in_between_comes_whole() {
    let place = Place::new();
    let origin = Origin::start(models::gguf(1.0), Manner::Cuts { after: 5000, times: 1000 }).await;
    let registry = place.open_with(FetchConfig { attempts_max: 1, ..FetchConfig::default() }).await;
    pull(&registry, &origin.url()).await.expect_err("cut");
    let changed = models::gguf(2.0);
    origin.serve(changed.clone());
    origin.behave(Manner::Honest);
    let resolved = pull(&registry, &origin.url()).await.expect("pulled");
    assert_served(&registry, &resolved, &changed).await;
}

#[tokio::test]
async fn a_file_that_changed_between_two_attempts_is_not_put_together_from_both() {
    let place = Place::new();
    let changed = models::gguf(2.0);
    let origin = Origin::start(models::gguf(1.0), Manner::Changes(changed.clone())).await;
    let registry = place.open().await;
    let resolved = pull(&registry, &origin.url()).await.expect("pulled");
    assert_served(&registry, &resolved, &changed).await;
    assert!(origin.asked().iter().any(|asked| asked.range.is_some()));
}

#[tokio::test]
async fn an_origin_without_ranges_is_read_from_the_start() {
    let place = Place::new();
    let file = models::gguf(1.0);
    let origin = Origin::start(file.clone(), Manner::Cuts { after: 5000, times: 1000 }).await;
    let registry = place.open_with(FetchConfig { attempts_max: 1, ..FetchConfig::default() }).await;
    pull(&registry, &origin.url()).await.expect_err("cut");
    origin.behave(Manner::NoRanges);
    let resolved = pull(&registry, &origin.url()).await.expect("pulled");
    assert_served(&registry, &resolved, &file).await;
}

#[tokio::test]
async fn a_large_file_comes_in_parallel_ranges_and_each_byte_once() {
    let file = models::large_gguf(27 << 19);
    let together = Manner::Together(Arc::new(tokio::sync::Barrier::new(3)));
    let origin = Origin::start(file.clone(), together).await;
    let place = Place::new();
    // With the stall time-out of every day: on a busy machine, ranges that wait for each other are asked for twice.
    let fetch = FetchConfig { ranges: 4, ..FetchConfig::default() };
    let registry = place.open_in(FleetConfig::default(), fetch).await;
    let resolved = pull(&registry, &origin.url()).await.expect("pulled");
    assert_served(&registry, &resolved, &file).await;
    let mut ranges: Vec<_> = origin.asked().iter().filter_map(|asked| asked.bytes()).collect();
    ranges.sort_by_key(|range| range.start);
    assert_eq!(ranges.len(), 7);
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "{ranges:?}");
    assert!(origin.asked()[1..].iter().all(|asked| asked.if_range.is_some()));
}

#[tokio::test]
async fn ranges_that_break_off_cost_what_is_missing_and_nothing_else() {
    let file = models::large_gguf(27 << 19);
    let origin = Origin::start(file.clone(), Manner::Cuts { after: 3 << 20, times: 4 }).await;
    let place = Place::new();
    let registry = place.open().await;
    let resolved = pull(&registry, &origin.url()).await.expect("pulled");
    assert_served(&registry, &resolved, &file).await;
    let asked: usize = origin.asked().iter().filter_map(|asked| Some(asked.bytes()?.len())).sum();
    assert!(asked <= file.len() + 4 * (1 << 20) + 4, "{asked} bytes asked for");
}

#[tokio::test]
async fn an_origin_that_limits_is_asked_again_when_it_says() {
    let file = models::gguf(1.0);
    let place = Place::new();
    let second = Duration::from_secs(1);
    let registry = place.open_with(FetchConfig { retry_after_max: second, ..FetchConfig::default() }).await;
    let cases = [(("retry-after", "0"), Duration::ZERO), (("ratelimit", "\"api\";r=0;t=1"), second)];
    for (header, wait) in cases {
        let origin = Origin::start(file.clone(), Manner::Honest).await;
        origin.limit(Limit { times: 2, header, wait });
        pull(&registry, &origin.url()).await.expect("patience helps");
        assert_eq!(origin.asked().len(), 3, "{header:?}");
    }
    let origin = Origin::start(file, Manner::Honest).await;
    origin.limit(Limit { times: 2, header: ("retry-after", "3600"), wait: Duration::ZERO });
    let error = pull(&registry, &origin.url()).await.expect_err("too long");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn a_hub_that_limits_is_asked_again_when_it_says() {
    let file = models::gguf(1.0);
    let hub = Origin::start(file.clone(), Manner::Honest).await;
    hub.list(hub_listing("tiny.gguf", &file, None));
    hub.limit(Limit { times: 1, header: ("retry-after", "1"), wait: Duration::from_secs(1) });
    let place = Place::new();
    let registry = place.open_with(hub_config(&hub)).await;
    pull(&registry, "hf:org/repo").await.expect("patience helps");
    let asked = hub.asked();
    assert_eq!(asked.iter().filter(|asked| asked.path.starts_with("/api/")).count(), 2);
}

/// A pull from an origin of that manner fails, says so, and leaves no model.
async fn assert_refused(manner: Manner, says: &str) {
    let place = Place::new();
    let fetch = FetchConfig { attempts_max: 2, file_bytes_max: 1 << 20, ..FetchConfig::default() };
    let registry = place.open_with(fetch).await;
    let origin = Origin::start(models::gguf(1.0), manner.clone()).await;
    let error = pull(&registry, &origin.url()).await.expect_err(says);
    assert_eq!(error.code(), ErrorCode::Upstream, "{manner:?}: {error}");
    assert!(error.to_string().contains(says), "{manner:?}: {error}");
    assert!(registry.list().await.expect("a list").is_empty());
}

#[tokio::test]
async fn an_origin_that_stalls_is_given_up() {
    assert_refused(Manner::Stalls, "stalled").await;
}

#[tokio::test]
async fn an_origin_that_drips_is_given_up() {
    assert_refused(Manner::Drips, "it drips").await;
}

#[tokio::test]
async fn an_origin_that_sends_forever_is_cut_off() {
    assert_refused(Manner::Endless, "more than the 1048576 bytes").await;
    assert_refused(Manner::LongRange, "more than the").await;
}

#[tokio::test]
async fn an_origin_that_lies_about_the_length_is_refused() {
    assert_refused(Manner::Overpromises, "failed").await;
}

#[tokio::test]
async fn an_origin_that_sends_another_range_is_refused() {
    assert_refused(Manner::OtherRange, "another range").await;
}

#[tokio::test]
async fn a_gzip_bomb_is_never_unpacked() {
    assert_refused(Manner::Compresses, "gzip").await;
}

#[tokio::test]
async fn redirects_in_a_circle_or_to_less_safety_are_not_followed() {
    assert_refused(Manner::Redirects("/tiny.gguf".to_owned()), "more than 10 redirects").await;
    assert_refused(Manner::Redirects("ftp://127.0.0.1/x".to_owned()), "less safe").await;
}

#[tokio::test]
async fn an_origin_s_refusal_says_what_to_do() {
    assert_refused(Manner::Status(404), "answered 404").await;
    assert_refused(Manner::Status(401), "HF_TOKEN").await;
    assert_refused(Manner::Status(503), "answered 503").await;
}

pub(crate) fn hub_listing(file: &str, bytes: &[u8], digest: Option<String>) -> serde_json::Value {
    serde_json::json!({
        "sha": "0123456789012345678901234567890123456789",
        "cardData": {"license": "mit"},
        "siblings": [
            {"rfilename": "README.md", "size": 3},
            {"rfilename": file, "size": bytes.len(), "lfs": digest.map(|sha256| serde_json::json!({"sha256": sha256, "size": bytes.len()}))},
        ],
    })
}

pub(crate) fn hub_config(hub: &Origin) -> FetchConfig {
    FetchConfig {
        hub_url: hub.address.clone(),
        hub_token: Some(Secret::from("hub-token".to_owned())),
        attempts_max: 2,
        ..FetchConfig::default()
    }
}

#[tokio::test]
async fn the_hub_gets_the_token_and_other_hosts_do_not() {
    let file = models::gguf(1.0);
    let elsewhere = Origin::start(file.clone(), Manner::Honest).await;
    let hub = Origin::start(Vec::new(), Manner::Redirects(elsewhere.url())).await;
    hub.list(hub_listing("tiny.gguf", &file, None));
    let place = Place::new();
    let registry = place.open_with(hub_config(&hub)).await;
    let resolved = pull(&registry, "hf:org/repo@refs/pr/1").await.expect("pulled");
    assert_eq!(resolved.reference.to_string(), "org/repo:refs-pr-1");
    assert_eq!(resolved.manifest.facts().expect("a model").licence.as_deref(), Some("mit"));
    assert_served(&registry, &resolved, &file).await;
    let asked = hub.asked();
    assert_eq!(asked[0].path, "/api/models/org/repo/revision/refs%2Fpr%2F1");
    assert_eq!(asked[1].path, "/org/repo/resolve/0123456789012345678901234567890123456789/tiny.gguf");
    assert!(asked.iter().all(|asked| asked.authorization.as_deref() == Some("Bearer hub-token")));
    assert!(!elsewhere.asked().is_empty());
    assert!(elsewhere.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[tokio::test]
async fn a_hub_file_that_is_not_what_the_list_says_is_refused() {
    let file = models::gguf(1.0);
    let hub = Origin::start(file.clone(), Manner::Honest).await;
    let place = Place::new();
    let registry = place.open_with(hub_config(&hub)).await;
    hub.list(hub_listing("tiny.gguf", &file, Some("0".repeat(64))));
    let error = pull(&registry, "hf:org/repo").await.expect_err("another digest");
    assert!(error.to_string().contains("digest"), "{error}");
    hub.list(hub_listing("tiny.gguf", &file[1..], None));
    let error = pull(&registry, "hf:org/repo").await.expect_err("another length");
    assert!(error.to_string().contains("expected"), "{error}");
    hub.list(hub_listing("../tiny.gguf", &file, None));
    let error = pull(&registry, "hf:org/repo").await.expect_err("an unsafe name");
    assert!(error.to_string().contains("unsafe file name"), "{error}");
    let error = pull(&registry, "hf:org/repo#other.gguf").await.expect_err("no such file");
    assert!(error.to_string().contains("other.gguf") || error.to_string().contains("unsafe"), "{error}");
    assert!(registry.list().await.expect("a list").is_empty());
}

#[tokio::test]
async fn many_who_ask_for_the_same_share_one_download() {
    let file = models::gguf(1.0);
    let origin = Origin::start(file, Manner::Honest).await;
    let place = Place::new();
    let registry = place.open().await;
    let url = origin.url();
    let pulls = (0..8).map(|index| {
        let name = format!("copy:v{index}").parse().expect("a name");
        let (registry, url) = (Arc::clone(&registry), url.clone());
        async move { registry.pull(&url, Some(name), &mut |_| {}).await }
    });
    for result in futures::future::join_all(pulls).await {
        result.expect("pulled");
    }
    assert_eq!(origin.asked().len(), 1);
    assert_eq!(registry.list().await.expect("a list").len(), 8);
}

#[tokio::test]
async fn one_digest_is_fetched_once_whatever_it_is_called() {
    let file = models::gguf(1.0);
    let hub = Origin::start(file.clone(), Manner::Honest).await;
    hub.list(hub_listing("tiny.gguf", &file, Some(models::sha256(&file))));
    let place = Place::new();
    let registry = place.open_with(hub_config(&hub)).await;
    let (first, second) = tokio::join!(pull(&registry, "hf:org/one"), pull(&registry, "hf:org/two"));
    assert_served(&registry, &first.expect("pulled"), &file).await;
    assert_served(&registry, &second.expect("pulled"), &file).await;
    assert_eq!(hub.asked().iter().filter(|asked| asked.path.contains("/resolve/")).count(), 1);
}

#[tokio::test]
async fn a_pull_outlives_all_but_the_last_who_follow_it() {
    let file = models::gguf(1.0);
    let origin = Origin::start(file.clone(), Manner::Honest).await;
    let place = Place::new();
    let registry = place.open().await;
    let mut first = registry.start_pull(&origin.url(), None).await.expect("begun");
    let mut second = registry.start_pull(&origin.url(), None).await.expect("joined");
    first.next().await.expect("an event");
    drop(first);
    while !matches!(second.next().await.expect("an event"), helios_registry::PullEvent::Done(_)) {}
    assert_eq!(registry.list().await.expect("a list").len(), 1);

    let abandoned = Origin::start(file, Manner::Stalls).await;
    let mut pull =
        registry.start_pull(&abandoned.url(), Some("x".parse().expect("a name"))).await.expect("begun");
    pull.next().await.expect("an event");
    drop(pull);
    moment().await;
    registry.gc().await.expect("collected beside what was abandoned");
    assert_eq!(registry.list().await.expect("a list").len(), 1);
}
