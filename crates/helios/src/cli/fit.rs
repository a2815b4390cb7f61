//! Arguments of `helios fit`.

use clap::{Args, ValueEnum};
use helios_model::profile::parallel::{KvPrecision, Precision};

#[derive(Debug, Args)]
pub(crate) struct FitArgs {
    /// A model of the store or the catalogue, or `file:PATH` of a GGUF file or a folder with `config.json`: only
    /// headers are read
    pub(crate) model: String,
    /// Memory of this machine to answer for, such as `16GiB` [default: what is available]
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Memory of an accelerator, such as `24GiB`; repeat it for each one. Devices share the model as tensor-parallel
    /// ranks and pipeline stages; 10 % of each is kept back
    #[arg(long = "device", value_name = "BYTES")]
    pub(crate) devices: Vec<String>,
    /// Tensor-parallel ranks [default: as few as are needed]
    #[arg(long, value_name = "N", requires = "devices", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) tensor_parallel: Option<u64>,
    /// Pipeline stages [default: as few as are needed]
    #[arg(long, value_name = "N", requires = "devices", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) pipeline_parallel: Option<u64>,
    /// Tokens of each sequence [default: the model's limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub(crate) context: Option<u64>,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 16))]
    pub(crate) sequences: u64,
    /// How weights are held
    #[arg(long, value_enum, default_value_t = WeightsAs::Stored)]
    pub(crate) weights: WeightsAs,
    /// How keys and values are held
    #[arg(long, value_enum, default_value_t = KvAs::F16)]
    pub(crate) kv: KvAs,
    /// Print what the fullest rank needs at every precision, parallel degree and batch, too
    #[arg(long, conflicts_with = "json")]
    pub(crate) table: bool,
    /// One JSON object on standard output, with the profile and that table
    #[arg(long)]
    pub(crate) json: bool,
}

/// [`Precision`] as a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum WeightsAs {
    /// As the files have them
    Stored,
    /// 4 bytes each
    F32,
    /// 2 bytes each, f16 or bf16
    F16,
    /// Q8_0: 8 bits and a scale for every 32
    Int8,
    /// Q4_0: 4 bits and a scale for every 32
    Int4,
}

/// [`KvPrecision`] as a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KvAs {
    /// 4 bytes each
    F32,
    /// 2 bytes each, f16 or bf16
    F16,
    /// 1 byte each, int8 or fp8
    Int8,
}

impl From<WeightsAs> for Precision {
    fn from(weights: WeightsAs) -> Self {
        match weights {
            WeightsAs::Stored => Self::Stored,
            WeightsAs::F32 => Self::F32,
            WeightsAs::F16 => Self::F16,
            WeightsAs::Int8 => Self::Int8,
            WeightsAs::Int4 => Self::Int4,
        }
    }
}

impl From<KvAs> for KvPrecision {
    fn from(kv: KvAs) -> Self {
        match kv {
            KvAs::F32 => Self::F32,
            KvAs::F16 => Self::F16,
            KvAs::Int8 => Self::Int8,
        }
    }
}
