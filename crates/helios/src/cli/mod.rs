//! The command line: what can be typed, and what `--help` teaches.

mod fit;
mod serve;
mod store;

use clap::{Args, Parser, Subcommand};

pub(crate) use fit::FitArgs;
pub(crate) use serve::{
    EngineArgs, HttpArgs, PartArgs, ProxyArgs, RegistryArgs, RegistryCommand, ServeArgs, WorkerArgs,
};
pub(crate) use store::{
    ConvertArgs, DedupArgs, ExportArgs, GcArgs, HistoryArgs, ImportArgs, ListArgs, PullArgs, PushArgs,
    RmArgs, RollbackArgs, ShowArgs, TagArgs, TiersArgs, WarmArgs,
};

/// Serves large language models on hardware you own.
///
/// `helios serve` starts everything in one process and answers the OpenAI API; `helios run` chats in the terminal.
#[derive(Debug, Parser)]
#[command(name = "helios", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// Configuration file [default: helios/helios.toml in the user's configuration directory, if it is there]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<std::path::PathBuf>,
    /// Directory of the model store [default: helios in the user's data directory]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) store: Option<std::path::PathBuf>,
    /// What to log, such as `info` or `warn,helios_proxy=debug` [default: info]
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Global options")]
    pub(crate) log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve models: proxy, registry and workers in this process
    Serve(ServeArgs),
    /// Chat with a model in the terminal
    Run(RunArgs),
    /// Fetch a model into the store
    Pull(PullArgs),
    /// Put a model into the remote store (`store.remote`) for other registries
    Push(PushArgs),
    /// Write models into one file, for a machine without a network
    ///
    /// The file is an OCI image layout in a plain tar: `helios import` there brings the same models back under the same
    /// names and tags, and `skopeo` and `oras` read it, too. Files that models share are in it once. While it is written
    /// it is FILE.partial; interrupted, the same command verifies what is there and goes on behind it. To a disk or over
    /// a line: `helios export a:v1 b:v2 /mnt/usb/models.tar`, `helios export a:v1 - | ssh HOST helios import -`
    Export(ExportArgs),
    /// Bring the models of a file that `helios export` wrote into the store
    ///
    /// Every byte is checked before it counts: files against their names and their manifests, the whole against its end.
    /// Files that are in the store already are skipped; interrupted, the same command goes on with what has come. A tag
    /// that is there already is moved, and its history keeps what it was.
    Import(ImportArgs),
    /// List the models in the store
    List(ListArgs),
    /// Show one model: files, sizes, memory profile, history of its tag
    Show(ShowArgs),
    /// Say whether a model fits, where, with what context and for how many sequences
    ///
    /// Answers from the model's headers alone: nothing is loaded, and the model need not be here if it is in the
    /// catalogue or its files can be read. For two accelerators: `helios fit NAME --device 24GiB --device 24GiB`
    Fit(FitArgs),
    /// Show what a running server serves right now
    Ps(PsArgs),
    /// Show what a model's tag pointed to, newest first
    History(HistoryArgs),
    /// Point a model's tag at an earlier version again
    ///
    /// The history grows by that step and loses nothing: `helios rollback` twice is where it was before.
    Rollback(RollbackArgs),
    /// Remove a tag; `helios gc` then frees the space
    Rm(RmArgs),
    /// Give a model another name
    Tag(TagArgs),
    /// Convert a model between safetensors and GGUF without changing a value
    Convert(ConvertArgs),
    /// Keep weight files that share tensors with others as ranges of those
    Dedup(DedupArgs),
    /// Free the space of everything that no tag refers to
    Gc(GcArgs),
    /// Show the directories of the store: what they hold, how fast they are, whether they work
    ///
    /// `store.budget` bounds the store's own directory, `store.tiers` adds more: memory, NVMe, SSD. Blobs move between them
    /// by use.
    Tiers(TiersArgs),
    /// Keep models near, and show which are near, how near, and why
    ///
    /// `helios warm MODEL` has a model fetched if it is not here, and kept, whatever else needs room, until `--off`.
    /// Without a model it lists those that are kept, were asked for, or are held by workers, and what is expected of them.
    Warm(WarmArgs),
    /// Check, explain or describe the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at this machine and the store's disk: what Helios uses of them, and what holds it back
    ///
    /// Fails if a finding is bad; each finding that is not ok says what to do.
    Doctor(DoctorArgs),
    /// Measure this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Run the registry alone, for workers and proxies elsewhere
    Registry(RegistryArgs),
    /// Run one worker alone
    Worker(WorkerArgs),
    /// Run the proxy alone
    Proxy(ProxyArgs),
    /// Print the completion script of a shell
    ///
    /// For bash: `helios completions bash > ~/.local/share/bash-completion/completions/helios`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The model, fetched first if it is not there [default: the configured default model]
    pub(crate) model: Option<String>,
    /// Ask this and leave; without it, or with a terminal, a conversation begins
    pub(crate) prompt: Option<String>,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,
    /// Bound on tokens of each answer
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Makes answers repeatable
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read the configuration and say what is wrong with it
    Check,
    /// Show every setting, its value and where that came from
    Explain {
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON schema of the configuration file
    Schema,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Prefill and decode speed of the native engine
    ///
    /// Prefill of 512 tokens, and decode at 1, 8 and 32 sequences at once, as tokens per second.
    Engine(BenchEngineArgs),
    /// Speed of loads, pulls, downloads and the registry, beside the limits of this machine
    ///
    /// Writes models and a registry of its own into one folder, takes files out of the page cache before each cold load,
    /// and deletes everything in the end, also when it is interrupted. All sides of a comparison run in turn; the other
    /// loaders verify nothing.
    ///
    /// Everything, with all peers: `helios bench storage --against all`. In a minute or two: `--only loads,pull --size
    /// 512MiB`. What is missing for a row is said on standard error, with the line that installs it.
    Storage(BenchStorageArgs),
    /// Hit rate and seconds saved by predictive prefetch
    ///
    /// Replays generated traces of two weeks, or what was asked for here, against LRU, the same policy without prefetch,
    /// and an oracle that knows the future. Nothing is loaded; takes seconds.
    Prefetch(BenchPrefetchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure the store's disk too: writes 256 MiB and reads them back
    #[arg(long)]
    pub(crate) measure: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchStorageArgs {
    /// One JSON object on standard output, everything else on standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure these loaders too, in turn with Helios: `all`, or some of safetensors, runai-model-streamer,
    /// fastsafetensors, tensorizer (installed by `cargo xtask yardstick storage`)
    #[arg(long, value_name = "PEER", value_delimiter = ',', hide_possible_values = true,
        value_parser = ["all", "safetensors", "runai-model-streamer", "fastsafetensors", "tensorizer"])]
    pub(crate) against: Vec<String>,
    /// Measure only these parts [default: all]
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub(crate) only: Vec<StoragePart>,
    /// Folder on the disk to measure [default: the store's]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<std::path::PathBuf>,
    /// Size of the model; memory must hold it twice, the disk four times
    #[arg(long, value_name = "SIZE", default_value = "2.5GiB")]
    pub(crate) size: String,
    /// Repeats of each figure; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repeats: u32,
}

/// A part of `helios bench storage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StoragePart {
    /// Cold load, cold map and warm open of a checkpoint; the other loaders
    Loads,
    /// `helios pull` from an origin on this machine
    Pull,
    /// Start, resolve, list and collect with 100,000 versions and 1,000,000 blobs (some minutes)
    Registry,
    /// Downloads by huggingface_hub, from Helios and from a static file server
    Hub,
    /// What deduplication saves on variants of a model, and what it costs
    Dedup,
}

impl std::fmt::Display for StoragePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Loads => "loads",
            Self::Pull => "pull",
            Self::Registry => "registry",
            Self::Hub => "hub",
            Self::Dedup => "dedup",
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchPrefetchArgs {
    /// One JSON object on standard output, everything else on standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Traces of each pattern
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) seeds: u64,
    /// Seed of the first of them; the policy was tuned on `--first-seed 1 --seeds 3`
    #[arg(long, value_name = "SEED", default_value_t = 101, value_parser = clap::value_parser!(u64).range(0..1 << 32),
        conflicts_with = "history")]
    pub(crate) first_seed: u64,
    /// Memory of the tier, as a percentage of the bytes of all models
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) budget: u64,
    /// Replay a recorded history instead: the `history.json` of a store's folder
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    pub(crate) history: Option<std::path::PathBuf>,
    /// Requests ahead that a use is expected within [default: the policy's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) horizon: Option<u32>,
    /// Probability of use below which nothing is prefetched [default: the policy's]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(..=100))]
    pub(crate) probability: Option<u32>,
    /// How much a prefetch must be worth of what leaves for it [default: the policy's]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) margin: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchEngineArgs {
    /// The model [default: the configured default model]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// One JSON object on standard output, everything else on standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure this peer too, interleaved on the same cores (built by `cargo xtask yardstick`)
    #[arg(long, value_name = "PEER", value_parser = ["llama.cpp"])]
    pub(crate) against: Option<String>,
    /// Repeats of each figure; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repeats: u32,
    /// Threads of either side [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}
