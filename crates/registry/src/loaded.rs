//! The parsed manifests in memory: the recently used ones, bounded by their size, and which are in use by whom.
//!
//! Garbage collection dooms manifests here before it deletes them: a doomed one is not handed out any more, and one
//! that is in use cannot be doomed. Who read a manifest from the database before a collection and wants to keep it
//! after is told to look again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use helios_model::Manifest;
use helios_runtime::Instant;
use helios_types::Digest;

/// Memory of the manifests that nobody uses just then, about.
const BYTES_MAX: usize = 64 << 20;
/// About what a manifest takes beside its files.
const MANIFEST_BYTES: usize = 1_000;
/// About what a file of a manifest takes.
const FILE_BYTES: usize = 250;
/// Changes after which those that nobody uses any more are swept out.
const SWEEP_EVERY: usize = 1_024;

/// Manifests by digest.
#[derive(Debug, Default)]
pub(crate) struct LoadedManifests(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The recently used, with the time of their last use.
    recent: HashMap<Digest, (u64, Arc<Manifest>)>,
    /// Their digests by that time.
    by_use: BTreeMap<u64, Digest>,
    uses: u64,
    bytes: usize,
    /// Every manifest that somebody may hold, the recent ones included.
    alive: HashMap<Digest, Weak<Manifest>>,
    until_sweep: usize,
    /// The manifests that were told to somebody elsewhere, who holds no reference that could be counted.
    handed_out: HashMap<Digest, HandedOut>,
    /// How many of them there may be before those whose grace is over are forgotten.
    handed_out_max: usize,
    doomed: HashSet<Digest>,
    /// Collections so far.
    collections: u64,
}

/// A manifest that somebody elsewhere knows.
#[derive(Debug)]
struct HandedOut {
    /// When it was last told, or one of its blobs last read.
    at: Instant,
    blobs: Box<[Digest]>,
}

impl HandedOut {
    fn is_fresh(&self, grace_since: Option<Instant>) -> bool {
        grace_since.is_none_or(|since| self.at > since)
    }
}

impl LoadedManifests {
    /// The manifest, if it is in memory and not about to be collected.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Manifest>> {
        let mut state = self.state();
        let manifest = state.alive.get(digest)?.upgrade()?;
        state.touch(*digest, &manifest);
        Some(manifest)
    }

    /// A moment to come back to with [`keep`](Self::keep).
    pub(crate) fn collections(&self) -> u64 {
        self.state().collections
    }

    /// Takes in what was read from the database after the moment `since`; `None` if a collection may have deleted it
    /// in between.
    pub(crate) fn keep(&self, digest: Digest, manifest: Manifest, since: u64) -> Option<Arc<Manifest>> {
        let mut state = self.state();
        if state.collections != since || state.doomed.contains(&digest) {
            return None;
        }
        let known = state.alive.get(&digest).and_then(Weak::upgrade);
        let manifest = known.unwrap_or_else(|| Arc::new(manifest));
        state.touch(digest, &manifest);
        Some(manifest)
    }

    /// Notes that somebody elsewhere knows this manifest now; those that were last told before `grace_since` may be
    /// forgotten.
    pub(crate) fn hand_out(
        &self,
        digest: Digest,
        manifest: &Manifest,
        now: Instant,
        grace_since: Option<Instant>,
    ) {
        let mut state = self.state();
        if state.handed_out.len() >= state.handed_out_max.max(SWEEP_EVERY) {
            state.handed_out.retain(|_, known| known.is_fresh(grace_since));
            state.handed_out_max = 2 * state.handed_out.len();
        }
        let blobs = manifest.blobs().copied().collect();
        state.handed_out.insert(digest, HandedOut { at: now, blobs });
    }

    /// Notes that somebody elsewhere reads a blob: what was handed out and has it counts as handed out now. False if there
    /// is no such manifest. O(manifests handed out).
    pub(crate) fn read_elsewhere(&self, blob: &Digest, now: Instant) -> bool {
        let mut state = self.state();
        let mut is_known = false;
        for known in state.handed_out.values_mut().filter(|known| known.blobs.contains(blob)) {
            known.at = now;
            is_known = true;
        }
        is_known
    }

    /// Dooms those of `candidates` that are not in `held`, not in use in this process, and were not handed out since
    /// `grace_since`.
    pub(crate) fn doom(
        &self,
        candidates: Vec<Digest>,
        held: &HashSet<Digest>,
        grace_since: Option<Instant>,
    ) -> Vec<Digest> {
        let mut state = self.state();
        state.handed_out.retain(|_, known| known.is_fresh(grace_since));
        let doomed: Vec<Digest> = candidates
            .into_iter()
            .filter(|digest| {
                !held.contains(digest) && !state.handed_out.contains_key(digest) && !state.is_in_use(digest)
            })
            .collect();
        for digest in &doomed {
            state.forget(digest);
        }
        state.doomed = doomed.iter().copied().collect();
        doomed
    }

    /// Ends a collection: what was doomed is gone.
    pub(crate) fn collected(&self) {
        let mut state = self.state();
        state.doomed.clear();
        state.collections += 1;
    }

    /// The blobs of all manifests that are in use in this process.
    pub(crate) fn blobs_in_use(&self) -> HashSet<Digest> {
        let alive: Vec<Arc<Manifest>> = self.state().alive.values().filter_map(Weak::upgrade).collect();
        alive.iter().flat_map(|manifest| manifest.blobs()).copied().collect()
    }

    /// The manifests that somebody holds: those in use in this process, and of those handed out since `grace_since` or
    /// in `leased` the ones in memory; and the digests of the others.
    pub(crate) fn held(
        &self,
        mut leased: HashSet<Digest>,
        grace_since: Option<Instant>,
    ) -> (Vec<Arc<Manifest>>, HashSet<Digest>) {
        let state = self.state();
        let fresh = state.handed_out.iter().filter(|(_, known)| known.is_fresh(grace_since));
        leased.extend(fresh.map(|(digest, _)| *digest));
        let held =
            state.alive.iter().filter(|(digest, _)| state.is_in_use(digest) || leased.contains(digest));
        let held: Vec<(Digest, Arc<Manifest>)> =
            held.filter_map(|(digest, manifest)| Some((*digest, manifest.upgrade()?))).collect();
        for (digest, _) in &held {
            leased.remove(digest);
        }
        (held.into_iter().map(|(_, manifest)| manifest).collect(), leased)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes a manifest the most recently used, and drops others over the bound.
    fn touch(&mut self, digest: Digest, manifest: &Arc<Manifest>) {
        self.sweep();
        self.uses += 1;
        match self.recent.insert(digest, (self.uses, Arc::clone(manifest))) {
            Some((before, _)) => drop(self.by_use.remove(&before)),
            None => {
                self.bytes += bytes_of(manifest);
                self.alive.insert(digest, Arc::downgrade(manifest));
            }
        }
        self.by_use.insert(self.uses, digest);
        while self.bytes > BYTES_MAX && self.recent.len() > 1 {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some((_, manifest)) = self.recent.remove(&oldest) {
                self.bytes -= bytes_of(&manifest);
            }
        }
    }

    /// Whether anybody but this cache holds it.
    fn is_in_use(&self, digest: &Digest) -> bool {
        let holders = self.alive.get(digest).map_or(0, Weak::strong_count);
        holders > usize::from(self.recent.contains_key(digest))
    }

    fn forget(&mut self, digest: &Digest) {
        self.alive.remove(digest);
        self.handed_out.remove(digest);
        if let Some((used, manifest)) = self.recent.remove(digest) {
            self.by_use.remove(&used);
            self.bytes -= bytes_of(&manifest);
        }
    }

    /// Now and then, forgets what nobody holds: so `alive` is bounded by what is held and the changes in between.
    fn sweep(&mut self) {
        self.until_sweep = self.until_sweep.checked_sub(1).unwrap_or_else(|| {
            self.alive.retain(|_, manifest| manifest.strong_count() > 0);
            SWEEP_EVERY.max(self.alive.len())
        });
    }
}

fn bytes_of(manifest: &Manifest) -> usize {
    MANIFEST_BYTES + FILE_BYTES * manifest.files.len()
}
