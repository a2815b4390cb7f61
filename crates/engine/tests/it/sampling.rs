//! Sampling through the engine: reproducible, continuable, and reported from raw logits.

use helios_engine::{Request, Sampling};
use helios_types::TensorType;

use crate::harness::{answer, roomy};
use crate::tiny_model::{Random, TinyModel};

fn request(seed: u64) -> Request {
    let sampling =
        Sampling { seed, temperature: 1.3, top_k: 40, frequency_penalty: 0.3, ..Sampling::default() };
    Request { prompt: Random(11).tokens(23), max_tokens: 40, sampling, ..Request::default() }
}

#[test]
fn a_seed_gives_the_same_tokens_in_another_engine_and_other_seeds_others() {
    let model = TinyModel::gguf(TensorType::F16, false).open();
    let first = answer(&roomy(&model), request(5));
    assert_eq!(first.tokens, answer(&roomy(&model), request(5)).tokens);
    assert_ne!(first.tokens, answer(&roomy(&model), request(6)).tokens);
}

#[test]
fn a_stream_continues_at_every_token_with_the_tokens_it_would_have_had() {
    let engine = roomy(&TinyModel::gguf(TensorType::F16, false).open());
    let whole = answer(&engine, request(5)).tokens;
    for cut in 0..=whole.len() {
        let rest = answer(&engine, Request { emitted: whole[..cut].to_vec(), ..request(5) });
        assert_eq!(rest.tokens, whole[cut..], "continued after {cut}");
        assert_eq!(rest.finish.unwrap().completion_tokens, whole.len());
    }
}

#[test]
fn reported_logprobs_ignore_bias_penalties_and_temperature() {
    let engine = roomy(&TinyModel::gguf(TensorType::F32, false).open());
    let prompt = Random(2).tokens(10);
    let plain = Request {
        prompt,
        max_tokens: 1,
        sampling: Sampling::greedy(),
        logprobs: Some(3),
        ..Request::default()
    };
    let unlikely = 17;
    let sampling = Sampling { logit_bias: vec![(unlikely, 100.0)], temperature: 0.5, ..Sampling::default() };
    let biased = answer(&engine, Request { sampling, ..plain.clone() });
    let plain = answer(&engine, plain);
    assert_eq!(biased.tokens, [unlikely]);
    assert_eq!(biased.logprobs[0].top, plain.logprobs[0].top);
    assert_eq!(plain.logprobs[0].top[0], (plain.tokens[0], plain.logprobs[0].logprob));
    assert!(biased.logprobs[0].logprob < plain.logprobs[0].logprob);
}
