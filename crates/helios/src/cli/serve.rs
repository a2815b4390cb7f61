//! Arguments of the commands that serve.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Port of the HTTP server; 0 takes a free one [default: 8080]
    #[arg(long, value_name = "PORT", conflicts_with = "listen")]
    pub(crate) port: Option<u16>,
    /// Address of the HTTP server [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// A model to serve, fetched first if it is not there; repeatable [default: smollm2:135m-instruct]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Vec<String>,
    /// Memory of the KV cache, shared by the models, such as `512MiB` [default: the lesser of a quarter of the memory
    /// available and what the most sequences at full context need]
    #[arg(long, value_name = "BYTES")]
    pub(crate) kv_memory: Option<String>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
}

/// What the engine may use.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EngineArgs {
    /// Threads of the engine [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Most sequences in work at once [default: 32]
    #[arg(long, value_name = "N")]
    pub(crate) sequences_max: Option<usize>,
}

/// Who may use the HTTP server.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct HttpArgs {
    /// Key that every request has to carry; needed off loopback. Better set as HELIOS_PROXY__API_KEY
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Web origins that may call, such as `https://chat.example.org`; repeatable or separated by commas
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) cors_origins: Vec<String>,
    /// Host names beside the loopback ones that requests may name; repeatable or separated by commas
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(crate) hosts: Vec<String>,
}

/// What every part of a divided Helios takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct PartArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Secret that all parts share; needed off loopback. Better set as HELIOS_CLUSTER_TOKEN
    #[arg(long, value_name = "TOKEN", env = "HELIOS_CLUSTER_TOKEN", hide_env_values = true)]
    pub(crate) cluster_token: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct RegistryArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Option<SocketAddr>,
    /// Secret that all parts share; needed off loopback. Better set as HELIOS_CLUSTER_TOKEN
    #[arg(long, value_name = "TOKEN", env = "HELIOS_CLUSTER_TOKEN", hide_env_values = true)]
    cluster_token: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Option<RegistryCommand>,
}

impl RegistryArgs {
    /// Where the registry listens, unless a subcommand is meant.
    pub(crate) fn part(&self) -> Option<PartArgs> {
        Some(PartArgs { listen: self.listen?, cluster_token: self.cluster_token.clone() })
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Make the database of manifests and tags again from the files of the store
    ///
    /// For a database that is damaged, or older than the files. No server may have the store open. Records that can
    /// still be read from the old database are kept; it stays beside the new one as `metadata.db.old`.
    Rebuild {
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// Copy the database to a new file, also while a server uses it
    ///
    /// To restore: stop the server, put the copy in the place of `metadata.db` in the store, and run `helios registry
    /// rebuild`. A PostgreSQL database is copied by `pg_dump`.
    Backup {
        /// The file to write; it must not be there yet
        file: PathBuf,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) part: PartArgs,
    /// Address of the registry, such as `http://127.0.0.1:8090`
    #[arg(long, value_name = "URL")]
    pub(crate) registry: String,
    /// The model to serve; the registry fetches it if it is not there
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// Memory of the KV cache, such as `512MiB` [default: as for `helios serve`]
    #[arg(long, value_name = "BYTES")]
    pub(crate) kv_memory: Option<String>,
    /// Most bytes kept of models whose registry is on another host, such as `200GiB`; what was used least of late makes
    /// room [default: what it has, and nine tenths of what is free]
    #[arg(long, value_name = "BYTES")]
    pub(crate) cache_budget: Option<String>,
    /// Address at which proxies reach this worker [default: the one it listens on]
    #[arg(long, value_name = "URL")]
    pub(crate) advertise: Option<String>,
    /// Address at which other workers and registries take from this worker what it has of the model, at the host that
    /// --advertise names; wants the cluster token as --listen does [default: a free port of the address of --listen]
    #[arg(long, value_name = "ADDR")]
    pub(crate) share_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    pub(crate) part: PartArgs,
    /// Address of the registry, such as `http://127.0.0.1:8090`
    #[arg(long, value_name = "URL")]
    pub(crate) registry: String,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
}
