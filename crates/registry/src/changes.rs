//! Changes of a store: the small file is durable before the database knows, and a crash between the two is settled when
//! the store is opened next.
//!
//! 1. A record in the database says which file is about to change, and how.
//! 2. The file changes, durably.
//! 3. The database takes the change over and drops the record, in one commit.
//!
//! Whatever was interrupted, the file decides: if it changed, the database follows. A start reads those few files and no
//! others. A change runs to its end even if nobody waits for it any more.
//!
//! Where registries share a database, they share tags: the file of one is what it wrote last, the database may be ahead of
//! it. A history is taken over only if it was made from the one in the database; else it is made again.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use helios_metadata::{Change, MetadataError, TagEntry};
use helios_model::Manifest;
use helios_runtime::Clock;
use helios_types::{Digest, ModelRef};
use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::registry::{digest_of, manifest_path};
use crate::tags;
use crate::{Registry, RegistryError, Resolved, names, small_files};

/// How often a history is made again that others changed meanwhile: each time, one of them got on.
const ATTEMPTS_MAX: u32 = 100;

/// A small file that may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SmallFile {
    Manifest(Digest),
    Tag(ModelRef),
}

/// What is about to happen to a tag, kept in the record of the change: the newest entry of its history before it and after
/// it, each `None` where there is no tag.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Intention(Option<TagEntry>, Option<TagEntry>);

impl Registry {
    /// Points a tag at a manifest that the caller holds, so that it stays. If it points there already, its history keeps
    /// its length and its newest entry gets the time of now.
    ///
    /// # Errors
    /// [`RegistryError::ReservedName`]; [`RegistryError::Storage`]; [`RegistryError::Metadata`].
    pub async fn point(
        self: &Arc<Self>,
        reference: ModelRef,
        digest: Digest,
        manifest: Arc<Manifest>,
        source: String,
    ) -> Result<Resolved, RegistryError> {
        names::check_new(&reference)?;
        let resolved = self.change(move |registry| {
            if !small_files::exists(registry.files(), &manifest_path(registry.dir(), &digest))? {
                // Another registry on the database brought it in.
                registry.write_manifest(digest, &manifest)?;
            }
            let entry = TagEntry { digest, at: Clock.unix_ms(), source: source.clone() };
            retried(|| registry.move_tag(&reference, &entry))?;
            registry.note_elsewhere(digest, &manifest, &source, false);
            Ok(Resolved { reference, digest, manifest })
        });
        let resolved = resolved.await?;
        self.note_deployed(&resolved.reference).await?;
        Ok(resolved)
    }

    /// Makes `entry` the newest of a tag's history, durably.
    fn move_tag(&self, reference: &ModelRef, entry: &TagEntry) -> Result<(), RegistryError> {
        let file = SmallFile::Tag(reference.clone());
        let from = wait(self.metadata().history(reference))?;
        let history = tags::pointed(&from, entry);
        let intention = Intention(from.last().cloned(), history.last().cloned());
        self.commit(&[self.begin_tag(&file, &intention)])?;
        tags::write(self.files(), &self.tags_dir(), reference, &history)?;
        let reference = reference.clone();
        self.commit(&[Change::SetTag { reference, history, from: Some(from) }, self.end(&file)])
    }

    /// Makes a manifest durable and known as one of this store.
    fn write_manifest(&self, digest: Digest, manifest: &Arc<Manifest>) -> Result<(), RegistryError> {
        let file = SmallFile::Manifest(digest);
        self.commit(&[self.begin(&file)])?;
        self.files().write_atomic(&manifest_path(self.dir(), &digest), &manifest.to_bytes())?;
        let (manifest, store) = (Arc::clone(manifest), self.store_id().to_owned());
        self.commit(&[Change::PutManifest { digest, manifest, store }, self.end(&file)])
    }

    /// Makes a manifest durable and known; its blobs are pinned by the caller.
    pub(crate) async fn add_manifest(
        self: &Arc<Self>,
        manifest: Manifest,
    ) -> Result<(Digest, Arc<Manifest>), RegistryError> {
        self.change(move |registry| {
            let digest = digest_of(&manifest.to_bytes());
            let is_here = small_files::exists(registry.files(), &manifest_path(registry.dir(), &digest))?;
            if is_here && let Some(known) = wait(registry.load(&digest))? {
                return Ok((digest, known));
            }
            registry.write_manifest(digest, &Arc::new(manifest))?;
            let added = wait(registry.load(&digest))?;
            let added = added.ok_or(RegistryError::UnknownDigest { kind: "manifest", digest })?;
            Ok((digest, added))
        })
        .await
    }

    /// Removes a tag with its history. What it pointed to stays until [`gc`](Self::gc).
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`]; [`RegistryError::Storage`]; [`RegistryError::Metadata`].
    pub async fn remove(self: &Arc<Self>, model: &ModelRef) -> Result<(), RegistryError> {
        let model = model.clone();
        self.change(move |registry| {
            let (reference, _) = wait(registry.pointer(&model))?;
            let newest = wait(registry.metadata().current(&reference))?;
            let file = SmallFile::Tag(reference.clone());
            registry.commit(&[registry.begin_tag(&file, &Intention(newest, None))])?;
            let path = tags::path(&registry.tags_dir(), &reference);
            // Where another registry on the database made the tag, there is no file of it, nor its folder.
            if small_files::exists(registry.files(), &path)? {
                registry.files().remove(&path)?;
            }
            registry.commit(&[Change::RemoveTag(reference), registry.end(&file)])
        })
        .await
    }

    /// Runs one change after the other, each to its end. One that failed may have left its file and the database apart:
    /// the next begins by settling that.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let registry = Arc::clone(self);
        blocking(move || {
            let mut settled = registry.changes().lock().unwrap_or_else(PoisonError::into_inner);
            if !std::mem::replace(&mut *settled, false) {
                registry.settle()?;
            }
            let result = work(&registry);
            *settled = result.is_ok();
            result
        })
        .await
    }

    /// Lets the files decide what was interrupted. Blocks. O(interrupted changes).
    pub(crate) fn settle(&self) -> Result<(), RegistryError> {
        for (key, intention) in wait(self.metadata().records(&self.interrupted()))? {
            let Some(file) = SmallFile::from_key(&key) else { continue };
            tracing::info!(file = key, "an interrupted change is settled by its file");
            retried(|| {
                let settled = match &file {
                    SmallFile::Manifest(digest) => self.settled_manifest(digest)?,
                    SmallFile::Tag(reference) => self.settled_tag(reference, &intention)?,
                };
                self.commit(&[settled, Some(self.end(&file))].into_iter().flatten().collect::<Vec<_>>())
            })?;
        }
        Ok(())
    }

    /// What makes the database know the manifest in a file. Where there is none, or a damaged one, it knows none from here:
    /// it takes a manifest over after its file, and forgets one before.
    fn settled_manifest(&self, digest: &Digest) -> Result<Option<Change>, RegistryError> {
        let path = manifest_path(self.dir(), digest);
        if !small_files::exists(self.files(), &path)? {
            return Ok(None);
        }
        small_files::manifest(self.files(), &path, self.store_id())
    }

    /// What makes the database follow the file of a tag; nothing if the file did not change, is damaged, or if another
    /// registry changed the tag since: nobody was told that this change was made.
    fn settled_tag(&self, reference: &ModelRef, intention: &str) -> Result<Option<Change>, RegistryError> {
        let path = tags::path(&self.tags_dir(), reference);
        let from = wait(self.metadata().history(reference))?;
        let is_there = small_files::exists(self.files(), &path)?;
        let in_file = match is_there {
            true => small_files::tag(self.files(), &self.tags_dir(), &path)?,
            false => None,
        };
        let newest = in_file.and_then(|(_, mut history)| history.pop());
        // Releases before this one did not say what they were about to do, and had the database for themselves.
        let intention = serde_json::from_str(intention);
        let Intention(before, after) =
            intention.unwrap_or_else(|_| Intention(from.last().cloned(), newest.clone()));
        if from.last() != before.as_ref() || after != newest {
            return Ok(None);
        }
        let history = match after {
            Some(entry) => tags::pointed(&from, &entry),
            None if !is_there => Vec::new(),
            None => return Ok(None),
        };
        Ok(Some(Change::SetTag { reference: reference.clone(), history, from: Some(from) }))
    }

    /// The record that a manifest's file is about to change.
    pub(crate) fn begin(&self, file: &SmallFile) -> Change {
        Change::PutRecord { kind: self.interrupted(), key: file.key(), value: "{}".to_owned() }
    }

    /// The record that a tag's file is about to change.
    fn begin_tag(&self, file: &SmallFile, intention: &Intention) -> Change {
        let value = serde_json::to_string(intention).expect("invariant: an intention has only string keys");
        Change::PutRecord { kind: self.interrupted(), key: file.key(), value }
    }

    /// The end of that record.
    pub(crate) fn end(&self, file: &SmallFile) -> Change {
        Change::RemoveRecord { kind: self.interrupted(), key: file.key() }
    }

    /// The kind of those records: each store has its own where several share a database.
    fn interrupted(&self) -> String {
        format!("changing/{}", self.store_id())
    }

    pub(crate) fn commit(&self, changes: &[Change]) -> Result<(), RegistryError> {
        Ok(wait(self.metadata().commit(changes))?)
    }

    pub(crate) fn tags_dir(&self) -> PathBuf {
        self.dir().join("tags")
    }
}

impl SmallFile {
    fn key(&self) -> String {
        match self {
            Self::Manifest(digest) => format!("manifest {digest}"),
            Self::Tag(reference) => format!("tag {reference}"),
        }
    }

    fn from_key(key: &str) -> Option<Self> {
        match key.split_once(' ')? {
            ("manifest", digest) => digest.parse().ok().map(Self::Manifest),
            ("tag", reference) => reference.parse().ok().map(Self::Tag),
            _ => None,
        }
    }
}

/// Does work again that another registry on the database came between.
pub(crate) fn retried(mut work: impl FnMut() -> Result<(), RegistryError>) -> Result<(), RegistryError> {
    let mut attempts = 1;
    loop {
        match work() {
            Err(RegistryError::Metadata(MetadataError::Conflict { .. })) if attempts < ATTEMPTS_MAX => {
                attempts += 1
            }
            done => return done,
        }
    }
}

/// Waits for a future on a thread that may block.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(future)
}

#[cfg(test)]
mod tests {
    use super::SmallFile;

    #[test]
    fn a_key_names_its_file_again() {
        let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000001";
        for file in [
            SmallFile::Manifest(digest.parse().expect("a digest")),
            SmallFile::Tag("org/m:v1".parse().expect("a name")),
        ] {
            assert_eq!(SmallFile::from_key(&file.key()), Some(file));
        }
        assert_eq!(SmallFile::from_key("else"), None);
    }
}
