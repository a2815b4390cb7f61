//! Warm-pool records: what the operator wants near, kept in the database; what the history expects; and what is so.

mod near;
mod record;

use std::collections::BTreeMap;
use std::sync::Arc;

use helios_types::{Digest, ErrorCode, ModelRef};

pub(crate) use near::Files;
pub(crate) use record::Pin;
pub use record::{Forecast, WarmLevel, WarmPlace, WarmReason, WarmRecord};

use crate::demand::Expected;
use crate::{Registry, RegistryError, WorkerLease};

/// Models that the operator may want near: each is looked at once a minute.
pub const WARM_MAX: usize = 1000;

impl Registry {
    /// Has a model kept at a level from now on: durably, and over every move of its tag. It is fetched if it is not here,
    /// by the running server in the background, and does not leave.
    ///
    /// # Errors
    /// [`RegistryError::ModelNotFound`]; [`RegistryError::InvalidRequest`] when [`WARM_MAX`] are wanted already;
    /// [`RegistryError::Metadata`].
    pub async fn keep_warm(
        self: &Arc<Self>,
        model: &ModelRef,
        level: WarmLevel,
    ) -> Result<Vec<WarmRecord>, RegistryError> {
        let reference = self.resolve(model).await?.reference;
        let pins = self.demand().pins();
        if pins.len() >= WARM_MAX && !pins.contains_key(&reference) {
            let problem = format!(
                "{WARM_MAX} models are kept warm already\nhint: `helios warm MODEL --off` lets one go"
            );
            return Err(RegistryError::InvalidRequest { problem, code: ErrorCode::Overloaded });
        }
        let same = pins.get(&reference).filter(|pin| pin.level == level);
        let pin = same.copied().unwrap_or(Pin { level, since: self.demand().now_ms() });
        self.put_record(&self.warm_kind(), &reference.to_string(), &pin).await?;
        self.take_up_pins().await?;
        self.warm(Some(&reference)).await
    }

    /// Has a model not kept any more; it leaves when its room is needed.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] if it was not kept; [`RegistryError::Metadata`].
    pub async fn keep_warm_no_more(self: &Arc<Self>, model: &ModelRef) -> Result<(), RegistryError> {
        let pins = self.demand().pins();
        // A name without its tag may mean the catalogue's default, as it did when it was pinned.
        let meant = match pins.contains_key(model) {
            true => model.clone(),
            false => self.pointer(model).await.map_or_else(|_| model.clone(), |(reference, _)| reference),
        };
        if !pins.contains_key(&meant) {
            let problem = format!("`{meant}` is not kept warm\nhint: `helios warm` lists what is");
            return Err(RegistryError::InvalidRequest { problem, code: ErrorCode::NotFound });
        }
        self.remove_record(&self.warm_kind(), &meant.to_string()).await?;
        self.take_up_pins().await
    }

    /// Which models should be where, which are, and why: all of those that the operator wants, that were asked for, or
    /// that workers hold; or those of one model. O(models).
    ///
    /// # Errors
    /// [`RegistryError::Metadata`].
    pub async fn warm(self: &Arc<Self>, model: Option<&ModelRef>) -> Result<Vec<WarmRecord>, RegistryError> {
        self.look().await?;
        let now_ms = self.demand().now_ms();
        let workers = self.members().snapshot().workers;
        let mut records: Vec<WarmRecord> = Vec::new();
        for expected in self.demand().expected(now_ms) {
            records.extend(records_of(&expected, &workers));
        }
        records.extend(held_only(&records, &workers));
        if let Some(model) = model {
            records.retain(|record| record.model == *model);
        }
        records.sort_by(|a, b| (&a.model, &a.place).cmp(&(&b.model, &b.place)));
        Ok(records)
    }

    /// Reads what the operator wants, and has the tiers keep it. A record that cannot be read is left out.
    pub(crate) async fn take_up_pins(self: &Arc<Self>) -> Result<(), RegistryError> {
        let mut pins = BTreeMap::new();
        for (key, value) in self.metadata().records(&self.warm_kind()).await? {
            match (key.parse::<ModelRef>(), serde_json::from_str::<Pin>(&value)) {
                (Ok(model), Ok(pin)) => drop(pins.insert(model, pin)),
                _ => tracing::warn!(
                    model = key,
                    "what is wanted of a model cannot be read; it is not kept warm"
                ),
            }
        }
        self.demand().set_pins(pins);
        self.pin_blobs().await?;
        self.demand().notify();
        Ok(())
    }

    /// The kind of these records: each store has its own where several share a database.
    fn warm_kind(&self) -> String {
        format!("warm/{}", self.store_id())
    }
}

/// The records of a model that is pinned or was asked for.
fn records_of(expected: &Expected, workers: &[WorkerLease]) -> Vec<WarmRecord> {
    let digest = expected.known.as_ref().map(|known| known.digest);
    let holders = digest.map(|digest| holders(&digest, workers)).unwrap_or_default();
    if digest.is_none() && expected.pin.is_none() {
        // It was asked for once, and has no tag any more.
        return Vec::new();
    }
    let mut records = vec![record_of_store(expected, &holders)];
    let is_wanted = expected.pin.is_some_and(|pin| pin.level == WarmLevel::Loaded);
    let at = |place, actual, reason| WarmRecord {
        place,
        wanted: is_wanted.then_some(WarmLevel::Loaded),
        actual,
        reason,
        missing_bytes: 0,
        problem: None,
        ..records[0].clone()
    };
    let mut of_workers: Vec<WarmRecord> = Vec::new();
    for worker in &holders {
        let reason = match is_wanted {
            true => WarmReason::Pinned,
            false => WarmReason::InUse { workers: vec![worker.clone()] },
        };
        of_workers.push(at(WarmPlace::Worker(worker.clone()), Some(WarmLevel::Loaded), reason));
    }
    if is_wanted && holders.is_empty() {
        of_workers.push(at(WarmPlace::AnyWorker, None, WarmReason::Pinned));
    }
    records.extend(of_workers);
    records
}

fn record_of_store(expected: &Expected, holders: &[String]) -> WarmRecord {
    let known = expected.known.as_ref();
    let chance = expected.chance;
    let likely = chance.filter(|chance| chance.is_likely).map(|_| WarmLevel::Disk);
    let reason = match (known.and_then(|known| known.evicted), chance) {
        _ if expected.pin.is_some() => WarmReason::Pinned,
        _ if !holders.is_empty() => WarmReason::InUse { workers: holders.to_vec() },
        (Some((at, probability)), _) => WarmReason::Evicted { at, probability: shown(probability) },
        (None, Some(chance)) => {
            WarmReason::Predicted { probability: shown(chance.probability), view: chance.view }
        }
        (None, None) => WarmReason::NeverUsed,
    };
    WarmRecord {
        model: expected.model.clone(),
        manifest: known.map(|known| known.digest),
        place: WarmPlace::Store,
        wanted: expected.pin.map(|pin| pin.level.min(WarmLevel::Memory)).or(likely),
        actual: known.and_then(|known| known.level),
        reason,
        since: expected.pin.map(|pin| pin.since).or(known.map(|known| known.since)).unwrap_or_default(),
        bytes: known.map_or(0, |known| known.bytes),
        missing_bytes: known.map_or(0, |known| known.missing_bytes),
        forecast: chance.map(|chance| Forecast {
            probability_of_hour: shown(chance.probability_of_hour),
            busy_minutes_of_day: chance.busy_minutes_of_day,
        }),
        problem: expected.problem.clone(),
    }
}

/// A probability as records have it: more digits would say nothing.
fn shown(probability: f64) -> f64 {
    (probability * 1e4).round() / 1e4
}

/// What workers hold that no record names: versions that their tags left behind, and models that nobody asked for yet.
fn held_only(records: &[WarmRecord], workers: &[WorkerLease]) -> Vec<WarmRecord> {
    let mut held = Vec::new();
    for worker in workers {
        let place = WarmPlace::Worker(worker.id.clone());
        for model in &worker.models {
            let is_told = |record: &WarmRecord| {
                record.place == place
                    && record.model == model.reference
                    && record.manifest == Some(model.manifest)
            };
            if records.iter().any(is_told) {
                continue;
            }
            held.push(WarmRecord {
                model: model.reference.clone(),
                manifest: Some(model.manifest),
                place: place.clone(),
                wanted: None,
                actual: Some(WarmLevel::Loaded),
                reason: WarmReason::InUse { workers: vec![worker.id.clone()] },
                since: 0,
                bytes: 0,
                missing_bytes: 0,
                forecast: None,
                problem: None,
            });
        }
    }
    held
}

/// The workers that have a version, in order.
fn holders(digest: &Digest, workers: &[WorkerLease]) -> Vec<String> {
    let has = |worker: &&WorkerLease| worker.models.iter().any(|model| model.manifest == *digest);
    workers.iter().filter(has).map(|worker| worker.id.clone()).collect()
}
