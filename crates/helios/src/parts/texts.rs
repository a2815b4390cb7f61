//! What a proxy asks of a model store, answered by the registry: here or elsewhere.
//!
//! While a registry elsewhere is out of reach, names mean what they last meant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use helios_api::ApiError;
use helios_model::{Manifest, MemoryProfile, Role};
use helios_proxy::{Models, ResolvedModel, TextFiles};
use helios_registry::{ModelStore, RegistryError, Resolved};
use helios_runtime::{Clock, Instant, Tasks};
use helios_types::{Classify, Digest, ErrorCode, ModelRef};

use super::uses::Uses;

/// How long a name's meaning is taken for granted: a tag that moves is noticed this late.
const FRESH: Duration = Duration::from_secs(1);

/// Names and text files of a store's models.
pub(crate) struct StoreTexts {
    store: ModelStore,
    /// What names last meant. Bounded by the store's own tags: names that mean nothing are not kept.
    meanings: Mutex<HashMap<ModelRef, Meaning>>,
    uses: Arc<Uses>,
}

/// What a name meant, and when that was learned.
#[derive(Clone)]
struct Meaning {
    resolved: Resolved,
    learned_at: Instant,
}

impl StoreTexts {
    /// What is asked for is reported to the store's registry until `tasks` stop.
    pub(crate) fn new(store: ModelStore, tasks: &Tasks) -> Self {
        let uses: Arc<Uses> = Arc::default();
        uses.keep_reported(store.clone(), tasks);
        Self { store, meanings: Mutex::default(), uses }
    }

    async fn look_up(&self, name: &str) -> Result<ResolvedModel, ApiError> {
        let model: ModelRef = name.parse().map_err(|_| {
            let shown: String = name.chars().take(100).collect();
            ApiError::new(ErrorCode::ModelNotFound, format!("`{shown}` is not a model name"))
        })?;
        let Resolved { reference, digest, .. } = self.meaning(model).await.map_err(api_error)?;
        Ok(ResolvedModel { reference, manifest_digest: digest })
    }

    /// What `model` means now, or what it meant a moment ago or before the registry was lost.
    async fn meaning(&self, model: ModelRef) -> Result<Resolved, RegistryError> {
        let known = self.meanings().get(&model).cloned();
        if let Some(known) = known.as_ref().filter(|known| Clock.now() - known.learned_at < FRESH) {
            return Ok(known.resolved.clone());
        }
        match (self.store.resolve(&model).await, known) {
            (Ok(resolved), _) => {
                let meaning = Meaning { resolved: resolved.clone(), learned_at: Clock.now() };
                self.meanings().insert(model, meaning);
                Ok(resolved)
            }
            (Err(error), Some(known)) if error.code() == ErrorCode::Unavailable => Ok(known.resolved),
            (Err(error), _) => {
                self.meanings().remove(&model);
                Err(error)
            }
        }
    }

    fn meanings(&self) -> MutexGuard<'_, HashMap<ModelRef, Meaning>> {
        self.meanings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn manifest(&self, digest: Digest) -> Result<Arc<Manifest>, RegistryError> {
        let known = self.meanings().values().find(|known| known.resolved.digest == digest).cloned();
        match known {
            Some(known) => Ok(known.resolved.manifest),
            None => self.store.manifest(&digest).await,
        }
    }

    async fn read(&self, digest: Digest) -> Result<TextFiles, RegistryError> {
        let manifest = self.manifest(digest).await?;
        let bytes = async |role| self.store.derived_bytes(&manifest, role).await;
        let special = bytes(Role::SpecialTokens).await?;
        let special_tokens =
            serde_json::from_slice(&special).map_err(|error| RegistryError::InvalidManifest {
                subject: "special tokens".to_owned(),
                problem: error.to_string(),
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

    fn asked_for(&self, model: &ModelRef) {
        self.uses.note(model);
    }

    fn memory_profile(&self, manifest_digest: Digest) -> BoxFuture<'_, Result<MemoryProfile, ApiError>> {
        async move { self.store.profile(&manifest_digest).await.map_err(api_error) }.boxed()
    }
}
