//! `helios fit`: does a model fit, where, with what context and for how many sequences. Weights are never read.
//!
//! A running server answers from the profiles that its proxy keeps, and says what memory its workers have.

use std::path::Path;

use anyhow::{Context, bail};
use helios_model::MemoryProfile;
use helios_model::profile::fit::{Fit, Place, Question, fit};
use helios_model::profile::parallel::{Degrees, KvPrecision, Precision, STEP_TOKENS};
use helios_model::profile::{ProfileDetails, profile_of_path};
use helios_proxy::{WorkerList, WorkerView};
use helios_registry::{Source, catalogue};
use helios_types::{Classify, ErrorCode, ModelRef};
use helios_worker::MemoryTexts;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cli::FitArgs;
use crate::config::{Config, parse_size, show_size};
use crate::models;
use crate::server::Server;
use crate::store::Store;

/// What is kept back of an accelerator, as vLLM does by default.
const DEVICE_RESERVE_PERCENT: u64 = 10;

/// Prints the answer for this machine and for the devices.
pub(crate) async fn run(config: &Config, args: &FitArgs) -> anyhow::Result<()> {
    let profile = profile(config, &args.model).await?;
    let details = profile.details.as_deref().context("the model's profile has no details")?;
    check_precision(details, args.weights.into())?;
    let question = Question {
        precision: args.weights.into(),
        kv_precision: args.kv.into(),
        context_tokens: args.context,
        sequences: args.sequences,
        ..Question::default()
    };
    let places = places(args).await?;
    let answers: Vec<Option<Fit>> = places.iter().map(|place| fit(details, &question, place)).collect();
    if args.json {
        return print_json(&args.model, &profile, details, &answers);
    }
    print_profile(&args.model, &profile, details);
    for (place, answer) in places.iter().zip(&answers) {
        match answer {
            Some(answer) => print_answer(answer),
            None => println!("{}: the model cannot be divided so: {}", place.name, indivisible(details)),
        }
    }
    if args.table {
        print_table(details);
    }
    Ok(())
}

fn print_json(
    model: &str,
    profile: &MemoryProfile,
    details: &ProfileDetails,
    answers: &[Option<Fit>],
) -> anyhow::Result<()> {
    let found: Vec<&Fit> = answers.iter().flatten().collect();
    let totals = profile.totals();
    let told = json!({
        "model": model,
        "serving_bytes": totals.serving_bytes,
        "accelerate_bytes": totals.accelerate_bytes,
        "fits": found,
        "profile": profile,
        "table": details.table(),
    });
    println!("{}", serde_json::to_string_pretty(&told)?);
    Ok(())
}

/// Refuses a precision of which the headers do not tell the bytes.
fn check_precision(details: &ProfileDetails, precision: Precision) -> anyhow::Result<()> {
    if details.precisions().contains(&precision) {
        return Ok(());
    }
    bail!(
        "what the weights need in {} is not known: a quantiser packed several into each element\nhint: `--weights {}` is known",
        precision.as_str(),
        Precision::Stored.as_str()
    )
}

/// The profile of a model of the store, of a file, or of the catalogue.
async fn profile(config: &Config, model: &str) -> anyhow::Result<MemoryProfile> {
    if models::is_source(model) {
        let Source::File(path) = model.parse()? else {
            bail!("the headers of `{model}` cannot be read from afar\nhint: `helios pull {model}` first");
        };
        return Ok(tokio::task::spawn_blocking(move || profile_of_path(Path::new(&path))).await??);
    }
    let reference: ModelRef = model.parse()?;
    if let Some(profile) = ask_proxy(&format!("/admin/v1/profile?model={reference}")).await? {
        return Ok(profile);
    }
    let store = Store::open(config).await?;
    match store.show(&reference).await {
        Ok((resolved, _)) => Ok(store.profile(&resolved).await?),
        Err(error) if error.code() == ErrorCode::ModelNotFound => {
            catalogue::find(&reference).map(catalogue::CatalogueModel::memory_profile).ok_or(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// What the proxy of the running server answers; `None` where there is none, or it has no answer: then the store says why.
async fn ask_proxy<T: DeserializeOwned>(path: &str) -> anyhow::Result<Option<T>> {
    match Server::running().await? {
        Some(server) => Ok(server.get(path).await.ok()),
        None => Ok(None),
    }
}

/// This machine, unless only devices are asked about, the workers, unless any memory is given, and the devices.
async fn places(args: &FitArgs) -> anyhow::Result<Vec<Place>> {
    let mut places = Vec::new();
    if args.devices.is_empty() || args.memory.is_some() {
        places.push(machine(args.memory.as_deref())?);
    }
    if args.devices.is_empty() && args.memory.is_none() {
        let known: Option<WorkerList> = ask_proxy("/admin/v1/workers").await?;
        places.extend(known.iter().flat_map(|list| &list.workers).filter_map(worker));
    }
    let sizes: Result<Vec<u64>, String> = args.devices.iter().map(|size| parse_size(size)).collect();
    let sizes = sizes.map_err(anyhow::Error::msg)?;
    if let Some(least) = sizes.iter().min() {
        places.push(Place {
            name: format!("{} x {}", sizes.len(), show_size(*least)),
            devices: sizes.len() as u64,
            device_bytes: *least,
            reserve_percent: DEVICE_RESERVE_PERCENT,
            degrees: degrees(args, sizes.len() as u64)?,
        });
    }
    Ok(places)
}

/// What a worker's process can take, whatever it has taken for the model that it serves.
fn worker(worker: &WorkerView) -> Option<Place> {
    let name = format!("worker {} with {}", worker.id, worker.model);
    let (device_bytes, reserve_percent) = (worker.memory_bytes, 0);
    (device_bytes > 0).then_some(Place { name, devices: 1, device_bytes, reserve_percent, degrees: None })
}

fn machine(memory: Option<&str>) -> anyhow::Result<Place> {
    let device_bytes = match memory {
        Some(text) => parse_size(text).map_err(anyhow::Error::msg)?,
        None => {
            MemoryTexts::read()
                .available()
                .context("the kernel does not say what memory is available\nhint: give it with --memory")?
                .bytes
        }
    };
    Ok(Place { name: "this machine".to_owned(), devices: 1, device_bytes, reserve_percent: 0, degrees: None })
}

fn degrees(args: &FitArgs, devices: u64) -> anyhow::Result<Option<Degrees>> {
    if args.tensor_parallel.is_none() && args.pipeline_parallel.is_none() {
        return Ok(None);
    }
    let degrees =
        Degrees { tensor: args.tensor_parallel.unwrap_or(1), pipeline: args.pipeline_parallel.unwrap_or(1) };
    if degrees.ranks() > devices {
        bail!("{} ranks need as many devices, {devices} are given\nhint: repeat --device", degrees.ranks());
    }
    Ok(Some(degrees))
}

fn indivisible(details: &ProfileDetails) -> String {
    let shape = &details.shape;
    format!("it has {} heads, {} key-value heads and {} layers", shape.heads, shape.kv_heads, shape.layers)
}

fn print_profile(model: &str, profile: &MemoryProfile, details: &ProfileDetails) {
    let shape = &details.shape;
    let types: Vec<String> = profile
        .weight_bytes_by_type
        .iter()
        .map(|(kind, bytes)| format!("{} in {kind}", show_size(*bytes)))
        .collect();
    println!("{model}");
    println!("  weights         {} ({})", show_size(profile.serving_bytes()), types.join(", "));
    if let Some(bytes) = profile.accelerate_bytes(Precision::F32) {
        println!("  accelerate      {} in float32, as `accelerate estimate-memory` counts", show_size(bytes));
    }
    println!("  largest layer   {}", show_size(profile.largest_layer_bytes));
    println!("  KV cache        {} a token in f16", show_size(shape.kv_bytes_per_token(KvPrecision::F16)));
    println!("  context         {} tokens", shape.context_tokens);
}

/// The arithmetic, line by line, and what it means.
fn print_answer(fit: &Fit) {
    let verdict = if fit.fits { "fits" } else { "does not fit" };
    let ranks = match fit.degrees {
        Degrees::ONE => String::new(),
        Degrees { tensor, pipeline } => format!(", {tensor} tensor-parallel x {pipeline} stages, each"),
    };
    println!("{}: {verdict}{ranks}", fit.place);
    println!("    {:>10}  memory", show_size(fit.device_bytes));
    let line = |bytes: u64, what: &str| println!("  - {:>10}  {what}", show_size(bytes));
    if fit.reserve_bytes > 0 {
        line(fit.reserve_bytes, "kept back");
    }
    line(fit.weight_bytes, "weights");
    line(fit.activation_bytes, "working memory of a step");
    let (sequences, context) = (fit.sequences, fit.context_tokens);
    line(
        fit.kv_bytes_per_sequence.saturating_mul(sequences),
        &format!("KV of {sequences} x {context} tokens"),
    );
    let left = u64::try_from(fit.left_bytes.unsigned_abs()).unwrap_or(u64::MAX);
    println!("  = {:>10}  {}", show_size(left), if fit.fits { "left" } else { "missing" });
    println!(
        "  at most {} tokens for {sequences} at once, or {} at once of {context} tokens",
        fit.context_tokens_max, fit.sequences_max
    );
}

/// What the fullest rank needs at every precision, degree and batch: a line for each number of ranks.
fn print_table(details: &ProfileDetails) {
    println!(
        "\nthe fullest rank of so many tensor-parallel ranks x stages: weights, KV of a token, and working memory of a"
    );
    println!("step of {STEP_TOKENS} tokens that samples so many sequences");
    let table = details.table();
    let batches = table.first().map(|line| line.activation_bytes.keys().copied().collect::<Vec<_>>());
    let heads = details.precisions().iter().map(|precision| precision.as_str().to_owned());
    let heads = heads.chain(KvPrecision::ALL.iter().map(|precision| format!("KV {}", precision.as_str())));
    let heads = heads.chain(batches.iter().flatten().map(|sequences| format!("step of {sequences}")));
    print_line("ranks", heads);
    for line in &table {
        let Degrees { tensor, pipeline } = line.degrees;
        let bytes = line.weight_bytes.values().chain(line.kv_bytes_per_token.values());
        let bytes = bytes.chain(line.activation_bytes.values());
        print_line(&format!("{tensor} x {pipeline}"), bytes.map(|bytes| show_size(*bytes)));
    }
}

fn print_line(first: &str, columns: impl Iterator<Item = String>) {
    let columns: Vec<String> = columns.map(|column| format!(" {column:>10}")).collect();
    println!("{first:<5}{}", columns.concat());
}
