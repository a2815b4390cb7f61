//! Changes of a store: the small file is durable before the database knows, and a crash between the two is settled when
//! the store is opened next.
//!
//! 1. A record in the database says which file is about to change.
//! 2. The file changes, durably.
//! 3. The database takes the change over and drops the record, in one commit.
//!
//! Whatever was interrupted, the file decides: what it says goes into the database, and what it is not goes out. A start
//! reads those few files and no others. A change runs to its end even if nobody waits for it any more.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use helios_metadata::{Change, TagEntry};
use helios_model::Manifest;
use helios_runtime::Clock;
use helios_types::{Digest, ModelRef};

use crate::blocking::blocking;
use crate::registry::{digest_of, manifest_path};
use crate::tags;
use crate::{Registry, RegistryError, Resolved, names, small_files};

/// A small file that may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SmallFile {
    Manifest(Digest),
    Tag(ModelRef),
}

impl Registry {
    /// Points a tag at a manifest that the caller holds, so that it stays.
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
            let history = wait(registry.metadata().history(&reference))?;
            if history.last().is_none_or(|last| last.digest != digest) {
                let entry = TagEntry { digest, at: Clock.unix_ms(), source: source.clone() };
                registry.write_history(&reference, tags::appended(&history, entry))?;
            }
            registry.note_elsewhere(digest, &manifest, &source, false);
            Ok(Resolved { reference, digest, manifest })
        });
        let resolved = resolved.await?;
        self.note_deployed(&resolved.reference).await?;
        Ok(resolved)
    }

    /// Makes a history durable.
    fn write_history(&self, reference: &ModelRef, history: Vec<TagEntry>) -> Result<(), RegistryError> {
        let file = SmallFile::Tag(reference.clone());
        self.commit(&[self.begin(&file)])?;
        tags::write(self.files(), &self.tags_dir(), reference, &history)?;
        self.commit(&[Change::SetTag { reference: reference.clone(), history }, self.end(&file)])
    }

    /// Makes a manifest durable and known; its blobs are pinned by the caller.
    pub(crate) async fn add_manifest(
        self: &Arc<Self>,
        manifest: Manifest,
    ) -> Result<(Digest, Arc<Manifest>), RegistryError> {
        self.change(move |registry| {
            let bytes = manifest.to_bytes();
            let digest = digest_of(&bytes);
            if let Some(known) = wait(registry.load(&digest))? {
                return Ok((digest, known));
            }
            let file = SmallFile::Manifest(digest);
            registry.commit(&[registry.begin(&file)])?;
            registry.files().write_atomic(&manifest_path(registry.dir(), &digest), &bytes)?;
            let put = Change::PutManifest { digest, manifest: Arc::new(manifest) };
            registry.commit(&[put, registry.end(&file)])?;
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
            let file = SmallFile::Tag(reference.clone());
            registry.commit(&[registry.begin(&file)])?;
            registry.files().remove(&tags::path(&registry.tags_dir(), &reference))?;
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
        for (key, _) in wait(self.metadata().records(&self.interrupted()))? {
            let Some(file) = SmallFile::from_key(&key) else { continue };
            tracing::info!(file = key, "an interrupted change is settled by its file");
            let settled = self.as_the_file_says(&file)?;
            self.commit(&[settled, Some(self.end(&file))].into_iter().flatten().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// What makes the database say the same as the file; nothing where the file is damaged.
    fn as_the_file_says(&self, file: &SmallFile) -> Result<Option<Change>, RegistryError> {
        let path = match file {
            SmallFile::Manifest(digest) => manifest_path(self.dir(), digest),
            SmallFile::Tag(reference) => tags::path(&self.tags_dir(), reference),
        };
        if !small_files::exists(self.files(), &path)? {
            return Ok(Some(match file {
                SmallFile::Manifest(digest) => Change::RemoveManifest(*digest),
                SmallFile::Tag(reference) => Change::RemoveTag(reference.clone()),
            }));
        }
        match file {
            SmallFile::Manifest(_) => small_files::manifest(self.files(), &path),
            SmallFile::Tag(_) => small_files::tag(self.files(), &self.tags_dir(), &path),
        }
    }

    /// The record that a file is about to change.
    pub(crate) fn begin(&self, file: &SmallFile) -> Change {
        Change::PutRecord { kind: self.interrupted(), key: file.key(), value: "{}".to_owned() }
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
