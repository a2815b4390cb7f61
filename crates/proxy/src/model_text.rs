//! The text machinery of model versions, loaded once each and shared.

use std::sync::{Arc, Mutex, PoisonError};

use helios_api::ApiError;
use helios_text::{ChatTemplate, TextError, Tokenizer};
use helios_types::{Digest, ErrorCode, TokenId};
use tokio::sync::OnceCell;

use crate::{Models, TextFiles};

/// Versions whose machinery is kept; a tokenizer of 49k tokens takes some 15 MB.
const VERSIONS_MAX: usize = 16;

/// What turns text into a model's tokens and back.
pub(crate) struct ModelText {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: Option<ChatTemplate>,
}

impl ModelText {
    fn build(files: &TextFiles) -> Result<Self, TextError> {
        let special = files.special_tokens.clone();
        let tokenizer = Tokenizer::from_json(&files.tokenizer_json, special.clone())?;
        let text =
            |token: Option<TokenId>| token.map_or(Ok(String::new()), |token| tokenizer.token_text(token));
        let (bos, eos) = (text(special.bos)?, text(special.eos.first().copied())?);
        let template = files.chat_template.as_deref();
        let template = template.map(|source| ChatTemplate::parse(source, &bos, &eos)).transpose()?;
        Ok(Self { tokenizer, template })
    }
}

type Slot = Arc<OnceCell<Arc<ModelText>>>;

/// A bounded cache by manifest digest, the version used last at the end.
#[derive(Default)]
pub(crate) struct ModelTexts {
    slots: Mutex<Vec<(Digest, Slot)>>,
}

impl ModelTexts {
    /// The machinery of one version; the first caller loads it and the others wait.
    pub(crate) async fn get(
        &self,
        models: &dyn Models,
        manifest_digest: Digest,
    ) -> Result<Arc<ModelText>, ApiError> {
        let slot = self.slot(manifest_digest);
        slot.get_or_try_init(|| load(models, manifest_digest)).await.cloned()
    }

    /// Whether the machinery of one version is loaded.
    pub(crate) fn has(&self, manifest_digest: Digest) -> bool {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().any(|(digest, slot)| *digest == manifest_digest && slot.initialized())
    }

    fn slot(&self, manifest_digest: Digest) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let found = slots.iter().position(|(digest, _)| *digest == manifest_digest);
        let entry = found.map_or_else(|| (manifest_digest, Slot::default()), |index| slots.remove(index));
        if slots.len() >= VERSIONS_MAX {
            slots.remove(0);
        }
        let slot = entry.1.clone();
        slots.push(entry);
        slot
    }
}

/// Fetches and parses. Parsing takes tens of milliseconds, so it goes to a thread that may block.
async fn load(models: &dyn Models, manifest_digest: Digest) -> Result<Arc<ModelText>, ApiError> {
    let files = models.text_files(manifest_digest).await?;
    let built = tokio::task::spawn_blocking(move || ModelText::build(&files)).await;
    let built = built.map_err(|error| {
        ApiError::new(
            ErrorCode::Internal,
            format!("loading the text files of {manifest_digest} failed: {error}"),
        )
    })?;
    built.map(Arc::new).map_err(|error| ApiError::of(&error))
}
