//! What a database says of tags and of the models that they point to.

use helios_model::{Manifest, ModelFacts};
use helios_types::{Digest, ModelRef};
use serde::{Deserialize, Serialize};

/// One step of a tag's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagEntry {
    /// The manifest that the tag points to from then on.
    pub digest: Digest,
    /// When it was last pointed there, in milliseconds since 1970: pulling or pushing the same version again counts.
    pub at: u64,
    /// Where it came from: a source, or the model it was tagged from.
    pub source: String,
}

/// A model as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// Name and tag.
    pub model: ModelRef,
    /// The version that the tag points to.
    pub digest: Digest,
    /// Bytes of all files.
    pub size: u64,
    /// When the tag was last moved, or pointed to the same version again, in milliseconds since 1970.
    pub changed_at: u64,
    /// What people ask about the model; absent where the files are none.
    #[serde(default)]
    pub metadata: Option<ModelFacts>,
}

impl ModelSummary {
    /// A model whose tag points to `current`, which is `manifest`.
    pub(crate) fn new(model: ModelRef, current: &TagEntry, manifest: &Manifest) -> Self {
        Self {
            model,
            digest: current.digest,
            size: manifest.size(),
            changed_at: current.at,
            metadata: manifest.metadata.clone(),
        }
    }
}
