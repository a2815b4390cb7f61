//! The default model against float32 log-probabilities that llama.cpp computed (`python/reference`).

use std::sync::Arc;

use helios_engine::{Engine, EngineOptions, Model, Request};
use helios_kernels::Team;
use helios_storage::{Blob, Checkpoint};
use helios_types::Digest;

use crate::bf16_form::{self, Bf16Tensor};
use crate::harness::{answer, counting_clock};
use crate::tiny_model::{Stored, safetensors_bytes};

const Q4_1_FIXTURE: &[u8] = include_bytes!("../fixtures/smollm2-q4_1.logits");
const BF16_FIXTURE: &[u8] = include_bytes!("../fixtures/smollm2-bf16.logits");

/// What a fixture says of one text.
struct Text {
    name: String,
    tokens: Vec<u32>,
    /// For each token but the first: its log-probability and the likeliest token.
    positions: Vec<(f32, u32)>,
}

/// Takes values from the front of a fixture; the layout is at the top of `python/reference/logits.py`.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.u16());
        String::from_utf8(self.bytes(length).to_vec()).unwrap()
    }

    fn position(&mut self) -> (f32, u32) {
        const TOP: usize = 64;
        let _log_sum_exp = self.u32();
        let logprob = f32::from_bits(self.u32());
        let likeliest = self.u16();
        self.bytes((TOP - 1) * 2 + TOP * 4);
        (logprob, u32::from(likeliest))
    }
}

fn read_fixture(bytes: &[u8]) -> Vec<Text> {
    let mut reader = Reader(bytes);
    assert_eq!(reader.bytes(8), b"HLOGITS1");
    reader.bytes(32);
    let (_weights, _tool) = (reader.text(), reader.text());
    let positions = reader.u32() as usize;
    assert!(positions >= 2_000, "{positions} positions");
    let text = |reader: &mut Reader<'_>| {
        let name = reader.text();
        let count = reader.u32();
        let tokens = (0..count).map(|_| u32::from(reader.u16())).collect();
        Text { name, tokens, positions: (1..count).map(|_| reader.position()).collect() }
    };
    let texts: Vec<Text> = (0..reader.u32()).map(|_| text(&mut reader)).collect();
    assert!(reader.0.is_empty(), "bytes after the last text");
    texts
}

fn model_file() -> Blob {
    let path = std::env::var_os("HELIOS_TEST_MODEL").expect(
        "HELIOS_TEST_MODEL is not set\nhint: run `cargo xtask test`, which fetches the model and sets it",
    );
    Blob::from_vec(
        std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display())),
    )
}

/// How far a model is from a fixture.
struct Distance {
    mean: f64,
    max: f64,
    /// Share of positions with the same likeliest token.
    agreement: f64,
}

fn measure(name: &str, model: Model, fixture: &[u8]) -> Distance {
    let options =
        EngineOptions::new(Arc::new(Team::new(2)), counting_clock(), Digest::from_bytes([1; 32]), 256 << 20);
    let engine = Engine::start(Arc::new(model), options).unwrap();
    let (mut differences, mut same) = (Vec::new(), 0);
    for text in read_fixture(fixture) {
        let request = Request { prompt: text.tokens, prompt_logprobs: Some(1), ..Request::default() };
        let logprobs = answer(&engine, request).prompt_logprobs.expect("they were asked for");
        assert_eq!(logprobs.len(), text.positions.len() + 1, "{}", text.name);
        for (ours, (logprob, likeliest)) in logprobs.iter().flatten().zip(text.positions) {
            differences.push(f64::from((ours.logprob - logprob).abs()));
            same += usize::from(ours.top[0].0 == likeliest);
        }
    }
    differences.sort_by(f64::total_cmp);
    let count = differences.len();
    let quantile = |share: f64| differences[((count - 1) as f64 * share) as usize];
    let mean = differences.iter().sum::<f64>() / count as f64;
    let max = differences[count - 1];
    println!(
        "{name}: {count} positions, |difference of log p| mean {mean:.6}, median {:.6}, p99 {:.6}, max {max:.6}, \
         same top 1: {same}",
        quantile(0.5),
        quantile(0.99),
    );
    Distance { mean, max, agreement: same as f64 / count as f64 }
}

/// Weights are dequantised exactly and sums are in f32, so what is left is the rounding of keys and values to f16
/// (2^-11 of each, which attention averages; the fixture's are f32) and another order of summation. Measured: mean
/// 0.0007, maximum 0.020, the same top 1 at 3,103 (Q4_1) and 3,106 (bf16) of 3,106 positions. The engine's bits do not
/// depend on the machine, so the bounds leave little room. llama.cpp on the same files: mean 0.060 and 0.010.
fn assert_close(distance: &Distance) {
    assert!(distance.mean < 0.001, "mean {}", distance.mean);
    assert!(distance.max < 0.03, "max {}", distance.max);
    assert!(distance.agreement > 0.9985, "same top 1: {}", distance.agreement);
}

#[test]
fn the_default_model_gives_the_log_probabilities_of_float32() {
    let model = Model::from_gguf("smollm2.gguf", model_file()).unwrap();
    assert_eq!(model.numerics_id().as_str(), "f32+q4_1+q8_0/v1/f16/f32-lanes16");
    assert_close(&measure("q4_1", model, Q4_1_FIXTURE));
}

#[test]
fn its_bf16_safetensors_form_gives_the_log_probabilities_of_float32() {
    let blob = model_file();
    let config = Model::from_gguf("smollm2.gguf", blob.clone()).unwrap().config().clone();
    let (checkpoint, _) = Checkpoint::from_gguf("smollm2.gguf", blob).unwrap();
    let stored = |tensor: Bf16Tensor| {
        let Bf16Tensor { name, shape, tensor_type, bytes } = tensor;
        (name, Stored { shape, tensor_type, bytes, values: Vec::new() })
    };
    let file = safetensors_bytes(&bf16_form::tensors(&config, &checkpoint).map(stored).collect());
    let files = vec![("model.safetensors".to_owned(), Blob::from_vec(file))];
    let model =
        Model::from_safetensors(bf16_form::config_json(&config).to_string().as_bytes(), files, None).unwrap();
    assert_close(&measure("bf16", model, BF16_FIXTURE));
}
