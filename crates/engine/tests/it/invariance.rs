//! Invariant 7: what a request gets depends on nothing but the request.

use std::sync::{Arc, OnceLock};

use helios_engine::{Engine, EngineOptions, Model, Request, Sampling};
use helios_types::TensorType;
use proptest::prelude::*;

use crate::harness::{Answer, answer, collect, options, roomy};
use crate::tiny_model::{Random, TinyModel};

/// Blocks that the largest request of these tests needs.
const BLOCKS_MIN: usize = 9;

fn models() -> &'static [Arc<Model>; 3] {
    static MODELS: OnceLock<[Arc<Model>; 3]> = OnceLock::new();
    MODELS.get_or_init(|| {
        let q4_1 = TinyModel::gguf(TensorType::Q4_1, false).open();
        let q8_0 = TinyModel::gguf(TensorType::Q8_0, true).open();
        [q4_1, q8_0, TinyModel::hugging_face(TensorType::BF16, false).open()]
    })
}

/// What a client sees, with floating point numbers as bits.
fn bits(answer: &Answer) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let prompt = answer.prompt_logprobs.iter().flatten().flatten();
    let numbers = |logprobs: &helios_engine::TokenLogprobs| {
        let top = logprobs.top.iter().flat_map(|(id, logprob)| [*id, logprob.to_bits()]);
        [logprobs.id, logprobs.logprob.to_bits()].into_iter().chain(top).collect::<Vec<u32>>()
    };
    let answered = answer.logprobs.iter().flat_map(numbers).collect();
    (answer.tokens.clone(), answered, prompt.flat_map(numbers).collect())
}

/// Prompts begin with one of two shared prefixes, so that the cache has something to find.
fn request() -> impl Strategy<Value = Request> {
    let prompt = (0_u64..2, 0_usize..60, any::<u64>(), 1_usize..50);
    (prompt, 1_usize..24, prop_oneof![2 => Just(None), 1 => any::<u64>().prop_map(Some)], 0_u8..4).prop_map(
        |((prefix, shared, seed, own), max_tokens, sampled, kind)| {
            let prompt = [Random(prefix).tokens(shared), Random(seed).tokens(own)].concat();
            let greedy = Sampling { repetition_penalty: 1.2, ..Sampling::greedy() };
            let sampling = match sampled {
                Some(seed) => Sampling { seed, top_p: 0.9, presence_penalty: 0.5, ..Sampling::default() },
                None if kind == 0 => greedy,
                None => Sampling::greedy(),
            };
            let prompt_logprobs = (kind == 1).then_some(2);
            Request { prompt, sampling, max_tokens, logprobs: Some(3), prompt_logprobs, ..Request::default() }
        },
    )
}

/// How an engine is set up and its requests arrive.
#[derive(Clone, Debug)]
struct Circumstances {
    threads: usize,
    step_tokens: usize,
    sequences_max: usize,
    spare_blocks: usize,
    /// Where each stream breaks and continues, in 1/8 of its tokens.
    breaks: usize,
}

fn circumstances() -> impl Strategy<Value = Circumstances> {
    (1_usize..4, 1_usize..70, 1_usize..7, 0_usize..20, 0_usize..9).prop_map(
        |(threads, step_tokens, sequences_max, spare_blocks, breaks)| Circumstances {
            threads,
            step_tokens,
            sequences_max,
            spare_blocks,
            breaks,
        },
    )
}

fn engine_options(circumstances: &Circumstances) -> EngineOptions {
    EngineOptions {
        sequences_max: circumstances.sequences_max,
        step_tokens_min: circumstances.step_tokens,
        step_tokens_max: circumstances.step_tokens,
        ..options(circumstances.threads, BLOCKS_MIN + circumstances.spare_blocks)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn greedy_output_is_independent_of_batch_chunking_prefix_reuse_and_threads(
        model in 0_usize..3,
        requests in prop::collection::vec(request(), 1..8),
        circumstances in circumstances(),
    ) {
        let model = &models()[model];
        let alone: Vec<Answer> =
            requests.iter().map(|request| answer(&roomy(model), request.clone())).collect();

        let engine = Engine::start(Arc::clone(model), engine_options(&circumstances)).unwrap();
        // The first round meets an empty cache, the second one that is full of the first.
        for _ in 0..2 {
            let streams: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
            for (stream, alone) in streams.into_iter().zip(&alone) {
                prop_assert_eq!(bits(&collect(stream)), bits(alone));
            }
        }

        let streams: Vec<_> = requests.iter().zip(&alone).map(|(request, alone)| {
            let cut = alone.tokens.len() * circumstances.breaks / 8;
            let emitted = alone.tokens[..cut].to_vec();
            (cut, engine.submit(Request { emitted, prompt_logprobs: None, ..request.clone() }).unwrap())
        }).collect();
        for ((cut, stream), alone) in streams.into_iter().zip(&alone) {
            let rest = collect(stream);
            prop_assert_eq!(&rest.tokens, &alone.tokens[cut..]);
            prop_assert_eq!(&rest.logprobs, &alone.logprobs[cut..]);
            prop_assert!(rest.first_index.is_none_or(|first| first == cut));
        }
        engine.shutdown();
        let status = engine.status().borrow().clone();
        prop_assert_eq!((status.running, status.queued, status.kv_blocks_used), (0, 0, 0));
    }
}

#[test]
fn a_preempted_sequence_goes_on_as_if_nothing_had_happened() {
    let model = &models()[0];
    let requests: Vec<Request> = (0..6)
        .map(|seed| Request {
            prompt: Random(seed).tokens(40),
            max_tokens: 80,
            sampling: Sampling { seed, ..Sampling::default() },
            ..Request::default()
        })
        .collect();
    let engine = Engine::start(Arc::clone(model), options(2, 12)).unwrap();
    let streams: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
    for (request, stream) in requests.iter().zip(streams) {
        assert_eq!(collect(stream).tokens, answer(&roomy(model), request.clone()).tokens);
    }
    engine.shutdown();
    assert!(engine.status().borrow().preemptions_total > 0, "12 blocks are too few for 6 x 8");
}
