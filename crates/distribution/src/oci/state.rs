//! What the calls share: the registry, and the uploads that run.

use std::sync::Arc;

use helios_registry::Registry;
use helios_types::{Digest, DigestError};

use super::error::OciError;
use super::sessions::Sessions;
use crate::names;
use crate::versions::Versions;

/// The protocol over one registry.
pub(super) struct Oci {
    pub(super) registry: Arc<Registry>,
    pub(super) sessions: Sessions,
}

impl Oci {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, sessions: Sessions::default() }
    }

    /// The model's name behind a name of the protocol, and its versions. Names of the protocol are lower case, those of
    /// models need not be: where there is no such model, the only one that differs in case is meant.
    pub(super) async fn versions(&self, name: &str) -> Result<(String, Versions), OciError> {
        let name = names::model_name(name);
        if let Some(versions) = Versions::of(&self.registry, name).await? {
            return Ok((name.to_owned(), versions));
        }
        let models = self.registry.list().await?;
        let mut alike: Vec<&str> = models
            .iter()
            .map(|model| model.model.name())
            .filter(|known| known.eq_ignore_ascii_case(name))
            .collect();
        alike.dedup();
        let [known] = alike.as_slice() else { return Err(OciError::no_name(name)) };
        let versions = Versions::of(&self.registry, known).await?.ok_or_else(|| OciError::no_name(name))?;
        Ok(((*known).to_owned(), versions))
    }
}

/// A digest, as the protocol writes it.
pub(super) fn digest(text: &str) -> Result<Digest, OciError> {
    text.parse().map_err(|error: DigestError| OciError::bad_digest(error.to_string()))
}
