//! What is asked for here, and what follows from it: the history of uses and deployments, and the policy that learns from
//! it which models to keep near and to fetch ahead.
//!
//! The history is kept in `history.json` and losable: without it, the policy begins anew. What the operator wants
//! (`warm`) is kept in the database and is not.

mod downloads;
mod file;
mod history;
mod odds;
mod outlook;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use helios_prefetch::{EventKind, Gate, ModelCost, ModelIndex, Policy, PolicyOptions};
use helios_storage::tiers::UsePredictor;
use helios_types::{ErrorCode, ModelRef};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OnceCell};

pub use downloads::Download;
pub use file::recorded_trace;
pub(crate) use outlook::{Expected, Look, Order, Seen, Why};

use crate::blocking::blocking;
use crate::warm::Pin;
use crate::{Registry, RegistryConfig, RegistryError, WallClock, metrics};
use downloads::Downloads;
use file::Saved;
use history::History;
use odds::Odds;

/// Uses in one report.
pub const USES_MAX: usize = 1024;

/// How often a model was asked for, as a proxy reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelUse {
    /// Name and tag.
    pub model: ModelRef,
    /// How often since the last report.
    pub count: u32,
    /// Milliseconds since the last time.
    #[serde(default)]
    pub ago_ms: u64,
}

/// What a registry knows of the demand for its models.
#[derive(Debug)]
pub(crate) struct Demand {
    state: Mutex<State>,
    odds: Odds,
    downloads: Downloads,
    changed: Notify,
    loaded: OnceCell<()>,
    wall_clock: WallClock,
}

/// All of it; models have the numbers of the history.
#[derive(Debug)]
struct State {
    history: History,
    policy: Policy,
    /// What is known of models from the last look, in the history or pinned.
    known: HashMap<ModelRef, outlook::Known>,
    pins: BTreeMap<ModelRef, Pin>,
    /// Models being fetched ahead, with the bytes that were missing.
    fetching: HashMap<ModelRef, u64>,
    failures: HashMap<ModelRef, outlook::Failure>,
    /// Models that were deployed since the last look.
    arrived: HashSet<ModelRef>,
    /// Uses that found the model here, and all uses.
    found: u64,
    uses: u64,
    granted_at_ms: Option<u64>,
    /// Whether anything changed since the history was saved.
    is_dirty: bool,
}

/// What it costs to fetch so many bytes, at 0.1 s and a gigabit.
fn cost(bytes: u64) -> ModelCost {
    ModelCost { bytes, fetch_seconds: 0.1 + bytes as f64 / 1.25e8 }
}

impl Demand {
    pub(crate) fn new(config: &RegistryConfig) -> Self {
        let options = PolicyOptions { prefetch: config.prefetch.enabled, ..PolicyOptions::default() };
        let state = State {
            history: History::default(),
            policy: Policy::new(options, Vec::new(), 0),
            known: HashMap::new(),
            pins: BTreeMap::new(),
            fetching: HashMap::new(),
            failures: HashMap::new(),
            arrived: HashSet::new(),
            found: 0,
            uses: 0,
            granted_at_ms: None,
            is_dirty: false,
        };
        Self {
            state: Mutex::new(state),
            odds: Odds::default(),
            downloads: Downloads::default(),
            changed: Notify::new(),
            loaded: OnceCell::new(),
            wall_clock: config.wall_clock.clone(),
        }
    }

    /// The time that demand goes by, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.wall_clock.unix_ms()
    }

    /// Waits for something that deserves a look before its time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Asks for a look.
    pub(crate) fn notify(&self) {
        self.changed.notify_one();
    }

    /// What the operator wants.
    pub(crate) fn pins(&self) -> BTreeMap<ModelRef, Pin> {
        self.state().pins.clone()
    }

    /// Replaces what the operator wants.
    pub(crate) fn set_pins(&self, pins: BTreeMap<ModelRef, Pin>) {
        self.state().pins = pins;
    }

    /// What tiers go by.
    pub(crate) fn predictor(&self) -> Box<dyn UsePredictor> {
        self.odds.predictor()
    }

    fn deployed(&self, model: &ModelRef) {
        let mut state = self.state();
        if let Some(entry) = state.history.note(model, EventKind::Deploy, self.now_ms()) {
            state.policy.learn(&entry.event());
        }
        if state.arrived.len() < USES_MAX {
            state.arrived.insert(model.clone());
        }
        state.is_dirty = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what was kept, before what happened since the start.
    fn restore(&self, saved: &Saved) {
        let mut state = self.state();
        let since = std::mem::replace(&mut state.history, saved.history());
        let gate = Gate::kept(saved.allowance_bytes + state.policy.gate().allowance_bytes());
        state.policy.resume(gate, saved.unused.iter().copied());
        (state.found, state.uses) = (state.found + saved.found, state.uses + saved.uses);
        for entry in since.events() {
            state.history.note(&since.models()[entry.model], entry.kind, entry.at_ms);
        }
        state.learn_again();
    }
}

impl State {
    /// A policy that has learned from all of the history.
    fn learn_again(&mut self) {
        let mut policy = Policy::new(*self.policy.options(), Vec::new(), 0);
        self.history.events().for_each(|entry| policy.learn(&entry.event()));
        policy.resume(*self.policy.gate(), self.policy.unused().collect::<Vec<_>>());
        self.policy = policy;
    }

    /// Forgets what is too old or too much.
    fn thin(&mut self, now_ms: u64) {
        let names = self.history.models().to_vec();
        if !self.history.thin(now_ms) {
            return;
        }
        let gate = *self.policy.gate();
        let unused: Vec<(ModelIndex, u64)> = self.policy.unused().collect();
        let unused = unused.into_iter().filter_map(|(model, bytes)| {
            let number = self.history.number(names.get(model)?)?;
            Some((number, bytes))
        });
        self.policy.resume(gate, unused.collect::<Vec<_>>());
        self.learn_again();
        self.is_dirty = true;
    }

    /// The numbers of all names of the version that `model` names: what was fetched for one is there for the others.
    fn numbers_of_version(&self, model: &ModelRef) -> Vec<ModelIndex> {
        let digest = self.known.get(model).map(|known| known.digest);
        let is_same =
            |(name, known): &(&ModelRef, &outlook::Known)| *name != model && Some(known.digest) == digest;
        let others = self.known.iter().filter(is_same).map(|(name, _)| name);
        others.chain([model]).filter_map(|name| self.history.number(name)).collect()
    }

    /// A model was asked for.
    fn used(&mut self, model: &ModelRef, count: u32, at_ms: u64, is_here: bool) {
        self.uses += u64::from(count);
        self.found += if is_here { u64::from(count) } else { 0 };
        metrics::used(u64::from(count), is_here, self.found as f64 / self.uses.max(1) as f64);
        if let Some(entry) = self.history.note(model, EventKind::Request, at_ms) {
            self.policy.learn(&entry.event());
        }
        for number in self.numbers_of_version(model) {
            if self.policy.used(number) {
                metrics::prefetch_used();
            }
        }
        self.is_dirty = true;
    }
}

impl Registry {
    /// Notes that models were asked for. Names that are not here are left out; those that are new to a history that is
    /// full, too. Losable: nothing is on disk before the next save.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] for more than [`USES_MAX`]; [`RegistryError::Metadata`].
    pub async fn note_uses(self: &Arc<Self>, uses: &[ModelUse]) -> Result<(), RegistryError> {
        if uses.len() > USES_MAX {
            let problem = format!("{} models in one report of uses, at most {USES_MAX}", uses.len());
            return Err(RegistryError::InvalidRequest { problem, code: ErrorCode::PayloadTooLarge });
        }
        let now_ms = self.demand().now_ms();
        for one in uses.iter().filter(|one| one.count > 0) {
            let Some(current) = self.metadata().current(&one.model).await? else { continue };
            let is_here = self.is_near(&current.digest).await?;
            let at_ms = now_ms.saturating_sub(one.ago_ms);
            self.demand().state().used(&one.model, one.count, at_ms, is_here);
        }
        self.demand().notify();
        Ok(())
    }

    /// Notes that a version of a model was pulled, pushed or tagged.
    pub(crate) async fn note_deployed(self: &Arc<Self>, model: &ModelRef) -> Result<(), RegistryError> {
        let demand = self.demand();
        demand.deployed(model);
        if demand.state().pins.contains_key(model) {
            self.pin_blobs().await?;
        }
        demand.notify();
        Ok(())
    }

    /// Reads the history, once; one that cannot be read costs only itself.
    pub(crate) async fn load_history(&self) {
        let read = async {
            let (files, path) = (self.files().clone(), file::path(self.dir()));
            match blocking(move || Saved::load(&files, &path)).await {
                Ok(Some(saved)) => self.demand().restore(&saved),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "the history of uses is lost; what is asked for is learned anew");
                }
            }
        };
        self.demand().loaded.get_or_init(|| read).await;
    }

    /// Keeps the history, if anything has changed.
    pub(crate) async fn save_history(&self) {
        self.load_history().await;
        let saved = {
            let mut state = self.demand().state();
            if !std::mem::replace(&mut state.is_dirty, false) {
                return;
            }
            let bytes: Vec<u64> = state.history.models().iter().map(|model| state.bytes_of(model)).collect();
            let fetching = &state.fetching;
            let is_done = |number: &ModelIndex| !fetching.contains_key(&state.history.models()[*number]);
            let mut saved = Saved::new(&state.history, &bytes);
            saved.allowance_bytes = state.policy.gate().allowance_bytes();
            saved.unused = state.policy.unused().filter(|(number, _)| is_done(number)).collect();
            (saved.found, saved.uses) = (state.found, state.uses);
            saved
        };
        let (files, path) = (self.files().clone(), file::path(self.dir()));
        if let Err(error) = blocking(move || saved.save(&files, &path)).await {
            tracing::warn!(%error, "the history of uses is not kept; a restart would begin before what is new in it");
        }
    }
}
