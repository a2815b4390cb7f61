//! What the proxy asks of a model store: what a name means, and the small files that turn text into tokens.

use bytes::Bytes;
use futures::future::BoxFuture;
use helios_api::ApiError;
use helios_model::MemoryProfile;
use helios_text::SpecialTokens;
use helios_types::{Digest, ModelRef};

/// What a model's name means today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedModel {
    /// Name and tag, written out.
    pub reference: ModelRef,
    /// The version that the tag points to.
    pub manifest_digest: Digest,
}

/// The files of one model version that a proxy needs. Never weights.
#[derive(Clone, Debug)]
pub struct TextFiles {
    /// A Hugging Face `tokenizer.json`.
    pub tokenizer_json: Bytes,
    /// The ids that mean something.
    pub special_tokens: SpecialTokens,
    /// Jinja source, for models that chat.
    pub chat_template: Option<String>,
}

/// A model store, in this process or on the network.
pub trait Models: Send + Sync {
    /// What `name` (with or without a tag) means. `ModelNotFound` if the store does not know it.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedModel, ApiError>>;

    /// The text files of one version, verified against their digests.
    fn text_files(&self, manifest_digest: Digest) -> BoxFuture<'_, Result<TextFiles, ApiError>>;

    /// Takes note that `model` was asked for, whether or not anybody serves it: what a store keeps near follows from it.
    /// Called once for each request; never blocks, may forget.
    fn asked_for(&self, model: &ModelRef);

    /// What one version needs of memory.
    fn memory_profile(&self, manifest_digest: Digest) -> BoxFuture<'_, Result<MemoryProfile, ApiError>>;
}
