//! What was asked for at a proxy, on its way to the registry: gathered by model, reported in batches, and lost rather than
//! in the way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helios_registry::{ModelStore, ModelUse, USES_MAX};
use helios_runtime::{Clock, Instant, Tasks};
use helios_types::ModelRef;

/// How often the registry is told.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How often a registry that cannot be reached is told.
const RETRY_EVERY: Duration = Duration::from_secs(20);

/// Uses that were not reported yet: of [`USES_MAX`] models at most, others are not noted.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<HashMap<ModelRef, Gathered>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gathered {
    count: u32,
    last: Instant,
}

impl Uses {
    /// Notes a use.
    pub(crate) fn note(&self, model: &ModelRef) {
        self.add(model, Gathered { count: 1, last: Clock.now() });
    }

    /// Reports to the registry of `store` until `tasks` stop.
    pub(crate) fn keep_reported(self: &Arc<Self>, store: ModelStore, tasks: &Tasks) {
        let (uses, shutdown) = (Arc::clone(self), tasks.shutdown().clone());
        tasks.spawn("report uses", async move {
            let reports = async {
                let mut pause = REPORT_EVERY;
                loop {
                    Clock.sleep(pause).await;
                    pause = if uses.report(&store).await { REPORT_EVERY } else { RETRY_EVERY };
                }
            };
            shutdown.race(reports).await;
        });
    }

    /// Reports what is there. Returns whether the registry took it; else it waits for the next time.
    async fn report(&self, store: &ModelStore) -> bool {
        let gathered = std::mem::take(&mut *self.gathered());
        if gathered.is_empty() {
            return true;
        }
        let now = Clock.now();
        let told = |(model, gathered): (&ModelRef, &Gathered)| ModelUse {
            model: model.clone(),
            count: gathered.count,
            ago_ms: u64::try_from((now - gathered.last).as_millis()).unwrap_or(u64::MAX),
        };
        match store.note_uses(gathered.iter().map(told).collect()).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "the registry does not hear what was asked for");
                gathered.iter().for_each(|(model, gathered)| self.add(model, *gathered));
                false
            }
        }
    }

    fn add(&self, model: &ModelRef, more: Gathered) {
        let mut all = self.gathered();
        if let Some(known) = all.get_mut(model) {
            known.count = known.count.saturating_add(more.count);
            known.last = known.last.max(more.last);
        } else if all.len() < USES_MAX {
            all.insert(model.clone(), more);
        }
    }

    fn gathered(&self) -> MutexGuard<'_, HashMap<ModelRef, Gathered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use helios_registry::{ModelStore, Registry, RegistryClient, RegistryConfig, USES_MAX};
    use helios_types::ModelRef;

    use super::Uses;

    fn name(text: &str) -> ModelRef {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn what_a_lost_registry_misses_is_kept_within_bounds_and_told_later() {
        helios_runtime::install_tls_provider();
        let folder = tempfile::tempdir().unwrap();
        let uses = Uses::default();
        (0..USES_MAX + 5).for_each(|number| uses.note(&name(&format!("m{number}"))));
        uses.note(&name("m0"));
        let client = RegistryClient::new("http://127.0.0.1:1", None).unwrap();
        let lost = ModelStore::remote(client, &folder.path().join("cache")).unwrap();
        assert!(!uses.report(&lost).await);
        assert_eq!(uses.gathered().len(), USES_MAX);
        assert_eq!(uses.gathered()[&name("m0")].count, 2);
        let registry = Registry::open(&folder.path().join("store"), RegistryConfig::default()).await.unwrap();
        assert!(uses.report(&ModelStore::Local(registry)).await);
        assert!(uses.gathered().is_empty());
    }
}
