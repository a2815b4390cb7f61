//! The manifests and tags of a store, in memory: what the files say, indexed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use helios_runtime::Instant;
use helios_storage::BlobInfo;
use helios_types::{DEFAULT_TAG, Digest, ModelRef};

use crate::tags::TagEntry;
use crate::{Manifest, catalogue};

/// Everything the small files say.
#[derive(Debug, Default)]
pub(crate) struct Index {
    manifests: HashMap<Digest, Known>,
    tags: BTreeMap<ModelRef, Vec<TagEntry>>,
}

#[derive(Debug)]
struct Known {
    manifest: Arc<Manifest>,
    /// When it was last handed out to somebody elsewhere, who holds no reference that could be counted.
    handed_out: Option<Instant>,
}

impl Index {
    pub(crate) fn insert_manifest(&mut self, digest: Digest, manifest: Manifest) -> Arc<Manifest> {
        let known = Known { manifest: Arc::new(manifest), handed_out: None };
        Arc::clone(&self.manifests.entry(digest).or_insert(known).manifest)
    }

    pub(crate) fn manifest(&self, digest: &Digest) -> Option<Arc<Manifest>> {
        self.manifests.get(digest).map(|known| Arc::clone(&known.manifest))
    }

    /// Notes that somebody elsewhere knows this manifest now.
    pub(crate) fn hand_out(&mut self, digest: &Digest, now: Instant) {
        if let Some(known) = self.manifests.get_mut(digest) {
            known.handed_out = Some(now);
        }
    }

    /// What some manifest says of a blob. O(files).
    pub(crate) fn blob(&self, digest: &Digest) -> Option<BlobInfo> {
        let mut files = self.manifests.values().flat_map(|known| &known.manifest.files);
        files.find(|file| file.blob.digest == *digest).map(|file| file.blob)
    }

    /// The newest manifest that has this blob among its files.
    pub(crate) fn manifest_with(&self, blob: &Digest) -> Option<(Digest, Arc<Manifest>)> {
        let mut found =
            self.manifests.iter().filter(|(_, known)| known.manifest.blobs().any(|digest| digest == blob));
        found.next().map(|(digest, known)| (*digest, Arc::clone(&known.manifest)))
    }

    pub(crate) fn set_tag(&mut self, reference: ModelRef, history: Vec<TagEntry>) {
        self.tags.insert(reference, history);
    }

    pub(crate) fn remove_tag(&mut self, reference: &ModelRef) -> bool {
        self.tags.remove(reference).is_some()
    }

    pub(crate) fn history(&self, reference: &ModelRef) -> Option<&[TagEntry]> {
        self.tags.get(reference).map(Vec::as_slice)
    }

    /// Every tag with its history, ordered by name and tag.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (&ModelRef, &[TagEntry])> {
        self.tags.iter().map(|(reference, history)| (reference, history.as_slice()))
    }

    /// The tag that a name means here: itself, or the catalogue's default tag for a name that has no tag `latest`.
    pub(crate) fn canonical(&self, reference: &ModelRef) -> Option<ModelRef> {
        if self.tags.contains_key(reference) {
            return Some(reference.clone());
        }
        if reference.tag() != DEFAULT_TAG {
            return None;
        }
        let meant = catalogue::find(reference)?.reference();
        self.tags.contains_key(&meant).then_some(meant)
    }

    /// Takes out the manifests that nobody needs: in no tag's history, not in `held`, not referenced in this process,
    /// not handed out since `grace_since`.
    pub(crate) fn take_unneeded(
        &mut self,
        held: &HashSet<Digest>,
        grace_since: Option<Instant>,
    ) -> Vec<Digest> {
        let tagged: HashSet<Digest> = self.tags.values().flatten().map(|entry| entry.digest).collect();
        let is_needed = |digest: &Digest, known: &Known| {
            tagged.contains(digest)
                || held.contains(digest)
                || Arc::strong_count(&known.manifest) > 1
                || known.handed_out.is_some_and(|at| grace_since.is_none_or(|since| at > since))
        };
        let unneeded: Vec<Digest> = self
            .manifests
            .iter()
            .filter(|(digest, known)| !is_needed(digest, known))
            .map(|(digest, _)| *digest)
            .collect();
        for digest in &unneeded {
            self.manifests.remove(digest);
        }
        unneeded
    }

    /// Every blob that some manifest names.
    pub(crate) fn blobs(&self) -> HashSet<Digest> {
        self.manifests.values().flat_map(|known| known.manifest.blobs()).copied().collect()
    }

    /// Number of manifests.
    pub(crate) fn manifest_count(&self) -> usize {
        self.manifests.len()
    }
}
