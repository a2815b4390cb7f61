//! The demand for models: history, prefetch and warm-pool records, on a store that has another as parent.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use helios_model::Role;
use helios_registry::{
    FetchConfig, FleetConfig, LeasedModel, ModelUse, PrefetchConfig, PrefetchReport, Registry,
    RegistryClient, RegistryConfig, RegistryError, Resolved, USES_MAX, WallClock, WarmLevel, WarmPlace,
    WarmReason, WarmRecord, WorkerLease, http,
};
use helios_storage::tiers::{TierDirectory, TierKind};
use helios_types::{Classify, Digest, ErrorCode, ModelRef};

use crate::membership::worker;
use crate::models::{self, Place};
use crate::over_http::serve;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Midnight of some day.
const BEGIN_MS: u64 = 20_000 * DAY_MS;

fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

fn one_use(model: &str) -> [ModelUse; 1] {
    [ModelUse { model: name(model), count: 1, ago_ms: 0 }]
}

/// A registry with models `m0` to `m5`, and the address of another that has it as parent.
struct Pair {
    place: Place,
    _parent_place: Place,
    parent: String,
    prefetch: PrefetchConfig,
    budget: Option<u64>,
    now_ms: Arc<AtomicU64>,
}

impl Pair {
    async fn new(prefetch: PrefetchConfig) -> Self {
        let parent_place = Place::new();
        let registry = parent_place.open().await;
        for number in 0..6 {
            let file = parent_place.write(&format!("m{number}.gguf"), &models::gguf(number as f32));
            registry.import(&file, Some(name(&format!("m{number}"))), &mut |_| {}).await.expect("imported");
        }
        let parent = serve(http::router(registry)).await;
        Self {
            place: Place::new(),
            _parent_place: parent_place,
            parent,
            prefetch,
            budget: None,
            now_ms: Arc::new(BEGIN_MS.into()),
        }
    }

    /// Lets it be so late.
    fn at(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    /// A pass of the prefetcher at that time.
    async fn prefetch_at(&self, registry: &Arc<Registry>, now_ms: u64) -> PrefetchReport {
        self.at(now_ms);
        registry.prefetch().await.expect("a pass")
    }

    /// A use at that time.
    async fn use_at(&self, registry: &Arc<Registry>, model: &str, now_ms: u64) {
        self.at(now_ms);
        registry.note_uses(&one_use(model)).await.expect("noted");
    }

    /// A day of uses: `m0` on the hour, the others at times between that no hour repeats.
    async fn a_day(&self, registry: &Arc<Registry>, day: u64) {
        for hour in 0..24 {
            let at = BEGIN_MS + day * DAY_MS + hour * HOUR_MS;
            self.use_at(registry, "m0", at).await;
            for turn in 0..20 {
                let (minute, model) = (8 + turn * 2, 1 + (turn * 7 + hour * 5 + day * 3) % 5);
                self.use_at(registry, &format!("m{model}"), at + minute * MINUTE_MS).await;
            }
        }
    }

    async fn open(&self) -> Arc<Registry> {
        let bounded = |budget| TierDirectory {
            kind: TierKind::Nvme,
            dir: self.place.store(),
            budget_bytes: Some(budget),
        };
        let config = RegistryConfig {
            fetch: FetchConfig { stall_timeout: Duration::from_secs(5), ..FetchConfig::default() },
            fleet: FleetConfig { parent: Some(self.parent.clone()), ..FleetConfig::default() },
            prefetch: self.prefetch,
            tiers: self.budget.map(bounded).into_iter().collect(),
            wall_clock: WallClock::Simulated(self.now_ms.clone()),
            gc_grace: Duration::ZERO,
            members_rebuild: Duration::ZERO,
            ..RegistryConfig::default()
        };
        loop {
            match Registry::open(&self.place.store(), config.clone()).await {
                Err(RegistryError::StoreInUse { .. }) => tokio::task::yield_now().await,
                result => return result.expect("the store opens"),
            }
        }
    }

    fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        self.place.store().join("blobs/sha256").join(digest.hex())
    }

    /// Whether all files of a model are here.
    async fn has(&self, registry: &Arc<Registry>, model: &str) -> bool {
        let resolved = registry.resolve(&name(model)).await.expect("known");
        resolved.manifest.blobs().all(|blob| self.blob(blob).exists())
    }

    /// Takes the weights of a model away, as eviction does.
    async fn evict(&self, registry: &Arc<Registry>, model: &str) {
        let resolved = registry.resolve(&name(model)).await.expect("known");
        fs::remove_file(self.weights(&resolved)).expect("it was here");
    }

    fn weights(&self, resolved: &Resolved) -> std::path::PathBuf {
        let weights = resolved.manifest.required(helios_model::Role::Weights).expect("weights");
        self.blob(&weights.blob.digest)
    }
}

/// As much as the test wants.
fn generous() -> PrefetchConfig {
    PrefetchConfig { bytes_per_hour: 1 << 40, ..PrefetchConfig::default() }
}

async fn pulled(registry: &Arc<Registry>, models: impl IntoIterator<Item = usize>) {
    for number in models {
        registry.pull(&format!("m{number}"), None, &mut |_| {}).await.expect("pulled");
    }
}

#[tokio::test]
async fn a_model_that_is_asked_for_every_hour_is_here_again_before_its_hour() {
    let pair = Pair::new(generous()).await;
    let registry = pair.open().await;
    pulled(&registry, 0..6).await;
    for day in 0..7 {
        pair.a_day(&registry, day).await;
    }
    let hour = BEGIN_MS + 7 * DAY_MS + 9 * HOUR_MS;
    pair.prefetch_at(&registry, hour - 35 * MINUTE_MS).await;
    pair.evict(&registry, "m0").await;
    let half_past = pair.prefetch_at(&registry, hour - 30 * MINUTE_MS).await;
    assert_eq!(half_past, PrefetchReport::default(), "nobody will ask for it soon");
    assert!(!pair.has(&registry, "m0").await);
    let record = &store_record(&registry, "m0").await;
    assert!(matches!(record.reason, WarmReason::Evicted { .. }) && record.missing_bytes > 0, "{record:?}");

    let before = pair.prefetch_at(&registry, hour - 4 * MINUTE_MS).await;
    assert_eq!(before, PrefetchReport { predicted: 1, ..PrefetchReport::default() });
    assert!(pair.has(&registry, "m0").await, "its hour is near");
}

async fn store_record(registry: &Arc<Registry>, model: &str) -> WarmRecord {
    let records = registry.warm(Some(&name(model))).await.expect("records");
    records.into_iter().find(|record| record.place == WarmPlace::Store).expect("a record of the store")
}

#[tokio::test]
async fn what_is_fetched_in_vain_stays_within_the_allowance() {
    let pair = Pair::new(PrefetchConfig { bytes_per_hour: 1, ..PrefetchConfig::default() }).await;
    let registry = pair.open().await;
    pulled(&registry, 0..6).await;
    for day in 0..7 {
        pair.a_day(&registry, day).await;
    }
    let now = BEGIN_MS + 7 * DAY_MS;
    // What the pulls have earned is 3 % of six small models: not one of them.
    pair.prefetch_at(&registry, now).await;
    for number in 0..6 {
        pair.evict(&registry, &format!("m{number}")).await;
    }
    for hour in 0..24 {
        let report = pair.prefetch_at(&registry, now + hour * HOUR_MS).await;
        assert_eq!(report, PrefetchReport::default(), "in hour {hour}");
    }

    // With an hour's grant of two models, never used, two come in the first hour and as many as leave in each.
    let weights = models::gguf(1.0).len() as u64;
    drop(registry);
    let pair = Pair {
        prefetch: PrefetchConfig { bytes_per_hour: 2 * weights + weights / 2, ..PrefetchConfig::default() },
        ..pair
    };
    let registry = pair.open().await;
    pair.prefetch_at(&registry, now + 24 * HOUR_MS).await;
    let report = pair.prefetch_at(&registry, now + 25 * HOUR_MS).await;
    assert_eq!(report, PrefetchReport { predicted: 2, ..PrefetchReport::default() });
    let again = pair.prefetch_at(&registry, now + 25 * HOUR_MS + MINUTE_MS).await;
    assert_eq!(again, PrefetchReport::default(), "the allowance is spent");
    let hour_later = pair.prefetch_at(&registry, now + 26 * HOUR_MS).await;
    assert_eq!(hour_later.predicted, 2, "the next hour's: {hour_later:?}");
}

/// Two names of one version: it is fetched once, and paid for once.
#[tokio::test]
async fn a_version_with_two_names_is_fetched_and_paid_for_once() {
    let weights = models::gguf(1.0).len() as u64;
    let pair =
        Pair::new(PrefetchConfig { bytes_per_hour: 7 * weights / 2, ..PrefetchConfig::default() }).await;
    let registry = pair.open().await;
    pulled(&registry, 0..2).await;
    registry.tag(&name("m0"), &name("chat")).await.expect("tagged");
    for turn in 0..60 {
        for model in ["m0", "chat", "m1"] {
            pair.use_at(&registry, model, BEGIN_MS + turn * 2 * MINUTE_MS).await;
        }
    }
    let now = BEGIN_MS + 3 * HOUR_MS;
    pair.prefetch_at(&registry, now).await;
    pair.evict(&registry, "m0").await;
    pair.evict(&registry, "m1").await;
    let report = pair.prefetch_at(&registry, now + HOUR_MS).await;
    assert_eq!(report, PrefetchReport { predicted: 2, ..PrefetchReport::default() }, "m0 and m1, not chat");
    assert!(pair.has(&registry, "chat").await && pair.has(&registry, "m1").await);
}

#[tokio::test]
async fn switched_off_it_fetches_only_what_the_operator_wants() {
    let pair = Pair::new(PrefetchConfig { enabled: false, ..generous() }).await;
    let registry = pair.open().await;
    pulled(&registry, 0..2).await;
    pair.a_day(&registry, 0).await;
    pair.prefetch_at(&registry, BEGIN_MS + DAY_MS).await;
    pair.evict(&registry, "m0").await;
    pair.evict(&registry, "m1").await;
    registry.keep_warm(&name("m1"), WarmLevel::Disk).await.expect("kept");
    let report = pair.prefetch_at(&registry, BEGIN_MS + DAY_MS + HOUR_MS).await;
    assert_eq!(report, PrefetchReport { pinned: 1, ..PrefetchReport::default() });
    assert!(pair.has(&registry, "m1").await && !pair.has(&registry, "m0").await);
}

/// At a byte a second a model takes longer than anybody waits: whoever asks for it meanwhile does not wait for that.
#[tokio::test]
async fn who_asks_for_what_is_just_fetched_ahead_does_not_wait_at_its_rate() {
    let pair = Pair::new(PrefetchConfig { bytes_per_second: 1, ..PrefetchConfig::default() }).await;
    let registry = pair.open().await;
    pulled(&registry, 0..1).await;
    let resolved = registry.resolve(&name("m0")).await.expect("known");
    let weights = resolved.manifest.required(Role::Weights).expect("weights").clone();
    pair.evict(&registry, "m0").await;
    registry.keep_warm(&name("m0"), WarmLevel::Disk).await.expect("kept");
    let ahead = tokio::spawn({
        let registry = registry.clone();
        async move { registry.prefetch().await }
    });
    let partial = pair.place.store().join("partial").join(weights.blob.digest.hex());
    while !partial.exists() {
        crate::origin::moment().await;
    }
    let asked = helios_runtime::Clock.timeout(Duration::from_secs(300), registry.blob(&weights));
    let blob = asked.await.expect("not at that rate").expect("there");
    assert_eq!(blob.len() as u64, weights.blob.size);
    let report = ahead.await.expect("no panic").expect("a pass");
    assert_eq!(
        report,
        PrefetchReport { pinned: 1, ..PrefetchReport::default() },
        "it was the one that fetched"
    );
}

#[tokio::test]
async fn what_the_operator_wants_survives_a_restart_and_comes_back() {
    let pair = Pair::new(PrefetchConfig::default()).await;
    let registry = pair.open().await;
    pulled(&registry, 0..2).await;
    let error = registry.keep_warm(&name("m9"), WarmLevel::Disk).await.expect_err("unknown");
    assert_eq!(error.code(), ErrorCode::ModelNotFound);
    registry.keep_warm(&name("m0"), WarmLevel::Loaded).await.expect("kept");
    let kept = registry.warm(Some(&name("m0"))).await.expect("records");
    assert_eq!(pair.prefetch_at(&registry, BEGIN_MS).await, PrefetchReport::default(), "all is here");
    drop(registry);

    pair.at(BEGIN_MS + 1);
    let registry = pair.open().await;
    let after = registry.warm(Some(&name("m0"))).await.expect("records");
    assert_eq!(after, kept);
    pair.evict(&registry, "m0").await;
    pair.prefetch_at(&registry, BEGIN_MS).await;
    assert!(pair.has(&registry, "m0").await, "it was brought back");
    registry.keep_warm_no_more(&name("m0")).await.expect("let go");
    let error = registry.keep_warm_no_more(&name("m0")).await.expect_err("let go before");
    assert!(error.to_string().contains("hint: "), "{error}");
    drop(registry);
    let registry = pair.open().await;
    pair.evict(&registry, "m0").await;
    pair.prefetch_at(&registry, BEGIN_MS).await;
    assert!(!pair.has(&registry, "m0").await, "nobody wants it any more");
}

/// A store with room for two models and a half: what is not pinned makes room, what is does not, also after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operator_wants_does_not_leave() {
    let weights = models::gguf(1.0).len() as u64;
    let pair =
        Pair { budget: Some(weights * 5 / 2 + (16 << 10)), ..Pair::new(PrefetchConfig::default()).await };
    let registry = pair.open().await;
    pulled(&registry, 0..1).await;
    registry.keep_warm(&name("m0"), WarmLevel::Disk).await.expect("kept");
    drop(registry);
    let registry = pair.open().await;
    pulled(&registry, 1..6).await;
    assert!(pair.has(&registry, "m0").await && pair.has(&registry, "m5").await);
    assert!(!pair.has(&registry, "m1").await, "something had to leave");
    registry.keep_warm(&name("m5"), WarmLevel::Disk).await.expect("kept");
    let error = registry.pull("m1", None, &mut |_| {}).await.expect_err("all that is here stays");
    assert!(error.to_string().contains("helios warm"), "{error}");
    registry.keep_warm_no_more(&name("m0")).await.expect("let go");
    registry.pull("m1", None, &mut |_| {}).await.expect("there is room again");
    assert!(!pair.has(&registry, "m0").await && pair.has(&registry, "m5").await);
}

/// The tier evicts by what was learned: the model that is asked for all the time stays, although others were read later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_most_stays() {
    let weights = models::gguf(1.0).len() as u64;
    let pair =
        Pair { budget: Some(weights * 5 / 2 + (16 << 10)), ..Pair::new(PrefetchConfig::default()).await };
    let registry = pair.open().await;
    pulled(&registry, 0..1).await;
    for minute in 0..200 {
        pair.use_at(&registry, "m0", BEGIN_MS + minute * MINUTE_MS).await;
    }
    for number in 1..6 {
        pulled(&registry, number..number + 1).await;
        pair.prefetch_at(&registry, BEGIN_MS + (200 + number as u64) * MINUTE_MS).await;
        assert!(pair.has(&registry, "m0").await, "when m{number} had come");
    }
}

#[tokio::test]
async fn a_pin_follows_its_tag() {
    let pair = Pair::new(PrefetchConfig::default()).await;
    let registry = pair.open().await;
    pulled(&registry, 0..1).await;
    registry.tag(&name("m0"), &name("chat")).await.expect("tagged");
    registry.keep_warm(&name("chat"), WarmLevel::Disk).await.expect("kept");
    // The parent knows it: its manifest comes at once, its files when they are wanted.
    registry.tag(&name("m1"), &name("chat")).await.expect("moved");
    assert!(!pair.has(&registry, "m1").await);
    let report = pair.prefetch_at(&registry, BEGIN_MS).await;
    assert_eq!((report.pinned, report.failed), (1, 0));
    assert!(pair.has(&registry, "m1").await);
}

#[tokio::test]
async fn what_nobody_has_is_told_and_left_alone_for_a_while() {
    let pair = Pair::new(PrefetchConfig::default()).await;
    let registry = pair.open().await;
    let file = pair.place.write("only.gguf", &models::gguf(9.0));
    let resolved = registry.import(&file, None, &mut |_| {}).await.expect("imported");
    registry.keep_warm(&name("only"), WarmLevel::Disk).await.expect("kept");
    let weights = resolved.manifest.required(helios_model::Role::Weights).expect("weights").blob;
    fs::remove_file(&file).expect("the source");
    fs::remove_file(pair.blob(&weights.digest)).expect("a blob");
    let first = pair.prefetch_at(&registry, BEGIN_MS).await;
    assert_eq!((first.pinned, first.failed), (0, 1));
    let record = store_record(&registry, "only").await;
    assert_eq!((record.actual, record.missing_bytes), (None, weights.size));
    assert!(record.problem.is_some(), "{record:?}");
    let soon = pair.prefetch_at(&registry, BEGIN_MS + MINUTE_MS / 2).await;
    assert_eq!(soon, PrefetchReport::default());
    assert_eq!(pair.prefetch_at(&registry, BEGIN_MS + MINUTE_MS).await.failed, 1);
    assert_eq!(pair.prefetch_at(&registry, BEGIN_MS + 2 * MINUTE_MS).await.failed, 0, "twice as long");
}

#[tokio::test]
async fn the_history_survives_a_restart_and_a_torn_one_costs_only_itself() {
    let pair = Pair::new(generous()).await;
    let registry = pair.open().await;
    pulled(&registry, 0..6).await;
    registry.keep_warm(&name("m5"), WarmLevel::Disk).await.expect("kept");
    pair.a_day(&registry, 0).await;
    let now = BEGIN_MS + DAY_MS;
    pair.prefetch_at(&registry, now).await;
    let file = pair.place.store().join("history.json");
    let whole = fs::read(&file).expect("a history");
    drop(registry);

    let registry = pair.open().await;
    pair.use_at(&registry, "m1", now + MINUTE_MS).await;
    pair.prefetch_at(&registry, now + MINUTE_MS).await;
    let grown = fs::read(&file).expect("a history");
    assert!(grown.len() > whole.len(), "what was is there, and what is new");
    drop(registry);

    for damaged in [&whole[..whole.len() / 2], b"\0\0\0", b"{\"version\":99}"] {
        fs::write(&file, damaged).expect("damaged");
        let registry = pair.open().await;
        pair.use_at(&registry, "m1", now + 2 * MINUTE_MS).await;
        pair.prefetch_at(&registry, now + 2 * MINUTE_MS).await;
        let records = registry.warm(None).await.expect("records");
        let models: Vec<String> = records.iter().map(|record| record.model.to_string()).collect();
        assert_eq!(models, ["m1:latest", "m5:latest"], "what is new, and what the operator wants");
        assert!(fs::read(&file).expect("a history").len() < whole.len());
    }
}

#[tokio::test]
async fn records_say_who_has_what_and_why_also_over_http() {
    let pair = Pair::new(PrefetchConfig { enabled: false, ..generous() }).await;
    let registry = pair.open().await;
    pulled(&registry, 0..3).await;
    let address = serve(http::router(registry.clone())).await;
    let client = RegistryClient::new(&address, None).expect("a client");
    let uses = vec![
        ModelUse { model: name("m0"), count: 3, ago_ms: 10 },
        ModelUse { model: name("nobody-knows"), count: 1, ago_ms: 0 },
    ];
    client.note_uses(uses).await.expect("noted");
    let digest = registry.resolve(&name("m1")).await.expect("known").digest;
    let leased = vec![LeasedModel { reference: name("m1"), manifest: digest }];
    let lease = WorkerLease { models: leased, ..worker("w1") };
    registry.members().renew(lease, Duration::from_secs(60)).expect("renewed");
    client.keep_warm(&name("m1"), WarmLevel::Loaded).await.expect("kept");
    client.keep_warm(&name("m2"), WarmLevel::Loaded).await.expect("kept");

    let records = client.warm(None).await.expect("records");
    assert_eq!(records, registry.warm(None).await.expect("records"));
    let shown: Vec<String> = records
        .iter()
        .map(|record| {
            let level = |level: Option<WarmLevel>| level.map_or("-", WarmLevel::as_str);
            let (wanted, actual) = (level(record.wanted), level(record.actual));
            format!("{} {}: {wanted} {actual}, {}", record.model, record.place, record.reason)
        })
        .collect();
    assert!(shown[0].starts_with("m0:latest store: disk disk, predicted: "), "{shown:?}");
    assert_eq!(
        shown[1..],
        [
            "m1:latest store: memory disk, pinned by the operator",
            "m1:latest worker w1: loaded loaded, pinned by the operator",
            "m2:latest store: memory disk, pinned by the operator",
            "m2:latest any worker: loaded -, pinned by the operator",
        ]
    );
    client.keep_warm_no_more(&name("m1")).await.expect("let go");
    let m1 = client.warm(Some(&name("m1"))).await.expect("records");
    let in_use = WarmReason::InUse { workers: vec!["w1".to_owned()] };
    assert_eq!(m1.iter().map(|record| &record.reason).collect::<Vec<_>>(), [&in_use, &in_use]);

    let many = vec![ModelUse { model: name("m0"), count: 1, ago_ms: 0 }; USES_MAX + 1];
    assert_eq!(client.note_uses(many).await.expect_err("too many").code(), ErrorCode::PayloadTooLarge);
    let error = client.keep_warm(&name("m9"), WarmLevel::Disk).await.expect_err("unknown");
    assert_eq!(error.code(), ErrorCode::ModelNotFound);
}

/// The background task: a pin that is made while it runs is fetched, and what was noted is kept when it ends.
#[tokio::test]
async fn in_the_background_pins_are_fetched_and_the_history_is_kept_at_the_end() {
    let pair = Pair::new(PrefetchConfig::default()).await;
    let registry = pair.open().await;
    let tasks = helios_runtime::Tasks::new(helios_runtime::Shutdown::default());
    registry.keep_prefetched(&tasks);
    registry.keep_warm(&name("m3"), WarmLevel::Disk).await.expect("kept");
    while !pair.has(&registry, "m3").await {
        crate::origin::moment().await;
    }
    registry.note_uses(&one_use("m3")).await.expect("noted");
    assert!(tasks.stop(Duration::from_secs(30)).await, "it ends when it is told to");
    assert!(fs::read_to_string(pair.place.store().join("history.json")).expect("a history").contains("m3"));
}
