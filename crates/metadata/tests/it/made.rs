//! Manifests made up for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use helios_metadata::{Change, TagEntry};
use helios_model::{FileEntry, MANIFEST_SCHEMA, Manifest, MemoryProfile, ModelFacts, Role, WeightFormat};
use helios_storage::BlobInfo;
use helios_types::{Digest, ModelRef, TensorType};

/// A name.
pub(crate) fn name(text: &str) -> ModelRef {
    text.parse().expect("a name")
}

/// The digest whose first bytes are `number`.
pub(crate) fn digest(number: u32) -> Digest {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Digest::from_bytes(bytes)
}

/// What a manifest says of that blob.
pub(crate) fn blob(number: u32) -> BlobInfo {
    BlobInfo { digest: digest(number), blake3: [number as u8; 32], size: u64::from(number) + 1 }
}

/// A manifest with these blobs as its files, and its digest.
pub(crate) fn manifest(source: &str, blobs: &[u32]) -> (Digest, Arc<Manifest>) {
    let file = |number: &u32| FileEntry {
        role: Role::Original,
        path: format!("file-{number}"),
        blob: blob(*number),
    };
    let manifest = Manifest {
        schema: MANIFEST_SCHEMA,
        files: blobs.iter().map(file).collect(),
        metadata: Some(ModelFacts {
            architecture: "llama".to_owned(),
            parameters: 1,
            context_tokens: 64,
            licence: None,
            source: source.to_owned(),
            quantisation: TensorType::F32,
            format: WeightFormat::Gguf,
        }),
        profile: Some(MemoryProfile {
            weight_bytes: 1,
            weight_bytes_by_type: BTreeMap::new(),
            largest_layer_bytes: 1,
            kv_bytes_per_token: 1,
            details: None,
        }),
        lineage: None,
    };
    (sha256(&manifest.to_bytes()), Arc::new(manifest))
}

fn sha256(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

/// The store whose manifests they are.
pub(crate) const STORE: &str = "one store";

/// The change that brings the manifest in.
pub(crate) fn put(made: &(Digest, Arc<Manifest>)) -> Change {
    put_by(STORE, made)
}

/// The change that brings the manifest into a store.
pub(crate) fn put_by(store: &str, made: &(Digest, Arc<Manifest>)) -> Change {
    Change::PutManifest { digest: made.0, manifest: Arc::clone(&made.1), store: store.to_owned() }
}

/// The change by which the store gives a manifest up.
pub(crate) fn remove(digest: Digest) -> Change {
    remove_by(STORE, digest)
}

/// The change by which a store gives a manifest up.
pub(crate) fn remove_by(store: &str, digest: Digest) -> Change {
    Change::RemoveManifest { digest, store: store.to_owned() }
}

/// The change that gives a tag the history of these manifests.
pub(crate) fn set_tag(tag: &str, digests: &[Digest]) -> Change {
    Change::SetTag { reference: name(tag), history: history(digests), from: None }
}

/// A history of these manifests.
pub(crate) fn history(digests: &[Digest]) -> Vec<TagEntry> {
    let entry = |(at, digest): (usize, &Digest)| TagEntry {
        digest: *digest,
        at: 1_000 + at as u64,
        source: format!("file:/from/{at}"),
    };
    digests.iter().enumerate().map(entry).collect()
}

/// A generator of small numbers (Knuth's 64-bit linear congruential one).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % bound
    }
}
