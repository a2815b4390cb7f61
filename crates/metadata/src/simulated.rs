//! [`Metadata`] in memory that can fail and crash: what was acknowledged survives a crash; a commit that a crash
//! interrupts is there afterwards or not, by the seed. It never shows half of one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use helios_model::Manifest;
use helios_storage::BlobInfo;
use helios_types::{Digest, ModelRef};

use super::{Change, Counts, DIGESTS_MAX, Metadata, MetadataError, check};
use crate::{ModelSummary, TagEntry};

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused and leaves nothing behind.
    Fail,
    /// The process dies in it: whether it survives is up to the seed, and every later call fails until
    /// [`SimulatedMetadata::restart`].
    Crash,
}

/// A database in memory with faults on demand. Deterministic: the same seed and calls give the same answers.
#[derive(Debug)]
pub struct SimulatedMetadata {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tables: Tables,
    random: u64,
    /// The fault, and how many commits go well before it.
    planned: Option<(u64, Fault)>,
    commits: u64,
    is_down: bool,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    manifests: BTreeMap<Digest, Kept>,
    tags: BTreeMap<ModelRef, Vec<TagEntry>>,
    records: BTreeMap<(String, String), String>,
    arrivals: u64,
}

/// A manifest.
#[derive(Clone, Debug)]
struct Kept {
    /// Its number in the order in which they came.
    arrival: u64,
    manifest: Arc<Manifest>,
    /// The stores that have it.
    stores: BTreeSet<String>,
}

impl SimulatedMetadata {
    /// An empty database.
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new(State { random: seed, ..State::default() }) }
    }

    /// Lets `fault` happen after `commits` more commits went well.
    pub fn plan(&self, commits: u64, fault: Fault) {
        self.state().planned = Some((commits, fault));
    }

    /// Brings the database up again after a crash, with no fault planned.
    pub fn restart(&self) {
        let mut state = self.state();
        state.is_down = false;
        state.planned = None;
    }

    /// Commits that were acknowledged so far.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&Tables) -> T,
    ) -> BoxFuture<'static, Result<T, MetadataError>> {
        let state = self.state();
        let answer = if state.is_down { Err(failed("it is down")) } else { Ok(answer(&state.tables)) };
        std::future::ready(answer).boxed()
    }
}

impl State {
    fn commit(&mut self, changes: &[Change]) -> Result<(), MetadataError> {
        if self.is_down {
            return Err(failed("it is down"));
        }
        if let Some(tag) = changes.iter().find_map(|change| self.tables.moved(change)) {
            return Err(MetadataError::Conflict { database: NAME.to_owned(), tag });
        }
        match &mut self.planned {
            Some((0, Fault::Fail)) => {
                self.planned = None;
                return Err(failed("a planned fault"));
            }
            Some((0, Fault::Crash)) => {
                self.is_down = true;
                if self.coin() {
                    self.tables.apply_all(changes);
                }
                return Err(failed("a planned crash"));
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        self.tables.apply_all(changes);
        self.commits += 1;
        Ok(())
    }

    /// One bit of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    fn coin(&mut self) -> bool {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}

impl Tables {
    fn apply_all(&mut self, changes: &[Change]) {
        changes.iter().for_each(|change| self.apply(change));
    }

    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::PutManifest { digest, manifest, store } => {
                self.arrivals += 1;
                let new = Kept { arrival: self.arrivals, manifest, stores: BTreeSet::new() };
                self.manifests.entry(digest).or_insert(new).stores.insert(store);
            }
            Change::RemoveManifest { digest, store } => self.give_up(&digest, &store),
            Change::SetTag { reference, history, .. } if history.is_empty() => {
                drop(self.tags.remove(&reference))
            }
            Change::SetTag { reference, history, .. } => drop(self.tags.insert(reference, history)),
            Change::RemoveTag(reference) => drop(self.tags.remove(&reference)),
            Change::PutRecord { kind, key, value } => drop(self.records.insert((kind, key), value)),
            Change::RemoveRecord { kind, key } => drop(self.records.remove(&(kind, key))),
        }
    }

    fn give_up(&mut self, digest: &Digest, store: &str) {
        if self.is_tagged(digest) {
            return;
        }
        let Some(kept) = self.manifests.get_mut(digest) else { return };
        kept.stores.remove(store);
        if kept.stores.is_empty() {
            self.manifests.remove(digest);
        }
    }

    /// The tag of a change that was made from another history than there is.
    fn moved(&self, change: &Change) -> Option<ModelRef> {
        let Change::SetTag { reference, from: Some(from), .. } = change else { return None };
        let known = self.tags.get(reference).map_or(&[][..], Vec::as_slice);
        (known != from).then(|| reference.clone())
    }

    fn is_tagged(&self, digest: &Digest) -> bool {
        self.tags.values().flatten().any(|entry| entry.digest == *digest)
    }

    /// The manifests with that blob in the order in which they came, and what each says of it.
    fn claims(&self, blob: &Digest) -> Vec<(u64, Digest, BlobInfo)> {
        let mut claims = Vec::new();
        for (digest, kept) in &self.manifests {
            let file = kept.manifest.files.iter().find(|file| file.blob.digest == *blob);
            claims.extend(file.map(|file| (kept.arrival, *digest, file.blob)));
        }
        claims.sort_unstable_by_key(|(arrival, _, _)| *arrival);
        claims
    }

    fn models(&self) -> Vec<ModelSummary> {
        let summary = |(reference, history): (&ModelRef, &Vec<TagEntry>)| {
            let current = history.last()?;
            let kept = self.manifests.get(&current.digest)?;
            Some(ModelSummary::new(reference.clone(), current, &kept.manifest))
        };
        self.tags.iter().filter_map(summary).collect()
    }

    fn counts(&self) -> Counts {
        let blobs: BTreeSet<&Digest> =
            self.manifests.values().flat_map(|kept| kept.manifest.blobs()).collect();
        let count = |length: usize| length as u64;
        Counts {
            manifests: count(self.manifests.len()),
            blobs: count(blobs.len()),
            tags: count(self.tags.len()),
        }
    }
}

impl Metadata for SimulatedMetadata {
    fn commit<'a>(&'a self, changes: &'a [Change]) -> BoxFuture<'a, Result<(), MetadataError>> {
        let done = check(changes).and_then(|()| self.state().commit(changes));
        std::future::ready(done).boxed()
    }

    fn current<'a>(&'a self, tag: &'a ModelRef) -> BoxFuture<'a, Result<Option<TagEntry>, MetadataError>> {
        self.ask(|tables| tables.tags.get(tag).and_then(|history| history.last()).cloned())
    }

    fn history<'a>(&'a self, tag: &'a ModelRef) -> BoxFuture<'a, Result<Vec<TagEntry>, MetadataError>> {
        self.ask(|tables| tables.tags.get(tag).cloned().unwrap_or_default())
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelSummary>, MetadataError>> {
        self.ask(Tables::models)
    }

    fn tags(&self) -> BoxFuture<'_, Result<Vec<ModelRef>, MetadataError>> {
        self.ask(|tables| tables.tags.keys().cloned().collect())
    }

    fn tags_of<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ModelRef>, MetadataError>> {
        self.ask(|tables| tables.tags.keys().filter(|tag| tag.name() == name).cloned().collect())
    }

    fn manifest<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Vec<u8>>, MetadataError>> {
        self.ask(|tables| tables.manifests.get(digest).map(|kept| kept.manifest.to_bytes()))
    }

    fn manifest_with<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, Result<Option<Digest>, MetadataError>> {
        self.ask(|tables| tables.claims(blob).last().map(|(_, digest, _)| *digest))
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<BlobInfo>, MetadataError>> {
        self.ask(|tables| tables.claims(digest).first().map(|(_, _, info)| *info))
    }

    fn blobs_after<'a>(
        &'a self,
        after: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Vec<BlobInfo>, MetadataError>> {
        self.ask(|tables| {
            let manifests = tables.manifests.values();
            let named: BTreeSet<Digest> = manifests.flat_map(|kept| kept.manifest.blobs()).copied().collect();
            let wanted = named.into_iter().filter(|digest| after.is_none_or(|after| digest > after));
            let first = |digest: Digest| tables.claims(&digest).first().map(|(_, _, info)| *info);
            wanted.filter_map(first).take(DIGESTS_MAX).collect()
        })
    }

    fn untagged<'a>(&'a self, store: &'a str) -> BoxFuture<'a, Result<Vec<Digest>, MetadataError>> {
        self.ask(|tables| {
            let of_store = tables.manifests.iter().filter(|(_, kept)| kept.stores.contains(store));
            of_store.map(|(digest, _)| *digest).filter(|digest| !tables.is_tagged(digest)).collect()
        })
    }

    fn outlive<'a>(&'a self, store: &'a str) -> BoxFuture<'a, Result<Vec<(Digest, Digest)>, MetadataError>> {
        self.ask(|tables| {
            let stays = |blob: &Digest| tables.claims(blob).iter().any(|(_, by, _)| tables.is_tagged(by));
            let of_manifest = |(digest, kept): (&Digest, &Kept)| {
                let blobs: BTreeSet<Digest> = kept.manifest.blobs().copied().filter(stays).collect();
                blobs.into_iter().map(|blob| (blob, *digest)).collect::<Vec<_>>()
            };
            let of_store = tables.manifests.iter().filter(|(_, kept)| kept.stores.contains(store));
            of_store.filter(|(digest, _)| !tables.is_tagged(digest)).flat_map(of_manifest).collect()
        })
    }

    fn referenced<'a>(&'a self, blobs: &'a [Digest]) -> BoxFuture<'a, Result<Vec<Digest>, MetadataError>> {
        self.ask(|tables| blobs.iter().filter(|blob| !tables.claims(blob).is_empty()).copied().collect())
    }

    fn record<'a>(
        &'a self,
        kind: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, MetadataError>> {
        self.ask(|tables| tables.records.get(&(kind.to_owned(), key.to_owned())).cloned())
    }

    fn records<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<Vec<(String, String)>, MetadataError>> {
        self.ask(|tables| {
            let of_kind = tables.records.iter().filter(|((known, _), _)| known == kind);
            of_kind.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        })
    }

    fn record_kinds(&self) -> BoxFuture<'_, Result<BTreeMap<String, u64>, MetadataError>> {
        self.ask(|tables| {
            let mut kinds = BTreeMap::new();
            tables.records.keys().for_each(|(kind, _)| *kinds.entry(kind.clone()).or_default() += 1);
            kinds
        })
    }

    fn counts(&self) -> BoxFuture<'_, Result<Counts, MetadataError>> {
        self.ask(Tables::counts)
    }

    fn backup<'a>(&'a self, _file: &'a Path) -> BoxFuture<'a, Result<(), MetadataError>> {
        let hint = "it is a simulation";
        std::future::ready(Err(MetadataError::NoBackup { database: NAME.to_owned(), hint })).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

const NAME: &str = "in memory";

fn failed(problem: &str) -> MetadataError {
    MetadataError::Failed { database: NAME.to_owned(), problem: problem.to_owned() }
}
