//! Memory profiles of model versions, so that a question of placement costs no call to the registry.
//!
//! A version never changes, so that an entry is right for ever; the one used longest ago leaves at the bound.

use std::sync::{Arc, Mutex, PoisonError};

use helios_api::ApiError;
use helios_model::MemoryProfile;
use helios_runtime::{Clock, Instant};
use helios_types::Digest;

use crate::{Models, metrics};

/// Profiles that are kept; each has some 2 KB.
const PROFILES_MAX: usize = 256;

/// A bounded cache by manifest digest, the version used last at the end.
#[derive(Debug, Default)]
pub(crate) struct Profiles {
    entries: Mutex<Vec<Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    digest: Digest,
    profile: Arc<MemoryProfile>,
    learned_at: Instant,
}

impl Profiles {
    /// The profile of one version, from the store if it is not here.
    pub(crate) async fn get(
        &self,
        models: &dyn Models,
        digest: Digest,
    ) -> Result<Arc<MemoryProfile>, ApiError> {
        if let Some(profile) = self.touch(digest) {
            metrics::profile_hit();
            return Ok(profile);
        }
        metrics::profile_miss();
        let profile = Arc::new(models.memory_profile(digest).await?);
        self.insert(Entry { digest, profile: Arc::clone(&profile), learned_at: Clock.now() });
        Ok(profile)
    }

    /// Seconds since the oldest entry was learned; 0 for none.
    pub(crate) fn age_seconds_max(&self) -> f64 {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = entries.iter().map(|entry| entry.learned_at).min();
        oldest.map_or(0.0, |oldest| (Clock.now() - oldest).as_secs_f64())
    }

    fn touch(&self, digest: Digest) -> Option<Arc<MemoryProfile>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let index = entries.iter().position(|entry| entry.digest == digest)?;
        let entry = entries.remove(index);
        let profile = Arc::clone(&entry.profile);
        entries.push(entry);
        Some(profile)
    }

    fn insert(&self, entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|known| known.digest != entry.digest);
        if entries.len() >= PROFILES_MAX {
            entries.remove(0);
        }
        entries.push(entry);
    }
}
