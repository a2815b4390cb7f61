//! A version of a model as an OCI manifest: as it was pushed, or made from the manifest of Helios, which then is the
//! artifact's configuration. What is made is always the same, so that its digest can be relied on.

use helios_model::{FileEntry, Manifest, Role, is_derived};

use bytes::Bytes;
use helios_types::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::registry::digest_of;
use crate::{Registry, RegistryError};

/// An OCI image manifest, which artifacts are, too.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// What the artifact is.
const MODEL_TYPE: &str = "application/vnd.helios.model.v1";
/// The configuration: a manifest of Helios.
const CONFIG_TYPE: &str = "application/vnd.helios.manifest.v1+json";
/// A layer by the ending of its file's name.
const LAYER_TYPES: [(&str, &str); 2] = [
    (".gguf", "application/vnd.helios.weights.v1.gguf"),
    (".safetensors", "application/vnd.helios.weights.v1.safetensors"),
];
/// Any other layer.
const FILE_TYPE: &str = "application/vnd.helios.file.v1";
/// The annotation that names a layer's file.
pub const TITLE: &str = "org.opencontainers.image.title";

/// What a manifest says of a blob.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The type of its bytes.
    pub media_type: String,
    /// Its digest, as it was written.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// More about it; [`TITLE`] names a file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    schema_version: u32,
    media_type: &'static str,
    artifact_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// The bytes of an OCI manifest.
pub struct Artifact {
    /// The manifest as it is sent.
    pub bytes: Bytes,
    /// Its type.
    pub media_type: String,
    /// The digest of `bytes`.
    pub digest: Digest,
}

impl Artifact {
    /// The artifact that a version is.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] if it was pushed and cannot be read.
    pub async fn of(
        registry: &Arc<Registry>,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<Self, RegistryError> {
        match manifest.file(Role::OciManifest) {
            Some(pushed) => Self::pushed(registry, pushed).await,
            None => Ok(Self::made(digest, manifest)),
        }
    }

    /// What was pushed.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] if it cannot be read.
    pub async fn pushed(registry: &Arc<Registry>, file: &FileEntry) -> Result<Self, RegistryError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            media_type: Option<String>,
        }
        let bytes = Bytes::from_owner(registry.blob(file).await?);
        let typed = serde_json::from_slice::<Typed>(&bytes).ok().and_then(|typed| typed.media_type);
        let media_type = typed.unwrap_or_else(|| MANIFEST_TYPE.to_owned());
        Ok(Self { bytes, media_type, digest: file.blob.digest })
    }

    /// One made from the manifest.
    pub fn made(digest: &Digest, manifest: &Manifest) -> Self {
        let config = Descriptor {
            media_type: CONFIG_TYPE.to_owned(),
            digest: digest.to_string(),
            size: manifest.to_bytes().len() as u64,
            annotations: BTreeMap::new(),
        };
        let files = manifest.files.iter().filter(|file| !is_derived(&file.path));
        let made = Made {
            schema_version: 2,
            media_type: MANIFEST_TYPE,
            artifact_type: MODEL_TYPE,
            config,
            layers: files.map(layer).collect(),
        };
        let bytes = serde_json::to_vec(&made).expect("invariant: a manifest has only string keys");
        let digest = digest_of(&bytes);
        Self { bytes: bytes.into(), media_type: MANIFEST_TYPE.to_owned(), digest }
    }
}

fn layer(file: &FileEntry) -> Descriptor {
    let known = LAYER_TYPES.iter().find(|(ending, _)| file.path.ends_with(ending));
    Descriptor {
        media_type: known.map_or(FILE_TYPE, |(_, media_type)| media_type).to_owned(),
        digest: file.blob.digest.to_string(),
        size: file.blob.size,
        annotations: BTreeMap::from([(TITLE.to_owned(), file.path.clone())]),
    }
}
