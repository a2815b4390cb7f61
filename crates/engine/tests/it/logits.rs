//! The engine's log-probabilities of tiny models against the plain f64 decoder.

use helios_engine::{Request, TOP_LOGPROBS_MAX};
use helios_storage::NATIVE_TENSOR_TYPES;
use helios_types::TensorType;

use crate::harness::{answer, roomy};
use crate::reference_decoder;
use crate::tiny_model::{Random, TinyModel};

/// f32 sums of some hundred terms of size 1 are off by 1e-6 or so; but a key or value that falls on the other side of
/// an f16 rounding than the reference's exact one is off by 2^-11 of itself, and these weights are three times as large
/// as a trained model's. Seen: 1.05e-3 at worst.
const TOLERANCE: f64 = 2e-3;

fn compare(model: &TinyModel) {
    let engine = roomy(&model.open());
    for (seed, length) in [(1, 1), (2, 2), (3, 16), (4, 75)] {
        let prompt = Random(seed).tokens(length);
        let top = TOP_LOGPROBS_MAX;
        let request = Request { prompt: prompt.clone(), prompt_logprobs: Some(top), ..Request::default() };
        let logprobs = answer(&engine, request).prompt_logprobs.expect("they were asked for");
        assert_eq!(logprobs.len(), length);
        assert_eq!(logprobs[0], None);
        let reference = reference_decoder::logits(model, &prompt);
        for (position, entry) in logprobs.iter().enumerate().skip(1) {
            let entry = entry.as_ref().expect("all but the first have one");
            let exact = reference_decoder::log_softmax(&reference[position - 1]);
            assert_eq!((entry.id, entry.top.len()), (prompt[position], top as usize));
            for (id, logprob) in entry.top.iter().copied().chain([(entry.id, entry.logprob)]) {
                let difference = (f64::from(logprob) - exact[id as usize]).abs();
                assert!(
                    difference < TOLERANCE,
                    "position {position}, token {id}: {logprob} off by {difference}"
                );
            }
            let likeliest = exact.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert!(
                (exact[entry.top[0].0 as usize] - likeliest).abs() < TOLERANCE,
                "position {position}: top 1"
            );
        }
    }
}

#[test]
fn every_gguf_format_matches_the_plain_decoder() {
    for tensor_type in NATIVE_TENSOR_TYPES {
        compare(&TinyModel::gguf(tensor_type, tensor_type == TensorType::Q8_0));
    }
}

#[test]
fn every_safetensors_format_matches_the_plain_decoder() {
    for tensor_type in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        compare(&TinyModel::hugging_face(tensor_type, tensor_type == TensorType::F16));
    }
}
