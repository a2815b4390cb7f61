//! What stands in an archive: the names of entries, their headers, the index.

use std::collections::BTreeMap;
use std::fmt;

use helios_types::{Digest, ModelRef};
use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

use super::ArchivedModel;
use crate::artifact::{Artifact, Descriptor};
use crate::{RegistryError, names};

/// Bytes of a block: headers have one, contents are filled up to whole ones.
pub(super) const BLOCK_BYTES: u64 = 512;
/// What ends an archive: two blocks of zeros.
pub(super) const END_BYTES: u64 = 2 * BLOCK_BYTES;

/// Models of one archive.
pub(super) const MODELS_MAX: usize = 1_000;
/// Bytes of `index.json`: 1,000 models take about 500 KB.
pub(super) const INDEX_BYTES_MAX: u64 = 4 << 20;
/// Bytes of one manifest of Helios; as in the store.
pub(super) const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// Bytes of all of them, which an import keeps in memory.
pub(super) const MANIFESTS_BYTES_MAX: u64 = 64 << 20;
/// Bytes of an OCI manifest, as its specification has it.
pub(super) const ARTIFACT_BYTES_MAX: u64 = 4 << 20;
/// Bytes of `oci-layout` that somebody else may have written.
pub(super) const LAYOUT_BYTES_MAX: u64 = 4 << 10;

/// The contents of `oci-layout`.
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const LAYOUT_VERSION: &str = "1.0.0";

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// The annotation that names a model.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that names the manifest of Helios.
const MANIFEST_DIGEST: &str = "vnd.helios.manifest.digest";

/// The general advice for an archive that is not right.
pub(super) const EXPORT_AGAIN: &str = "copy the file once more, or make it anew with `helios export`";
/// The advice for an archive that something else wrote, or wrote anew.
pub(super) const NOT_OURS: &str = "an import takes what `helios export` wrote, as it is";

/// The error for something wrong with an entry.
pub(super) fn invalid(
    entry: impl fmt::Display,
    problem: impl Into<String>,
    hint: &'static str,
) -> RegistryError {
    RegistryError::InvalidArchive { entry: entry.to_string(), problem: problem.into(), hint }
}

/// Which entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Layout,
    Index,
    Blob(Digest),
    /// A folder of the layout, which other tools write.
    Folder,
}

impl Name {
    fn parse(path: &str) -> Option<Self> {
        match path {
            "oci-layout" => Some(Self::Layout),
            "index.json" => Some(Self::Index),
            "blobs/" | "blobs/sha256/" => Some(Self::Folder),
            path => {
                let hex = path.strip_prefix("blobs/sha256/")?;
                let digest: Digest = format!("sha256:{hex}").parse().ok()?;
                (digest.hex() == hex).then_some(Self::Blob(digest))
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout => f.write_str("`oci-layout`"),
            Self::Index => f.write_str("`index.json`"),
            Self::Blob(digest) => write!(f, "`blobs/sha256/{}`", digest.hex()),
            Self::Folder => f.write_str("`blobs/`"),
        }
    }
}

/// A header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) size: u64,
}

/// The header of an entry.
pub(super) fn header(name: &Name, size: u64) -> Header {
    let path = name.to_string();
    let mut header = Header::new_gnu();
    header.set_path(path.trim_matches('`')).expect("invariant: names of entries are short and relative");
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    for set_zero in [Header::set_mtime, Header::set_uid, Header::set_gid] {
        set_zero(&mut header, 0);
    }
    header.set_cksum();
    header
}

/// Bytes that fill contents up to whole blocks.
pub(super) fn padding(size: u64) -> u64 {
    (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES
}

/// Reads the header that begins at byte `at`.
pub(super) fn read_header(block: &[u8], at: u64) -> Result<Entry, RegistryError> {
    let place = format!("the header at byte {at}");
    if at == 0
        && let Some(error) = compressed(block)
    {
        return Err(error);
    }
    let header = Header::from_byte_slice(block);
    let sum: u32 = block.iter().enumerate().map(|(at, byte)| u32::from(summed(at, *byte))).sum();
    if header.cksum().ok() != Some(sum) {
        let problem = "its checksum is wrong, so this is no tar file or a damaged one";
        return Err(invalid(place, problem, EXPORT_AGAIN));
    }
    let path = header.path_bytes();
    let shown = format!("{:?}", String::from_utf8_lossy(&path[..path.len().min(200)]));
    let name = std::str::from_utf8(&path).ok().and_then(Name::parse);
    let Some(name) = name else { return Err(unknown(&path, shown)) };
    match (header.entry_type(), name) {
        (EntryType::Regular, Name::Layout | Name::Index | Name::Blob(_)) => {}
        (EntryType::Directory, Name::Folder) => return Ok(Entry { name, size: 0 }),
        (kind, _) => return Err(invalid(shown, format!("it is no plain file but {kind:?}"), NOT_OURS)),
    }
    // A file ends before the largest offset there is, its blocks included.
    let size = header.entry_size().ok().filter(|size| *size <= i64::MAX as u64 - END_BYTES);
    let size =
        size.ok_or_else(|| invalid(shown, "its header has a size that no file can have", EXPORT_AGAIN))?;
    Ok(Entry { name, size })
}

/// A byte as the checksum counts it: its own field counts as spaces.
fn summed(at: usize, byte: u8) -> u8 {
    if (148..156).contains(&at) { b' ' } else { byte }
}

/// The error for an entry that no archive of Helios has.
fn unknown(path: &[u8], shown: String) -> RegistryError {
    let leaves = path.starts_with(b"/") || path.split(|byte| *byte == b'/').any(|part| part == b"..");
    match leaves {
        true => invalid(shown, "its name leads out of the archive", NOT_OURS),
        false => invalid(shown, "an archive has no such entry", NOT_OURS),
    }
}

/// The error for a file that was compressed, if its first bytes say so.
pub(super) fn compressed(beginning: &[u8]) -> Option<RegistryError> {
    const KINDS: [(&[u8], &str, &str); 4] = [
        (b"\x1f\x8b", "gzip", "unpack it first: `gunzip --stdout FILE | helios import -`"),
        (b"\x28\xb5\x2f\xfd", "zstd", "unpack it first: `zstd --decompress --stdout FILE | helios import -`"),
        (b"\xfd7zXZ", "xz", "unpack it first: `xz --decompress --stdout FILE | helios import -`"),
        (b"BZh", "bzip2", "unpack it first: `bunzip2 --stdout FILE | helios import -`"),
    ];
    let (_, kind, hint) = KINDS.iter().find(|(magic, ..)| beginning.starts_with(magic))?;
    Some(invalid("the file", format!("it is compressed with {kind}"), hint))
}

/// Checks `oci-layout`.
pub(super) fn check_layout(bytes: &[u8]) -> Result<(), RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    match serde_json::from_slice::<Layout>(bytes) {
        Ok(layout) if layout.image_layout_version == LAYOUT_VERSION => Ok(()),
        Ok(layout) => {
            let problem = format!("version {:?}, this release reads 1.0.0", layout.image_layout_version);
            Err(invalid(Name::Layout, problem, NOT_OURS))
        }
        Err(error) => Err(invalid(Name::Layout, error.to_string(), NOT_OURS)),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Vec<Descriptor>,
}

/// A model as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Indexed {
    pub(super) model: ArchivedModel,
    /// The OCI manifest, and its bytes.
    pub(super) artifact: Digest,
    pub(super) artifact_bytes: u64,
}

/// The bytes of `index.json`.
pub(super) fn write_index(models: &[(ArchivedModel, Artifact)]) -> Vec<u8> {
    let manifests = models.iter().map(|(model, artifact)| Descriptor {
        media_type: artifact.media_type.clone(),
        digest: artifact.digest.to_string(),
        size: artifact.bytes.len() as u64,
        annotations: BTreeMap::from([
            (REF_NAME.to_owned(), model.model.to_string()),
            (MANIFEST_DIGEST.to_owned(), model.digest.to_string()),
        ]),
    });
    let index =
        Index { schema_version: 2, media_type: INDEX_TYPE.to_owned(), manifests: manifests.collect() };
    serde_json::to_vec(&index).expect("invariant: an index has only string keys")
}

/// Reads `index.json`.
pub(super) fn read_index(bytes: &[u8]) -> Result<Vec<Indexed>, RegistryError> {
    let refuse = |problem: String| invalid(Name::Index, problem, NOT_OURS);
    let index: Index = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
    if index.schema_version != 2 {
        return Err(refuse(format!("schema version {}, this release reads 2", index.schema_version)));
    }
    if index.manifests.is_empty() || index.manifests.len() > MODELS_MAX {
        return Err(refuse(format!("{} models, an archive has 1 to {MODELS_MAX}", index.manifests.len())));
    }
    let mut models: Vec<Indexed> = Vec::new();
    for descriptor in &index.manifests {
        let model = indexed(descriptor)?;
        if models.iter().any(|known| known.model.model == model.model.model) {
            return Err(refuse(format!("`{}` is there twice", model.model.model)));
        }
        models.push(model);
    }
    Ok(models)
}

fn indexed(descriptor: &Descriptor) -> Result<Indexed, RegistryError> {
    let refuse = |problem: String| invalid(Name::Index, problem, NOT_OURS);
    let annotation = |name: &str| {
        let value = descriptor.annotations.get(name);
        value
            .ok_or_else(|| refuse(format!("the manifest {:?} has no annotation `{name}`", descriptor.digest)))
    };
    let digest = |text: &str| text.parse::<Digest>().map_err(|error| refuse(error.to_string()));
    let model: ModelRef = annotation(REF_NAME)?.parse().map_err(|error| refuse(format!("{error}")))?;
    names::check_new(&model)?;
    if descriptor.size > ARTIFACT_BYTES_MAX {
        return Err(refuse(format!("the OCI manifest of `{model}` has {} bytes", descriptor.size)));
    }
    Ok(Indexed {
        model: ArchivedModel { digest: digest(annotation(MANIFEST_DIGEST)?)?, model },
        artifact: digest(&descriptor.digest)?,
        artifact_bytes: descriptor.size,
    })
}
