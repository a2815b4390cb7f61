//! The default model's tokenizer and chat template, read once for all tests.

use std::sync::LazyLock;

use helios_text::{ChatTemplate, GgufVocab, Tokenizer, gguf_tokenizer_json};

use crate::reading_gguf::Metadata;

static METADATA: LazyLock<Metadata> = LazyLock::new(|| Metadata::read(&read_named_by("HELIOS_TEST_MODEL")));

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let vocab = vocab();
    let json = gguf_tokenizer_json(&vocab).expect("the model's vocabulary");
    Tokenizer::from_json(&json, vocab.special_tokens()).expect("the model's tokenizer")
});

/// The contents of the file that an environment variable names.
#[allow(clippy::disallowed_methods)]
pub(crate) fn read_named_by(variable: &str) -> Vec<u8> {
    let Ok(path) = std::env::var(variable) else {
        panic!(
            "{variable} is not set: run these tests through `cargo xtask test`, which makes the file and sets it"
        )
    };
    std::fs::read(&path).unwrap_or_else(|error| panic!("{variable}={path}: {error}"))
}

pub(crate) fn vocab() -> GgufVocab {
    METADATA.vocab()
}

pub(crate) fn tokenizer() -> Tokenizer {
    TOKENIZER.clone()
}

pub(crate) fn template() -> ChatTemplate {
    let source = METADATA.text("tokenizer.chat_template");
    ChatTemplate::parse(&source, "<|im_start|>", "<|im_end|>").expect("the model's template")
}
