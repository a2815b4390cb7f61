//! Prefix reuse: what is found, what is kept apart, and what followers are told.

use std::collections::BTreeSet;

use helios_engine::{CacheChange, Engine, Request, Sampling};
use helios_types::{BLOCK_TOKENS, BlockRoot, Digest, TensorType};

use crate::harness::{answer, options, roomy};
use crate::tiny_model::{Random, TinyModel};

fn request(prompt: Vec<u32>, salt: &[u8]) -> Request {
    Request { prompt, max_tokens: 4, sampling: Sampling::greedy(), salt: salt.to_vec(), ..Request::default() }
}

#[test]
fn whole_blocks_of_a_known_prefix_are_not_computed_again() {
    let engine = roomy(&TinyModel::gguf(TensorType::Q4_1, true).open());
    let prompt = Random(5).tokens(48);
    assert_eq!(answer(&engine, request(prompt.clone(), b"")).cached_tokens, 0);
    // One token of the third block must be computed for its logits, so the block is not reused.
    assert_eq!(answer(&engine, request(prompt.clone(), b"")).cached_tokens, 32);
    let longer = [prompt.clone(), Random(6).tokens(9)].concat();
    assert_eq!(answer(&engine, request(longer, b"")).cached_tokens, 48);
    assert_eq!(answer(&engine, request(prompt.clone(), b"another tenant")).cached_tokens, 0);
    let with_logprobs = Request { prompt_logprobs: Some(1), ..request(prompt, b"") };
    assert_eq!(answer(&engine, with_logprobs).cached_tokens, 0, "its logits are all needed");
    engine.shutdown();
    assert_eq!(engine.status().borrow().prefix_hit_tokens_total, 80);
}

#[test]
fn a_follower_of_the_feed_knows_what_the_engine_holds() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let model = TinyModel::gguf(TensorType::Q4_1, true).open();
    let engine = Engine::start(model, options(1, 10)).unwrap();
    answer(&engine, request(Random(0).tokens(40), b""));
    let mut feed = runtime.block_on(engine.cache_feed()).unwrap();
    let mut known: BTreeSet<_> = feed.stored.iter().copied().collect();
    assert_eq!(known.len(), 2);
    for seed in 1..9 {
        answer(&engine, request(Random(seed).tokens(60), b""));
    }
    let now = runtime.block_on(engine.cache_feed()).unwrap();
    let mut expected_sequence = feed.sequence;
    while feed.sequence < now.sequence {
        let delta = feed.deltas.try_recv().unwrap();
        expected_sequence += 1;
        feed.sequence = delta.sequence;
        assert_eq!(delta.sequence, expected_sequence, "deltas have no gap");
        for change in delta.changes {
            match change {
                CacheChange::Stored(hash) => assert!(known.insert(hash), "stored twice"),
                CacheChange::Removed(hash) => assert!(known.remove(&hash), "removed unknown"),
            }
        }
    }
    assert_eq!(known, now.stored.into_iter().collect());
}

#[test]
fn stored_hashes_are_block_hash_version_1() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let engine = roomy(&TinyModel::hugging_face(TensorType::BF16, true).open());
    assert_eq!(engine.numerics_id().as_str(), "bf16+f32/v1/f16/f32-lanes16");
    let prompt = Random(3).tokens(37);
    answer(&engine, Request { max_tokens: 1, ..request(prompt.clone(), b"salt") });
    let root = BlockRoot {
        manifest: Digest::from_bytes([9; 32]),
        adapter: None,
        numerics: engine.numerics_id(),
        block_tokens: BLOCK_TOKENS as u32,
        tenant_salt: b"salt",
    };
    let stored: BTreeSet<_> = runtime.block_on(engine.cache_feed()).unwrap().stored.into_iter().collect();
    assert_eq!(stored, root.hash().chain(&prompt, BLOCK_TOKENS).into_iter().collect());
}
