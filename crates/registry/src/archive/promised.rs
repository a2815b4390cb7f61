//! What an archive promises in its first entries, so that of every byte behind them it is known what it has to be.

use std::collections::{BTreeMap, HashMap};

use helios_model::{Manifest, ModelError};
use helios_storage::BlobInfo;
use helios_types::Digest;

use super::format::{
    EXPORT_AGAIN, Entry, Indexed, MANIFEST_BYTES_MAX, MANIFESTS_BYTES_MAX, NOT_OURS, Name, invalid,
    read_index,
};
use crate::RegistryError;
use crate::registry::digest_of;

/// What a blob of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A manifest of Helios.
    Manifest,
    /// An OCI manifest, kept only if it is a file, too.
    Artifact,
    /// A file of a model.
    File,
}

/// The models of an archive.
#[derive(Debug)]
pub(super) struct Promised {
    pub(super) models: Vec<Indexed>,
    /// Those that came; the others are expected.
    manifests: BTreeMap<Digest, Option<Manifest>>,
    manifest_bytes: u64,
    /// The files of all manifests, each with its name in one of them.
    files: HashMap<Digest, (BlobInfo, String)>,
}

impl Promised {
    /// Reads `index.json`.
    pub(super) fn by_index(bytes: &[u8]) -> Result<Self, RegistryError> {
        let models = read_index(bytes)?;
        let manifests = models.iter().map(|model| (model.model.digest, None)).collect();
        Ok(Self { models, manifests, manifest_bytes: 0, files: HashMap::new() })
    }

    /// What the blob of an entry is, which must have the size that was promised.
    pub(super) fn kind(&self, entry: &Entry, digest: &Digest) -> Result<Kind, RegistryError> {
        if let Some(None) = self.manifests.get(digest) {
            let bytes = self.manifest_bytes.saturating_add(entry.size);
            if entry.size > MANIFEST_BYTES_MAX || bytes > MANIFESTS_BYTES_MAX {
                let problem = format!("{} bytes are more than a manifest has", entry.size);
                return Err(invalid(entry.name, problem, NOT_OURS));
            }
            return Ok(Kind::Manifest);
        }
        if let Some(missing) = self.missing_manifest() {
            let problem = format!("it comes before `{}`, the manifest of a model", missing.hex());
            return Err(invalid(entry.name, problem, NOT_OURS));
        }
        let artifact = self.models.iter().find(|model| model.artifact == *digest);
        let (kind, size) = match (artifact, self.files.get(digest)) {
            (Some(model), _) => (Kind::Artifact, model.artifact_bytes),
            (None, Some((info, _))) => (Kind::File, info.size),
            (None, None) => return Err(invalid(entry.name, "no manifest of the archive names it", NOT_OURS)),
        };
        if entry.size != size {
            let problem = format!("its header says {} bytes, the manifest {size}", entry.size);
            return Err(invalid(entry.name, problem, EXPORT_AGAIN));
        }
        Ok(kind)
    }

    fn missing_manifest(&self) -> Option<&Digest> {
        self.manifests.iter().find(|(_, manifest)| manifest.is_none()).map(|(digest, _)| digest)
    }

    /// Takes in a manifest of Helios.
    pub(super) fn add_manifest(&mut self, digest: Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let name = Name::Blob(digest);
        check_digest(&digest, bytes)?;
        let manifest = Manifest::parse("it", bytes).map_err(|error| match error {
            ModelError::InvalidManifest { problem, .. } => {
                invalid(name, format!("this manifest is no good: {problem}"), NOT_OURS)
            }
            error => error.into(),
        })?;
        if manifest.to_bytes() != bytes {
            let problem = "this manifest says things that this release does not know";
            return Err(invalid(name, problem, "import it with the release that wrote it, or a newer one"));
        }
        for file in &manifest.files {
            let blob = file.blob;
            let (known, path) = self.files.entry(blob.digest).or_insert_with(|| (blob, file.path.clone()));
            if *known != blob {
                let problem =
                    format!("of `{}` it says something else than another manifest of `{path}`", file.path);
                return Err(invalid(name, problem, NOT_OURS));
            }
        }
        self.manifest_bytes += bytes.len() as u64;
        self.manifests.insert(digest, Some(manifest));
        Ok(())
    }

    /// The description of a file, with its name in a model.
    pub(super) fn file(&self, digest: &Digest) -> Option<&(BlobInfo, String)> {
        self.files.get(digest)
    }

    /// Every file that is promised, with its name in a model.
    pub(super) fn files(&self) -> impl Iterator<Item = &(BlobInfo, String)> {
        self.files.values()
    }

    /// The bytes of manifests that are files, too.
    pub(super) fn manifests_as_files(&self) -> Vec<Vec<u8>> {
        let are_files = self.manifests.iter().filter(|(digest, _)| self.files.contains_key(digest));
        are_files.filter_map(|(_, manifest)| Some(manifest.as_ref()?.to_bytes())).collect()
    }

    /// The manifests by digest, once the archive has ended.
    pub(super) fn into_manifests(self) -> Result<(Vec<Indexed>, BTreeMap<Digest, Manifest>), RegistryError> {
        if let Some(missing) = self.missing_manifest() {
            return Err(invalid(Name::Blob(*missing), "this manifest of a model is missing", EXPORT_AGAIN));
        }
        let came = self.manifests.into_iter().filter_map(|(digest, manifest)| Some((digest, manifest?)));
        Ok((self.models, came.collect()))
    }
}

/// Refuses bytes that are not what their name says.
pub(super) fn check_digest(digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
    let actual = digest_of(bytes);
    if actual == *digest {
        return Ok(());
    }
    Err(wrong_bytes(digest, &actual))
}

/// The error for a blob with other bytes than its name says.
pub(super) fn wrong_bytes(digest: &Digest, actual: &Digest) -> RegistryError {
    invalid(Name::Blob(*digest), format!("its bytes have digest {actual}"), EXPORT_AGAIN)
}
