//! Text in, tokens out, and back: tokenizers, chat templates, incremental detokenising and stop strings.
//!
//! Everything here works on plain data (bytes of a `tokenizer.json`, vectors of a GGUF file's metadata); files, models
//! and the network belong to others. Chat templates, vocabularies and prompts are hostile input: reading them may fail,
//! but never panics and never takes time or memory without a bound.

#![forbid(unsafe_code)]

mod chat;
mod config;
mod deep_stack;
mod detokenizer;
mod error;
mod gguf;
mod gguf_vocab;
mod python_json;
mod special;
mod stop;
mod template;
mod token_bytes;
mod tokenizer;

pub use chat::encode_chat;
pub use config::{HuggingFaceFiles, TokenizerConfig};
pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use gguf::{GgufVocab, KNOWN_PRE_TOKENIZERS, gguf_tokenizer_json};
pub use gguf_vocab::gguf_vocab;
pub use special::SpecialTokens;
pub use stop::{StopMatcher, Stopped};
pub use template::{ChatMessage, ChatTemplate, RENDERED_BYTES_MAX, TEMPLATE_BYTES_MAX};
pub use tokenizer::{SpecialText, Tokenizer};
