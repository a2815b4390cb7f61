//! What can go wrong between text and tokens.

use helios_types::{Classify, ErrorCode, TokenId};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The GGUF file names a way of splitting text that Helios does not know; guessing would give wrong tokens.
    #[error("unknown pre-tokenizer {name:?} (tokenizer.ggml.pre); known: {known}")]
    UnknownPreTokenizer {
        /// The name in the file; empty when the file has none.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },
    /// The GGUF file's vocabulary is of another kind than byte-level BPE.
    #[error("unsupported vocabulary {model:?} (tokenizer.ggml.model); supported: gpt2")]
    UnsupportedVocabulary {
        /// The name in the file.
        model: String,
    },
    /// A vocabulary contradicts itself.
    #[error("invalid vocabulary: {field}: {reason}")]
    InvalidVocabulary {
        /// The metadata field at fault.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A `tokenizer.json` cannot be used.
    #[error("invalid tokenizer.json: {reason}")]
    InvalidTokenizer {
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration file beside `tokenizer.json` cannot be read.
    #[error("invalid {file}: {reason}")]
    InvalidConfig {
        /// The file's name.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A special token that a configuration names is not in the vocabulary.
    #[error("special token {token:?} of {field} is not in the vocabulary")]
    UnknownSpecialToken {
        /// The field that names it.
        field: &'static str,
        /// Its text or id.
        token: String,
    },
    /// Text could not be encoded.
    #[error("cannot encode text of {bytes} bytes: {reason}")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// What the tokenizer said.
        reason: String,
    },
    /// A tokenizer does something that the metadata of a GGUF file cannot say.
    #[error("`{field}` {problem}, which GGUF cannot say\nhint: keep this model in the safetensors form")]
    NoGgufForm {
        /// The field of `tokenizer.json` or of the files beside it.
        field: &'static str,
        /// What it asks for.
        problem: String,
    },
    /// A token id is not in the vocabulary.
    #[error("token id {token} is not in the vocabulary of {vocabulary} tokens")]
    UnknownToken {
        /// The id.
        token: TokenId,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A chat template does not parse.
    #[error("invalid chat template: {reason}")]
    InvalidTemplate {
        /// What is wrong with it.
        reason: String,
    },
    /// The chat template itself refused the messages (`raise_exception`).
    #[error("the model's chat template refused the messages: {message}")]
    MessagesRefused {
        /// The template's message.
        message: String,
    },
    /// The chat template failed on the messages.
    #[error("the model's chat template failed: {reason}")]
    TemplateFailed {
        /// What failed.
        reason: String,
    },
    /// The chat template took too many steps or made too much text.
    #[error("the model's chat template went over its limit of {limit}")]
    TemplateLimit {
        /// The limit, with its unit.
        limit: String,
    },
}

impl Classify for TextError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownPreTokenizer { .. }
            | Self::UnsupportedVocabulary { .. }
            | Self::InvalidVocabulary { .. }
            | Self::InvalidTokenizer { .. }
            | Self::InvalidConfig { .. }
            | Self::UnknownSpecialToken { .. }
            | Self::InvalidTemplate { .. } => ErrorCode::Corrupt,
            Self::NoGgufForm { .. }
            | Self::UnknownToken { .. }
            | Self::MessagesRefused { .. }
            | Self::TemplateFailed { .. }
            | Self::TemplateLimit { .. } => ErrorCode::InvalidRequest,
            Self::Encode { .. } => ErrorCode::Internal,
        }
    }
}
