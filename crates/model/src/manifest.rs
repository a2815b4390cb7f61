//! A manifest: one immutable version of a model. It names files by role, digest and BLAKE3 root; its own digest is the
//! SHA-256 of its bytes.
//!
//! The bytes of a manifest are what [`Manifest::to_bytes`] writes: fields in declaration order, maps sorted, no spaces.
//! Equal files from the same source give equal bytes.

use std::collections::HashSet;

use helios_storage::BlobInfo;
use helios_types::{Digest, TensorType};
use serde::{Deserialize, Serialize};

use crate::profile::MemoryProfile;
use crate::{Lineage, ModelError};

/// The version of the manifest's form that this release writes and reads.
pub const MANIFEST_SCHEMA: u32 = 1;

/// Folder of derived files in a manifest; no source has it.
pub const DERIVED: &str = "helios";

/// Files of one manifest; the largest models of today have fewer than 200 shards.
const FILES_MAX: usize = 4096;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Tensors: a GGUF file or a safetensors shard.
    Weights,
    /// The shard index of a safetensors checkpoint.
    WeightsIndex,
    /// `tokenizer.json` in the Hugging Face form.
    Tokenizer,
    /// [`helios_text::SpecialTokens`] as JSON.
    SpecialTokens,
    /// Source of the chat template; absent where the model has none.
    ChatTemplate,
    /// [`helios_storage::ModelConfig`] as JSON, of a model that the native engine runs.
    Config,
    /// The bytes that each token stands for ([`crate::token_table`]).
    TokenBytes,
    /// A file of the model's source that Helios only keeps.
    Original,
    /// An OCI manifest as it was pushed.
    OciManifest,
    /// A blob that a pushed OCI manifest names beside its files.
    OciBlob,
}

impl Role {
    /// The role's name in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::WeightsIndex => "weights_index",
            Self::Tokenizer => "tokenizer",
            Self::SpecialTokens => "special_tokens",
            Self::ChatTemplate => "chat_template",
            Self::Config => "config",
            Self::TokenBytes => "token_bytes",
            Self::Original => "original",
            Self::OciManifest => "oci_manifest",
            Self::OciBlob => "oci_blob",
        }
    }
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// What it is for.
    pub role: Role,
    /// Its name in the model; never a path out of it.
    pub path: String,
    /// Its identity, BLAKE3 root and size.
    #[serde(flatten)]
    pub blob: BlobInfo,
}

/// The format of the tensor files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    /// One GGUF file.
    Gguf,
    /// One or more safetensors files.
    Safetensors,
}

impl WeightFormat {
    /// The format's name in manifests and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::Safetensors => "safetensors",
        }
    }

    /// The format of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Gguf, Self::Safetensors].into_iter().find(|format| format.as_str() == name)
    }
}

impl std::fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What people ask about a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The family, such as `llama`.
    pub architecture: String,
    /// Number of weights; 0 if a quantiser packed several into an element, so that the headers do not say.
    pub parameters: u64,
    /// Longest sequence the model was made for; 0 if its files do not say.
    pub context_tokens: u64,
    /// SPDX-like name of the licence, where the source says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Where the files came from, as text that `pull` takes.
    pub source: String,
    /// The element type that most weight bytes have.
    pub quantisation: TensorType,
    /// The format of the tensor files.
    pub format: WeightFormat,
}

/// One immutable version of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_SCHEMA`].
    pub schema: u32,
    /// The files: sources first, then those derived at import.
    pub files: Vec<FileEntry>,
    /// What people ask about the model; absent where the files are none, or one whose headers Helios does not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ModelFacts>,
    /// What the model needs of memory; there if and only if `metadata` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<MemoryProfile>,
    /// Where the model comes from, as its files say; absent where they say nothing, and in manifests of releases that
    /// did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

impl Manifest {
    /// The bytes whose SHA-256 is the manifest's digest.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: a manifest has only string keys")
    }

    /// Reads a manifest; `subject` names it in errors.
    ///
    /// # Errors
    /// [`ModelError::InvalidManifest`] for malformed JSON, another schema, too many files or unsafe paths.
    pub fn parse(subject: &str, bytes: &[u8]) -> Result<Self, ModelError> {
        let invalid = |problem: String| ModelError::invalid_manifest(subject, problem);
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if manifest.schema != MANIFEST_SCHEMA {
            return Err(invalid(format!("schema {}, this release reads {MANIFEST_SCHEMA}", manifest.schema)));
        }
        if manifest.files.len() > FILES_MAX {
            return Err(invalid(format!("{} files, more than {FILES_MAX}", manifest.files.len())));
        }
        if manifest.metadata.is_some() != manifest.profile.is_some() {
            return Err(invalid("only one of `metadata` and `profile` is there".to_owned()));
        }
        let sizes = manifest.files.iter().map(|file| file.blob.size);
        if sizes.into_iter().try_fold(0_u64, u64::checked_add).is_none() {
            return Err(invalid("its files have more bytes than can be counted".to_owned()));
        }
        let mut paths = HashSet::new();
        for file in &manifest.files {
            if !is_safe_path(&file.path) {
                return Err(invalid(format!("unsafe file name {:?}", file.path)));
            }
            if !paths.insert(&file.path) {
                return Err(invalid(format!("two files `{}`", file.path)));
            }
        }
        Ok(manifest)
    }

    /// What people ask about the model.
    ///
    /// # Errors
    /// [`ModelError::NotServable`] if the files are no model.
    pub fn facts(&self) -> Result<&ModelFacts, ModelError> {
        self.metadata.as_ref().ok_or(ModelError::NotServable)
    }

    /// What the model needs of memory.
    ///
    /// # Errors
    /// [`ModelError::NotServable`] if the files are no model.
    pub fn memory_profile(&self) -> Result<&MemoryProfile, ModelError> {
        self.profile.as_ref().ok_or(ModelError::NotServable)
    }

    /// The licence, where the source says.
    pub fn licence(&self) -> Option<&str> {
        let of_model = self.metadata.as_ref().and_then(|facts| facts.licence.as_deref());
        of_model.or_else(|| self.lineage.as_ref()?.licence.as_deref())
    }

    /// The files of one role, in order.
    pub fn files(&self, role: Role) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().filter(move |file| file.role == role)
    }

    /// The first file of a role.
    pub fn file(&self, role: Role) -> Option<&FileEntry> {
        self.files(role).next()
    }

    /// Whether a blob is the first file of its weights.
    pub fn begins_with(&self, blob: &Digest) -> bool {
        self.file(Role::Weights).is_some_and(|file| file.blob.digest == *blob)
    }

    /// The first file of a role that every model has which can be served.
    ///
    /// # Errors
    /// [`ModelError::NoTokenizer`] for what is made from a tokenizer that Helios does not read;
    /// [`ModelError::MissingRole`].
    pub fn required(&self, role: Role) -> Result<&FileEntry, ModelError> {
        self.file(role).ok_or_else(|| match role {
            Role::Tokenizer | Role::SpecialTokens | Role::TokenBytes if self.metadata.is_some() => {
                ModelError::NoTokenizer
            }
            _ => ModelError::MissingRole { role: role.as_str() },
        })
    }

    /// Whether the native engine runs it.
    pub fn is_native(&self) -> bool {
        self.file(Role::Config).is_some()
    }

    /// The digests of all its blobs.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        self.files.iter().map(|file| &file.blob.digest)
    }

    /// Bytes of all its files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.blob.size).sum()
    }
}

/// Whether a name is in the folder of what Helios makes itself.
pub fn is_derived(path: &str) -> bool {
    path.split('/').next() == Some(DERIVED)
}

/// Whether a name of a file in a model is relative, plain and stays below its folder.
pub fn is_safe_path(path: &str) -> bool {
    let part_is_safe = |part: &str| !matches!(part, "" | "." | "..");
    path.len() <= 500
        && path.split('/').all(part_is_safe)
        && !path.contains(|character: char| character.is_control() || character == '\\')
}

#[cfg(test)]
mod tests {
    use super::is_safe_path;

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for good in ["a.gguf", "sub/model-00001-of-00002.safetensors", ".gitattributes", "ä b"] {
            assert!(is_safe_path(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/.", "c:\\x", "a\0b", "a\nb"] {
            assert!(!is_safe_path(bad), "{bad:?}");
        }
    }
}
