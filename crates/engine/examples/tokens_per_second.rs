//! Measures prefill of 512 tokens and decode of 1, 8 and 32 sequences in this process.
//!
//! `cargo run --profile ci -p helios-engine --example tokens_per_second -- MODEL.gguf [THREADS]`

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock and its own arguments")]

use std::sync::Arc;
use std::time::Instant;

use helios_engine::{Engine, EngineError, EngineHandle, EngineOptions, Event, Model, Request, Sampling};
use helios_kernels::Team;
use helios_storage::Blob;
use helios_types::Digest;

const PROMPT_TOKENS: usize = 512;
const ANSWER_TOKENS: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: tokens_per_second MODEL.gguf [THREADS]")?;
    let threads: usize = arguments.next().map_or(Ok(2), |threads| threads.parse())?;
    let model = Arc::new(Model::from_gguf(&path, Blob::from_vec(std::fs::read(&path)?))?);
    let started = Instant::now();
    let team = Arc::new(Team::new(threads));
    let options =
        EngineOptions::new(team, Arc::new(move || started.elapsed()), Digest::from_bytes([0; 32]), 1 << 30);
    let engine = Engine::start(model, options)?;
    measure(&engine, 1, PROMPT_TOKENS, 1)?;
    for round in 0..3 {
        let seconds = measure(&engine, 1, PROMPT_TOKENS, 1)?;
        println!("round {round}: prefill {PROMPT_TOKENS}: {:.0} tokens/s", PROMPT_TOKENS as f64 / seconds);
        for sequences in [1, 8, 32] {
            let seconds = measure(&engine, sequences, 1, ANSWER_TOKENS)?;
            let tokens = f64::from(sequences) * ANSWER_TOKENS as f64;
            println!("round {round}: decode, {sequences} at once: {:.0} tokens/s", tokens / seconds);
        }
    }
    Ok(())
}

/// Seconds for `sequences` requests of fresh prompts, submitted together.
fn measure(engine: &EngineHandle, sequences: u32, prompt: usize, answer: usize) -> Result<f64, EngineError> {
    let begun = Instant::now();
    let salt = format!("{begun:?}").into_bytes();
    let request = |sequence: u32| Request {
        prompt: (0..prompt as u32).map(|i| 1000 + (i * 7919 + sequence * 31) % 20_000).collect(),
        max_tokens: answer,
        sampling: Sampling::greedy(),
        salt: salt.clone(),
        ..Request::default()
    };
    let streams: Vec<_> =
        (0..sequences).map(|sequence| engine.submit(request(sequence))).collect::<Result<_, _>>()?;
    for mut stream in streams {
        while let Some(event) = stream.blocking_next() {
            if let Event::Failed(error) = event {
                return Err(error);
            }
        }
    }
    Ok(begun.elapsed().as_secs_f64())
}
