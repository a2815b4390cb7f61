//! Garbage collection: what no tag, lease, running pull or reader needs is deleted.

use std::collections::HashSet;
use std::sync::Arc;

use helios_metadata::{Change, DIGESTS_MAX};
use helios_runtime::Clock;
use helios_types::Digest;
use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::changes::{SmallFile, wait};
use crate::pins::Watch;
use crate::registry::manifest_path;
use crate::{Registry, RegistryError, files};

/// Manifests that go in one commit. Blobs lie all over the index of digests, so that a commit writes much of it however
/// few it takes out.
const BATCH: usize = 5_000;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Manifests deleted.
    pub manifests_removed: usize,
    /// Manifests that stay.
    pub manifests_kept: usize,
    /// Blobs deleted.
    pub blobs_removed: usize,
    /// Bytes freed: blobs, abandoned downloads and quarantined files.
    pub bytes_freed: u64,
}

/// What a sweep deleted.
#[derive(Default)]
struct Swept {
    files: usize,
    bytes: u64,
}

impl Registry {
    /// Deletes every version that is in no tag's history, and every file that only such versions have.
    ///
    /// Versions in live leases, in use in this process, or handed out to another within the grace stay, and so does
    /// whatever a running pull has brought in. Reads go on all the while; pulls wait for moments. Just after a start, it waits
    /// until workers had time to renew their leases.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] or [`RegistryError::Metadata`]; what was not deleted goes with the next collection.
    pub async fn gc(self: &Arc<Self>) -> Result<GcReport, RegistryError> {
        self.members().rebuilt().await;
        let _alone = self.collecting().lock().await;
        self.shelf().expire(Clock.now());
        let manifests_removed = self.change(Self::collect_manifests).await?;
        let registry = Arc::clone(self);
        let mut report = blocking(move || registry.collect_blobs()).await?;
        report.manifests_removed = manifests_removed;
        report.manifests_kept =
            usize::try_from(self.metadata().counts().await?.manifests).unwrap_or(usize::MAX);
        Ok(report)
    }

    /// Manifests first: a blob without a manifest is garbage, a manifest without a blob would be a lie.
    fn collect_manifests(&self) -> Result<usize, RegistryError> {
        let untagged = wait(self.metadata().untagged(self.store_id()))?;
        self.elsewhere().leaving(&untagged);
        let removed = self.collect_untagged(untagged);
        self.elsewhere().leaving(&[]);
        removed
    }

    fn collect_untagged(&self, untagged: Vec<Digest>) -> Result<usize, RegistryError> {
        let mut held = self.members().leased_manifests();
        held.extend(self.host_leases().used_by_others()?);
        held.extend(self.last_origins()?);
        let doomed = self.loaded().doom(untagged, &held, self.grace_since());
        self.elsewhere().forget(&doomed);
        let removed = doomed.chunks(BATCH).try_for_each(|some| self.remove_manifests(some));
        self.loaded().collected();
        removed.map(|()| doomed.len())
    }

    /// Versions without a tag as part of which alone weights could be fetched again that left to make room, and that a version
    /// which stays has, too.
    fn last_origins(&self) -> Result<Vec<Digest>, RegistryError> {
        let shared = wait(self.metadata().outlive(self.store_id()))?;
        let absent = self.blobs().absent(shared.iter().map(|(blob, _)| *blob));
        if absent.is_empty() {
            return Ok(Vec::new());
        }
        wait(self.look_elsewhere_once());
        let untagged: HashSet<Digest> = shared.iter().map(|(_, version)| *version).collect();
        let is_last = |(blob, version): &(Digest, Digest)| {
            let versions = self.elsewhere().versions_with(blob);
            absent.contains(blob)
                && versions.contains(version)
                && versions.iter().all(|other| untagged.contains(other))
        };
        Ok(shared.into_iter().filter(is_last).map(|(_, version)| version).collect())
    }

    /// The database forgets them before their files go: were it the other way round, a crash would leave tags elsewhere
    /// without their manifest.
    fn remove_manifests(&self, digests: &[Digest]) -> Result<(), RegistryError> {
        let begin = digests.iter().map(|digest| self.begin(&SmallFile::Manifest(*digest)));
        let store = || self.store_id().to_owned();
        let remove = digests.iter().map(|digest| Change::RemoveManifest { digest: *digest, store: store() });
        self.commit(&begin.chain(remove).collect::<Vec<_>>())?;
        for digest in digests {
            files::remove_unsynced(self.files(), &manifest_path(self.dir(), digest))?;
        }
        self.files().sync_dir(&self.dir().join("manifests"))?;
        let end = digests.iter().map(|digest| self.end(&SmallFile::Manifest(*digest)));
        self.commit(&end.collect::<Vec<_>>())
    }

    /// Deletes the blobs that no manifest refers to, and that no recipe which stays is made of.
    fn collect_blobs(&self) -> Result<GcReport, RegistryError> {
        let watch = self.pins().watch();
        let mut needed = self.loaded().blobs_in_use();
        // Recipes before what they are made of. They are not counted: a file is a blob once, however it is kept.
        let recipes = self.sweep(&watch, &needed, &self.blobs().recipes()?)?;
        let kept: HashSet<Digest> = self.blobs().recipes()?.into_iter().collect();
        needed.extend(self.blobs().recipe_sources(&kept)?);
        let blobs: Vec<Digest> = self.blobs().list()?.into_iter().map(|(digest, _)| digest).collect();
        let swept = self.sweep(&watch, &needed, &blobs)?;
        let live: HashSet<Digest> =
            self.blobs().list()?.into_iter().map(|(digest, _)| digest).chain(kept).collect();
        let leftovers = self.derived().collect(&live)? + self.blobs().remove_leftovers()?;
        Ok(GcReport {
            blobs_removed: swept.files,
            bytes_freed: recipes.bytes + swept.bytes + leftovers,
            ..GcReport::default()
        })
    }

    /// Deletes those of `files` that no manifest refers to and that are not `needed`. What a pull pins from before the
    /// database is asked until a file's turn comes is spared, so that no answer of the database is too old.
    fn sweep(
        &self,
        watch: &Watch<'_>,
        needed: &HashSet<Digest>,
        files: &[Digest],
    ) -> Result<Swept, RegistryError> {
        let mut swept = Swept::default();
        for some in files.chunks(DIGESTS_MAX) {
            let referenced = wait(self.metadata().referenced(some))?;
            let gate = watch.close();
            let garbage = some.iter().filter(|digest| {
                !referenced.contains(digest) && !needed.contains(digest) && !gate.was_pinned(digest)
            });
            for digest in garbage {
                swept.bytes += self.blobs().remove(digest)?;
                swept.files += 1;
            }
        }
        Ok(swept)
    }
}
