//! The uppermost layer: what was typed on the command line.

use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};
use serde_json::{Value, json};

use crate::cli::{EngineArgs, Global, HttpArgs, PartArgs, ServeArgs, WorkerArgs};
use crate::config::parse_size;

/// Name of this layer in `helios config explain`.
pub(super) const LAYER: &str = "flag";

/// Settings from flags; only those that were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags(serde_json::Map<String, Value>);

impl Flags {
    /// What every command takes.
    pub(crate) fn global(global: &Global) -> Self {
        let mut flags = Self::default();
        flags.set("store", "dir", global.store.as_ref().map(|dir| json!(dir)));
        flags.set("log", "filter", global.log.as_ref().map(|filter| json!(filter)));
        flags
    }

    /// Adds those of `helios serve`.
    pub(crate) fn serve(mut self, args: &ServeArgs) -> Result<Self, String> {
        let port = args.port.map(|port| json!(std::net::SocketAddr::from(([127, 0, 0, 1], port))));
        self.set("serve", "listen", args.listen.map(|listen| json!(listen)).or(port));
        self.set("serve", "models", (!args.model.is_empty()).then(|| json!(args.model)));
        self.engine(args.kv_memory.as_deref(), &args.engine)?;
        Ok(self.http(&args.http))
    }

    /// Adds those of `helios worker`.
    pub(crate) fn worker(mut self, args: &WorkerArgs) -> Result<Self, String> {
        self.set("store", "cache_budget", args.cache_budget.as_ref().map(|budget| json!(budget)));
        self.engine(args.kv_memory.as_deref(), &args.engine)?;
        Ok(self)
    }

    /// Adds those of the HTTP server.
    pub(crate) fn http(mut self, args: &HttpArgs) -> Self {
        self.set("proxy", "api_key", args.api_key.as_ref().map(|key| json!(key)));
        self.set("proxy", "cors_origins", (!args.cors_origins.is_empty()).then(|| json!(args.cors_origins)));
        self.set("proxy", "hosts", (!args.hosts.is_empty()).then(|| json!(args.hosts)));
        self
    }

    /// Adds the address of a part that is the HTTP server itself, so that it is judged by that address.
    pub(crate) fn listen(mut self, part: &PartArgs) -> Self {
        self.set("serve", "listen", Some(json!(part.listen)));
        self
    }

    fn engine(&mut self, kv_memory: Option<&str>, engine: &EngineArgs) -> Result<(), String> {
        let kv_bytes = kv_memory.map(parse_size).transpose()?;
        self.set("worker", "kv_memory", kv_bytes.map(|bytes| json!(bytes)));
        self.set("worker", "threads", engine.threads.map(|threads| json!(threads)));
        self.set("worker", "sequences_max", engine.sequences_max.map(|most| json!(most)));
        Ok(())
    }

    fn set(&mut self, section: &str, key: &str, value: Option<Value>) {
        if let Some(value) = value {
            let section = self.0.entry(section).or_insert_with(|| json!({}));
            section[key] = value;
        }
    }
}

impl Provider for &Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named(LAYER)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        figment::providers::Serialized::defaults(&self.0).data()
    }
}
