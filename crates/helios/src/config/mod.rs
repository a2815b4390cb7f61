//! The configuration: defaults < file < environment < flags, parsed once, checked once.
//!
//! Each part owns its own section; this module owns the rest and is the only place of Helios that reads a file or the
//! environment for settings. Environment variables are `HELIOS_SECTION__KEY`, such as `HELIOS_PROXY__API_KEY`.

mod explain;
mod flags;
mod size;
mod tiers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use helios_proxy::ProxyConfig;
use helios_registry::{PrefetchConfig, ScrubConfig};
use helios_types::ModelRef;
use helios_worker::WorkerConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use explain::{Setting, explain};
pub(crate) use flags::Flags;
pub(crate) use size::{parse_size, show_size};
pub(crate) use tiers::TierSettings;

use crate::environment;

/// Models that may be fetched ahead at a time.
const MODELS_AT_A_TIME_MAX: usize = 64;
const MEGABYTE: u64 = 1_000_000;

/// The model that is served when none is named.
const DEFAULT_MODEL: &str = "smollm2:135m-instruct";

/// Everything that can be set.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What is logged, and how.
    pub(crate) log: LogConfig,
    /// Where models live and come from.
    pub(crate) store: StoreConfig,
    /// What `helios serve` serves, and where.
    pub(crate) serve: ServeConfig,
    /// The HTTP server.
    pub(crate) proxy: ProxyConfig,
    /// The engine and its limits.
    pub(crate) worker: WorkerConfig,
}

/// What is logged, and how.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// Levels by module, such as `info` or `warn,helios_proxy=debug`.
    pub(crate) filter: String,
    /// `auto` (for people on a terminal, JSON otherwise), `human` or `json`.
    pub(crate) format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Coloured lines.
    Human,
    /// One JSON object a line.
    Json,
}

/// Where models live and come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreConfig {
    /// Directory of the model store; by default `helios` in the user's data directory.
    pub(crate) dir: Option<PathBuf>,
    /// Most bytes of blobs in that directory, such as `500GiB`; by default what its file system has. At the bound, weights
    /// that can be had again from elsewhere leave, those of least use first; what cannot stays, and a pull is refused.
    pub(crate) budget: Option<String>,
    /// Most bytes of blobs that a worker keeps of models whose registry is on another host (`cache` in that directory), such
    /// as `200GiB`; by default what is there, and nine tenths of what is free, when it starts. What was used least of late makes room.
    pub(crate) cache_budget: Option<String>,
    /// More directories, in the order that new blobs try them behind the first; blobs move between them by use.
    pub(crate) tiers: Vec<TierSettings>,
    /// How files are read: `auto` (io_uring where the system allows it), `io_uring` or `threads`.
    pub(crate) io: IoSetting,
    /// Database of manifests and tags: `sqlite` (a file in the store) or `postgres://USER:PASSWORD@HOST/DATABASE`; by
    /// default sqlite.
    pub(crate) metadata: Option<String>,
    /// Base URL of the hub behind `hf:` sources; by default HF_ENDPOINT, else the public hub.
    pub(crate) hf_endpoint: Option<String>,
    /// Token for the hub, sent to that endpoint alone; by default HF_TOKEN.
    pub(crate) hf_token: Option<String>,
    /// Address of the registry that is asked for what is not here, such as `http://models.example:8090`.
    pub(crate) parent: Option<String>,
    /// Addresses of the registries that share what they fetch with this one, the same list at each. Not needed where all
    /// have the same parent.
    pub(crate) peers: Vec<String>,
    /// Address under which those reach this registry; without it, it takes and does not give.
    pub(crate) advertise: Option<String>,
    /// Folder of an object store that is asked for what is not here, and that `helios push` puts models into:
    /// `s3://BUCKET/FOLDER`, `gs://…` or `az://…`. Credentials come from the environment (AWS_…, GOOGLE_…, AZURE_…).
    pub(crate) remote: Option<String>,
    /// The cluster token of parent and peers; by default HELIOS_CLUSTER_TOKEN.
    pub(crate) fleet_token: Option<String>,
    /// Whether weight files are deduplicated as they come, which reads each once more; `helios dedup` does it later.
    pub(crate) deduplicate: bool,
    /// Most bytes of a file that a client of the hub's protocol sends inside a commit, such as `1GiB`; larger ones go by LFS.
    /// By default 512MiB.
    pub(crate) commit_file_max: Option<String>,
    /// How the store is read again to find what the disk has damaged.
    pub(crate) scrub: ScrubSettings,
    /// What is fetched before it is asked for.
    pub(crate) prefetch: PrefetchSettings,
}

/// How the store is read again to find what the disk has damaged.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScrubSettings {
    /// Megabytes read in a second; 0: never.
    pub(crate) mb_per_second: u64,
    /// Days from the beginning of one reading of the whole store to the next.
    pub(crate) period_days: u64,
}

impl Default for ScrubSettings {
    fn default() -> Self {
        let ScrubConfig { bytes_per_second, period } = ScrubConfig::default();
        Self { mb_per_second: bytes_per_second / 1_000_000, period_days: period.as_secs() / (24 * 3600) }
    }
}

/// What is fetched before it is asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PrefetchSettings {
    /// Whether models that are likely to be asked for are fetched ahead. Those that `helios warm` names are, in any case.
    pub(crate) enabled: bool,
    /// Megabytes that may be fetched in vain each hour, beside 3 % of what is fetched because somebody asked.
    pub(crate) mb_per_hour: u64,
    /// Models fetched ahead at a time.
    pub(crate) models_at_a_time: usize,
    /// Megabytes fetched ahead in a second, all together; 0: as fast as they come.
    pub(crate) mb_per_second: u64,
}

impl Default for PrefetchSettings {
    fn default() -> Self {
        let PrefetchConfig { enabled, bytes_per_hour, models_at_a_time, bytes_per_second } =
            PrefetchConfig::default();
        let (mb_per_hour, mb_per_second) = (bytes_per_hour / MEGABYTE, bytes_per_second / MEGABYTE);
        Self { enabled, mb_per_hour, models_at_a_time, mb_per_second }
    }
}

impl From<PrefetchSettings> for PrefetchConfig {
    fn from(settings: PrefetchSettings) -> Self {
        Self {
            enabled: settings.enabled,
            bytes_per_hour: settings.mb_per_hour.saturating_mul(MEGABYTE),
            models_at_a_time: settings.models_at_a_time,
            bytes_per_second: settings.mb_per_second.saturating_mul(MEGABYTE),
        }
    }
}

/// How files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IoSetting {
    /// io_uring where the system has and allows it, else threads.
    #[default]
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// Threads.
    Threads,
}

impl From<IoSetting> for helios_storage::io::IoChoice {
    fn from(setting: IoSetting) -> Self {
        match setting {
            IoSetting::Auto => Self::Auto,
            IoSetting::IoUring => Self::IoUring,
            IoSetting::Threads => Self::Threads,
        }
    }
}

/// What `helios serve` serves, and where.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServeConfig {
    /// Address of the HTTP server.
    pub(crate) listen: SocketAddr,
    /// Models to serve, fetched first where they are not there.
    pub(crate) models: Vec<String>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), models: vec![DEFAULT_MODEL.to_owned()] }
    }
}

/// Why the configuration does not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("configuration file {} does not exist", path.display())]
    NoFile { path: PathBuf },
    #[error("{key}: {problem} (from {origin})")]
    Setting { key: String, problem: String, origin: String },
    #[error("{message}")]
    Value { message: String },
}

impl Config {
    /// Reads all layers and checks the sum.
    pub(crate) fn load(file: Option<&Path>, flags: &Flags) -> Result<(Self, Figment), ConfigError> {
        let figment = layers(file, flags)?;
        let mut config: Self = figment.extract().map_err(explain_error)?;
        config.fill_from_environment();
        config.validate()?;
        Ok((config, figment))
    }

    fn fill_from_environment(&mut self) {
        let store = &mut self.store;
        store.dir = store.dir.take().or_else(environment::data_dir);
        store.hf_endpoint = store.hf_endpoint.take().or_else(|| environment::variable("HF_ENDPOINT"));
        store.hf_token = store.hf_token.take().or_else(|| environment::variable("HF_TOKEN"));
        let cluster_token = || environment::variable("HELIOS_CLUSTER_TOKEN");
        store.fleet_token = store.fleet_token.take().or_else(cluster_token);
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let value = |message: String| ConfigError::Value { message };
        for model in &self.serve.models {
            if !model.contains("://") && !crate::models::is_source(model) {
                model.parse::<ModelRef>().map_err(|error| value(format!("serve.models: {error}")))?;
            }
        }
        let at_a_time = self.store.prefetch.models_at_a_time;
        if !(1..=MODELS_AT_A_TIME_MAX).contains(&at_a_time) {
            let most = MODELS_AT_A_TIME_MAX;
            return Err(value(format!(
                "store.prefetch.models_at_a_time: expected 1 to {most}, not {at_a_time}; to fetch nothing ahead, set \
                 store.prefetch.enabled = false"
            )));
        }
        for address in self.store.parent.iter().chain(&self.store.peers).chain(&self.store.advertise) {
            if !address.starts_with("http://") && !address.starts_with("https://") {
                return Err(value(format!(
                    "store: `{address}` is no address of a registry: expected http://HOST:PORT"
                )));
            }
        }
        if let Some(dir) = &self.store.dir {
            self.store.tier_directories(dir)?;
        }
        self.store.cache_bytes()?;
        self.store.hub_limits()?;
        self.proxy.validate(self.serve.listen).map_err(|error| value(error.to_string()))?;
        self.worker.validate().map_err(|error| value(error.to_string()))
    }

    /// The model that is meant when none is named: the first that is served.
    pub(crate) fn default_model(&self) -> &str {
        self.serve.models.first().map_or(DEFAULT_MODEL, String::as_str)
    }

    /// The store's directory.
    pub(crate) fn store_dir(&self) -> Result<&Path, ConfigError> {
        self.store.dir.as_deref().ok_or_else(|| ConfigError::Value {
            message: "no directory for the model store: set --store, store.dir or HOME".to_owned(),
        })
    }
}

fn layers(file: Option<&Path>, flags: &Flags) -> Result<Figment, ConfigError> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    match file {
        Some(path) if !path.exists() => return Err(ConfigError::NoFile { path: path.to_owned() }),
        Some(path) => figment = figment.merge(Toml::file_exact(path)),
        None => {
            if let Some(path) = environment::config_file() {
                figment = figment.merge(Toml::file_exact(path));
            }
        }
    }
    let environment = Env::prefixed("HELIOS_").filter(|key| key.as_str().contains("__")).split("__");
    Ok(figment.merge(environment).merge(flags))
}

/// The first of figment's errors in our words, with a suggestion where a key is unknown.
fn explain_error(error: figment::Error) -> ConfigError {
    let origin = error.metadata.as_ref().map_or_else(|| "the command line".to_owned(), explain::origin);
    let parent = error.path.join(".");
    match &error.kind {
        figment::error::Kind::UnknownField(name, known) => {
            let near = known.iter().max_by(|a, b| strsim::jaro(name, a).total_cmp(&strsim::jaro(name, b)));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let key = if parent.is_empty() || parent.ends_with(name) {
                name.clone()
            } else {
                format!("{parent}.{name}")
            };
            ConfigError::Setting { key, problem: format!("no such setting{hint}"), origin }
        }
        kind => ConfigError::Setting { key: parent, problem: kind.to_string(), origin },
    }
}

#[cfg(test)]
mod tests;
