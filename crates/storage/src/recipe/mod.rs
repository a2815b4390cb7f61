//! Recipes: a file that shares tensors with others, kept as ranges of them and one blob of its own.
//!
//! `recipes/HEX.json`, HEX being the SHA-256 of the file it stands for, lists parts in order. Parts are ranges of whole
//! blobs: of those that the file shares tensors with, and of the file's own blob, which holds its header and the tensors
//! that nothing else has, each at the beginning of a page. A recipe never refers to another recipe. It is durable before
//! the whole file's name goes, and believed only after its parts, put together, had the BLAKE3 root of the manifest.

mod plan;
mod store;

use helios_types::Digest;
use serde::{Deserialize, Serialize};

pub use plan::{DedupLimits, RecipePlan, TensorIndex};

use crate::BlobInfo;

/// The version of the form that this release writes and reads.
const SCHEMA: u32 = 1;

/// Bytes of one recipe; a file of 65,536 tensors needs about 10 MB.
const RECIPE_BYTES_MAX: u64 = 64 << 20;

/// How to put a file together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    schema: u32,
    /// The file.
    pub whole: BlobInfo,
    /// The blob of what only this file has.
    pub own: BlobInfo,
    /// Ranges of blobs, in order.
    pub parts: Vec<RecipePart>,
}

/// A range of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipePart {
    /// The blob.
    pub blob: Digest,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl Recipe {
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: a recipe has only string keys")
    }

    /// Reads a recipe for the file `digest`, or says what is wrong with it.
    fn parse(digest: &Digest, bytes: &[u8]) -> Result<Self, String> {
        let recipe: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let total = recipe.parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.length));
        if recipe.schema != SCHEMA {
            Err(format!("schema {}, this release reads {SCHEMA}", recipe.schema))
        } else if recipe.whole.digest != *digest {
            Err(format!("it is for {}", recipe.whole.digest))
        } else if total != Some(recipe.whole.size) {
            Err(format!("its parts do not add up to {} bytes", recipe.whole.size))
        } else if recipe.parts.iter().any(|part| part.blob == *digest) {
            Err("it refers to itself".to_owned())
        } else {
            Ok(recipe)
        }
    }

    /// The blobs that it needs, each once, ordered.
    pub fn sources(&self) -> Vec<Digest> {
        let mut sources: Vec<Digest> = self.parts.iter().map(|part| part.blob).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }
}
