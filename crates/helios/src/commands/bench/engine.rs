//! `helios bench engine`: prefill and decode of the native engine, as served: through scheduler and sampler.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use helios_engine::{Engine, EngineHandle, EngineOptions, Event, Events, Model, Request, Sampling};
use helios_kernels::Team;
use helios_runtime::{Clock, Instant};
use indicatif::ProgressBar;

use super::llama_cpp::LlamaCpp;
use super::table::{self, Row};
use crate::cli::BenchEngineArgs;
use crate::config::Config;
use crate::models::{self, Opened};

const PREFILL_TOKENS: usize = 512;
const PROMPT_TOKENS: usize = 16;
const ANSWER_TOKENS: usize = 64;
const BATCHES: [usize; 3] = [1, 8, 32];
const UNIT: &str = "tokens/s";

/// Samples of one figure: ours and the peer's.
struct Samples {
    what: String,
    own: Vec<f64>,
    peer: Vec<f64>,
}

/// Measures and prints.
pub(crate) async fn bench_engine(config: &Config, args: &BenchEngineArgs) -> anyhow::Result<()> {
    let name = args.model.as_deref().unwrap_or_else(|| config.default_model());
    let opened = models::open(config, name).await?;
    let threads = args.threads.unwrap_or_else(available_threads);
    let peer = match args.against {
        Some(_) => Some(LlamaCpp::find(&opened.weights_path()?, threads)?),
        None => None,
    };
    let engine = start(&opened, threads)?;
    eprintln!(
        "model {name}, {threads} threads, {:?}, {}",
        helios_kernels::Isa::detect(),
        engine.numerics_id()
    );
    let samples = measure(&engine, peer.as_ref(), args.repeats).await?;
    engine.shutdown();
    let peer_name = peer.as_ref().map(LlamaCpp::name);
    let rows: Vec<Row> = samples
        .iter()
        .map(|samples| {
            let peer = peer_name.as_deref().map(|name| (name, samples.peer.as_slice()));
            Row::reported(&samples.what, UNIT, &samples.own, peer)
        })
        .collect();
    table::print(&rows, args.json)
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn start(opened: &Opened, threads: usize) -> anyhow::Result<EngineHandle> {
    let model: Arc<Model> = opened.load()?;
    let tokens = BATCHES[2] * (PROMPT_TOKENS + ANSWER_TOKENS) + 4 * PREFILL_TOKENS;
    let kv_bytes = model.config().kv_bytes_per_token() * tokens;
    let began = Clock.now();
    let clock = Arc::new(move || Clock.now() - began);
    let options = EngineOptions::new(Arc::new(Team::new(threads)), clock, opened.digest(), kv_bytes);
    Engine::start(model, options).context("starting the engine failed")
}

/// Both sides in turn, so that a change of the machine's mood meets both.
async fn measure(
    engine: &EngineHandle,
    peer: Option<&LlamaCpp>,
    repeats: u32,
) -> anyhow::Result<Vec<Samples>> {
    let names = std::iter::once(format!("prefill {PREFILL_TOKENS}"));
    let names = names.chain(BATCHES.iter().map(|sequences| format!("decode, {sequences} at once")));
    let mut samples: Vec<Samples> =
        names.map(|what| Samples { what, own: Vec::new(), peer: Vec::new() }).collect();
    let progress = ProgressBar::new(u64::from(repeats));
    engine.warm_up().await?;
    for repeat in 0..repeats {
        samples[0].own.push(prefill(engine, repeat).await?);
        for (slot, sequences) in samples[1..].iter_mut().zip(BATCHES) {
            slot.own.push(decode(engine, sequences, repeat).await?);
        }
        if let Some(peer) = peer {
            samples[0].peer.push(peer.prefill(PREFILL_TOKENS)?);
            samples[1].peer.push(peer.decode_one(ANSWER_TOKENS)?);
            for (slot, sequences) in samples[2..].iter_mut().zip(&BATCHES[1..]) {
                slot.peer.push(peer.decode_many(*sequences, PROMPT_TOKENS, ANSWER_TOKENS)?);
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(samples)
}

/// A prompt that no earlier one shares a block with.
fn request(engine: &EngineHandle, repeat: u32, sequence: usize, prompt: usize, answer: usize) -> Request {
    let vocab = engine.model().config().vocab;
    let token = |index: usize| ((index * 7919 + sequence * 104_729 + 11) % vocab) as u32;
    Request {
        prompt: (0..prompt).map(token).collect(),
        max_tokens: answer,
        sampling: Sampling::greedy(),
        salt: repeat.to_le_bytes().to_vec(),
        ..Request::default()
    }
}

async fn prefill(engine: &EngineHandle, repeat: u32) -> anyhow::Result<f64> {
    let began = Clock.now();
    let events = engine.submit(request(engine, repeat, 0, PREFILL_TOKENS, 1))?;
    let times = arrivals(events).await?;
    let first = times.first().context("the engine ended a prompt without a token")?;
    Ok(rate(PREFILL_TOKENS, *first - began))
}

/// Aggregate rate from the moment every sequence has its first token.
async fn decode(engine: &EngineHandle, sequences: usize, repeat: u32) -> anyhow::Result<f64> {
    let submit =
        |sequence| engine.submit(request(engine, repeat, 1 + sequence, PROMPT_TOKENS, ANSWER_TOKENS));
    let streams = (0..sequences).map(submit).collect::<Result<Vec<_>, _>>()?;
    let arrivals = futures::future::try_join_all(streams.into_iter().map(arrivals)).await?;
    let all_run =
        arrivals.iter().filter_map(|times| times.first()).max().context("no sequence has a token")?;
    let end = arrivals.iter().filter_map(|times| times.last()).max().context("no sequence has a token")?;
    let tokens = arrivals.iter().flatten().filter(|time| *time > all_run).count();
    Ok(rate(tokens, *end - *all_run))
}

/// When each token of an answer came.
async fn arrivals(mut events: Events) -> anyhow::Result<Vec<Instant>> {
    let mut times = Vec::with_capacity(ANSWER_TOKENS);
    while let Some(event) = events.next().await {
        match event {
            Event::Token(_) => times.push(Clock.now()),
            Event::Failed(error) => return Err(error.into()),
            Event::Started { .. } | Event::PromptLogprobs(_) | Event::Finished(_) => {}
        }
    }
    Ok(times)
}

fn rate(tokens: usize, took: Duration) -> f64 {
    tokens as f64 / took.as_secs_f64()
}
