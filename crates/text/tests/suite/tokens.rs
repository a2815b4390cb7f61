//! The tokenizer's own promises: special text, byte strings, incremental decoding.

use helios_text::{
    Detokenizer, GgufVocab, SpecialText, SpecialTokens, TextError, Tokenizer, gguf_tokenizer_json,
};
use proptest::prelude::*;

use crate::model::{tokenizer, vocab};

const IM_START: u32 = 1;
const IM_END: u32 = 2;

#[test]
fn special_text_is_parsed_or_left_as_text() {
    let tokenizer = tokenizer();
    let text = "<|im_start|>user\nhi<|im_end|>";
    let parsed = tokenizer.encode(text, SpecialText::Parse).expect("text");
    assert_eq!((parsed[0], parsed[parsed.len() - 1]), (IM_START, IM_END));
    let plain = tokenizer.encode(text, SpecialText::AsPlainText).expect("text");
    assert!(plain.iter().all(|token| !tokenizer.is_special(*token)));
    assert_eq!(tokenizer.decode(&plain, false).expect("known ids"), text);
    assert_eq!(tokenizer.decode(&parsed, false).expect("known ids"), "user\nhi");
    assert_eq!(tokenizer.decode(&parsed, true).expect("known ids"), text);
}

#[test]
fn special_tokens_are_known() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.vocab_len(), 49_152);
    assert!(tokenizer.is_special(IM_END) && tokenizer.is_end(IM_END));
    assert!(!tokenizer.is_end(IM_START) && !tokenizer.is_special(17) && !tokenizer.is_special(u32::MAX));
    assert_eq!(tokenizer.token_text(IM_END).expect("known id"), "<|im_end|>");
    let unknown = tokenizer.token_bytes(49_152).expect_err("beyond the vocabulary");
    assert!(matches!(unknown, TextError::UnknownToken { token: 49_152, vocabulary: 49_152 }));
}

#[test]
fn a_beginning_is_added_where_the_model_wants_one() {
    let vocab = GgufVocab { add_bos: true, ..vocab() };
    let json = gguf_tokenizer_json(&vocab).expect("vocabulary");
    let tokenizer = Tokenizer::from_json(&json, vocab.special_tokens()).expect("tokenizer");
    let tokens = |text| tokenizer.encode_prompt(text, SpecialText::Parse).expect("text");
    assert_eq!(tokens("hi")[0], IM_START);
    assert_eq!(tokens("<|im_start|>hi"), tokens("hi"));
    assert_eq!(tokens(""), [IM_START]);
}

#[test]
fn the_derived_document_is_always_the_same() {
    assert_eq!(
        gguf_tokenizer_json(&vocab()).expect("vocabulary"),
        gguf_tokenizer_json(&vocab()).expect("vocabulary")
    );
}

#[test]
fn an_unknown_pre_tokenizer_is_refused() {
    for pre in [Some("qwen2".to_owned()), None] {
        let error = gguf_tokenizer_json(&GgufVocab { pre: pre.clone(), ..vocab() }).expect_err("unknown");
        let expected = format!(
            "unknown pre-tokenizer {:?} (tokenizer.ggml.pre); known: smollm",
            pre.unwrap_or_default()
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_special_id_beyond_the_vocabulary_is_refused() {
    let json = gguf_tokenizer_json(&vocab()).expect("vocabulary");
    let special = SpecialTokens { eos: vec![49_152], ..SpecialTokens::default() };
    let error = Tokenizer::from_json(&json, special).expect_err("beyond the vocabulary");
    assert_eq!(error.to_string(), "special token \"49152\" of special tokens is not in the vocabulary");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn streamed_text_is_the_whole_text(tokens in prop::collection::vec(0u32..49_152, 0..40), show_special: bool) {
        let tokenizer = tokenizer();
        let mut detokenizer = Detokenizer::new(tokenizer.clone(), show_special);
        let mut text = String::new();
        for token in &tokens {
            text.push_str(&detokenizer.push(*token).expect("known id"));
        }
        text.push_str(&detokenizer.finish());
        prop_assert_eq!(text, tokenizer.decode(&tokens, show_special).expect("known ids"));
    }

    /// Tokens below 300 are single bytes: most sequences of them are not UTF-8.
    #[test]
    fn streamed_bytes_are_the_whole_text(tokens in prop::collection::vec(17u32..273, 0..40)) {
        let tokenizer = tokenizer();
        let mut detokenizer = Detokenizer::new(tokenizer.clone(), false);
        let mut text: String = tokens.iter().map(|token| detokenizer.push(*token).expect("known id")).collect();
        text.push_str(&detokenizer.finish());
        let bytes = tokenizer.decode_bytes(&tokens).expect("known ids");
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn plain_encoding_loses_nothing(text in "[ -~\\n\\u{a0}-\\u{ffff}\\u{1f300}-\\u{1ffff}]{0,40}") {
        let tokenizer = tokenizer();
        let tokens = tokenizer.encode(&text, SpecialText::AsPlainText).expect("text");
        prop_assert_eq!(tokenizer.decode(&tokens, true).expect("known ids"), text);
    }
}
