//! What a proxy asks of a model store, answered by the registry: here or elsewhere.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use helios_api::ApiError;
use helios_proxy::{Models, ResolvedModel, TextFiles};
use helios_registry::{Manifest, ModelStore, RegistryError, Resolved, Role};
use helios_types::{Digest, ErrorCode, ModelRef};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Names and text files of a store's models.
pub(crate) struct StoreTexts {
    store: ModelStore,
    /// Manifests by digest, as far as a name led to them; as many as there are served versions.
    manifests: Mutex<HashMap<Digest, Arc<Manifest>>>,
}

impl StoreTexts {
    pub(crate) fn new(store: ModelStore) -> Self {
        Self { store, manifests: Mutex::default() }
    }

    async fn look_up(&self, name: &str) -> Result<ResolvedModel, ApiError> {
        let model: ModelRef = name.parse().map_err(|_| {
            let shown: String = name.chars().take(100).collect();
            ApiError::new(ErrorCode::ModelNotFound, format!("`{shown}` is not a model name"))
        })?;
        let Resolved { reference, digest, manifest } = self.store.resolve(&model).await.map_err(api_error)?;
        self.remember(digest, manifest);
        Ok(ResolvedModel { reference, manifest_digest: digest })
    }

    fn remember(&self, digest: Digest, manifest: Arc<Manifest>) {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, manifest);
    }

    async fn manifest(&self, digest: Digest) -> Result<Arc<Manifest>, RegistryError> {
        let known = self.manifests.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        match known {
            Some(manifest) => Ok(manifest),
            None => self.store.manifest(&digest).await,
        }
    }

    async fn read(&self, digest: Digest) -> Result<TextFiles, RegistryError> {
        let manifest = self.manifest(digest).await?;
        let bytes = async |role| self.store.derived_bytes(&manifest, role).await;
        let special = bytes(Role::SpecialTokens).await?;
        let special_tokens = serde_json::from_slice(&special).map_err(|error| {
            RegistryError::InvalidManifest { subject: "special tokens".to_owned(), problem: error.to_string() }
        })?;
        let chat_template = match manifest.file(Role::ChatTemplate) {
            Some(_) => Some(String::from_utf8_lossy(&bytes(Role::ChatTemplate).await?).into_owned()),
            None => None,
        };
        let tokenizer_json = Bytes::copy_from_slice(&bytes(Role::Tokenizer).await?);
        Ok(TextFiles { tokenizer_json, special_tokens, chat_template })
    }
}

fn api_error(error: RegistryError) -> ApiError {
    ApiError::of(&error)
}

impl Models for StoreTexts {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedModel, ApiError>> {
        self.look_up(name).boxed()
    }

    fn text_files(&self, manifest_digest: Digest) -> BoxFuture<'_, Result<TextFiles, ApiError>> {
        async move { self.read(manifest_digest).await.map_err(api_error) }.boxed()
    }
}
