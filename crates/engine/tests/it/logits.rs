//! The engine's log-probabilities of tiny models against the plain f64 decoder.

use std::sync::Arc;

use helios_engine::{Model, Request, TOP_LOGPROBS_MAX};
use helios_storage::{Blob, NATIVE_TENSOR_TYPES};
use helios_types::TensorType;

use crate::harness::{answer, roomy};
use crate::reference_decoder;
use crate::tiny_model::{Random, TinyModel, safetensors_bytes};

/// f32 sums of some hundred terms of size 1 are off by 1e-6 or so; but a key or value that falls on the other side of
/// an f16 rounding than the reference's exact one is off by 2^-11 of itself, and these weights are three times as large
/// as a trained model's. Seen: 1.05e-3 at worst.
const TOLERANCE: f64 = 2e-3;

fn compare(model: &TinyModel) {
    compare_opened(model, &model.open());
}

fn compare_opened(model: &TinyModel, opened: &Arc<Model>) {
    let engine = roomy(opened);
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

/// The format promises no alignment.
#[test]
fn tensors_that_begin_at_an_odd_byte_match_the_plain_decoder() {
    for tensor_type in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        let model = TinyModel::hugging_face(tensor_type, false);
        let mut file = safetensors_bytes(&model.tensors);
        let header = u64::from_le_bytes(file[..8].try_into().expect("a length"));
        // Spaces behind the header move everything.
        let longer = header + 1 + header % 2;
        file[..8].copy_from_slice(&longer.to_le_bytes());
        let end = 8 + header as usize;
        file.splice(end..end, vec![b' '; (longer - header) as usize]);
        let file = ("model.safetensors".to_owned(), Blob::from_vec(file));
        let config = model.config_json().to_string();
        let opened = Model::from_safetensors(config.as_bytes(), vec![file], None).expect("it opens");
        compare_opened(&model, &Arc::new(opened));
    }
}

#[test]
fn every_safetensors_format_matches_the_plain_decoder() {
    for tensor_type in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        compare(&TinyModel::hugging_face(tensor_type, tensor_type == TensorType::F16));
    }
}
