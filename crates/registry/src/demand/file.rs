//! The history as a file, `history.json` in the store: small, losable, written whole. What it says is believed only if
//! all of it makes sense.

use std::path::{Path, PathBuf};

use helios_prefetch::trace::Trace;
use helios_prefetch::{EventKind, ModelCost, ModelIndex};
use helios_storage::DurableFiles;
use helios_types::ModelRef;
use serde::{Deserialize, Serialize};

use super::history::{EVENTS_MAX, Entry, History, MODELS_MAX};
use crate::registry::invalid_request;
use crate::{RegistryError, files};

/// The version of the form.
const VERSION: u32 = 1;

/// The file in a store's folder.
pub(crate) fn path(store: &Path) -> PathBuf {
    store.join("history.json")
}

/// What is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    version: u32,
    models: Vec<SavedModel>,
    /// Milliseconds since the event before (the first: since 1970), the model's place in `models`, and 0 for a request
    /// or 1 for a deployment.
    events: Vec<(u64, ModelIndex, u8)>,
    /// Bytes that may be prefetched.
    pub(crate) allowance_bytes: u64,
    /// Models that were prefetched and not used since, with the bytes spent.
    pub(crate) unused: Vec<(ModelIndex, u64)>,
    /// Uses that found the model here, and all uses.
    pub(crate) found: u64,
    pub(crate) uses: u64,
}

/// A model of the history.
#[derive(Debug, Serialize, Deserialize)]
struct SavedModel {
    model: ModelRef,
    /// Bytes of all its files; 0 where that was not known.
    bytes: u64,
}

impl Saved {
    /// A history, and what each model has of bytes.
    pub(crate) fn new(history: &History, bytes: &[u64]) -> Self {
        let models = history.models().iter().enumerate().map(|(number, model)| SavedModel {
            model: model.clone(),
            bytes: bytes.get(number).copied().unwrap_or(0),
        });
        let mut before = 0;
        let events = history.events().map(|entry| {
            let since = entry.at_ms - before;
            before = entry.at_ms;
            (since, entry.model, u8::from(entry.kind == EventKind::Deploy))
        });
        Self { version: VERSION, models: models.collect(), events: events.collect(), ..Self::default() }
    }

    /// Reads the bytes of a file.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let saved: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if saved.version != VERSION {
            return Err(format!("its form has version {}, this release reads {VERSION}", saved.version));
        }
        let (models, events) = (saved.models.len(), saved.events.len());
        if models > MODELS_MAX || events > EVENTS_MAX {
            return Err(format!(
                "{models} models and {events} events, at most {MODELS_MAX} and {EVENTS_MAX}"
            ));
        }
        let mut numbers =
            saved.events.iter().map(|event| event.1).chain(saved.unused.iter().map(|entry| entry.0));
        match numbers.find(|number| *number >= models) {
            Some(number) => Err(format!("it names model {number} of {models}")),
            None => Ok(saved),
        }
    }

    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// [`RegistryError::Storage`]; [`RegistryError::InvalidManifest`] if it makes no sense.
    pub(crate) fn load(files: &DurableFiles, path: &Path) -> Result<Option<Self>, RegistryError> {
        if !crate::small_files::exists(files, path)? {
            return Ok(None);
        }
        let bytes = files::read(files, path)?;
        let subject = || format!("`{}`", path.display());
        let invalid = |problem| RegistryError::InvalidManifest { subject: subject(), problem };
        Self::parse(&bytes).map(Some).map_err(invalid)
    }

    /// Writes the file. Blocks.
    pub(crate) fn save(&self, files: &DurableFiles, path: &Path) -> Result<(), RegistryError> {
        let bytes = serde_json::to_vec(self).expect("invariant: a history has only string keys");
        Ok(files.write_atomic(path, &bytes)?)
    }

    /// The history.
    pub(crate) fn history(&self) -> History {
        let models = self.models.iter().map(|saved| saved.model.clone()).collect();
        History::new(models, self.entries())
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let kind = |code: u8| if code == 0 { EventKind::Request } else { EventKind::Deploy };
        self.events.iter().scan(0_u64, move |at_ms, (since, model, code)| {
            *at_ms = at_ms.saturating_add(*since);
            Some(Entry { at_ms: *at_ms, model: *model, kind: kind(*code) })
        })
    }
}

/// The history in the bytes of a store's `history.json` as a trace to replay, its models fetched at 0.1 s and a gigabit.
///
/// # Errors
/// [`RegistryError::InvalidRequest`] if they are none, or name no model whose size is known.
pub fn recorded_trace(bytes: &[u8]) -> Result<Trace, RegistryError> {
    let saved = Saved::parse(bytes).map_err(|problem| {
        invalid_request(format!(
            "this is no history of a store: {problem}\nhint: a store keeps it as history.json in its folder"
        ))
    })?;
    let costs: Vec<ModelCost> = saved.models.iter().map(|saved| super::cost(saved.bytes)).collect();
    let events = saved.entries().filter(|entry| costs[entry.model].bytes > 0).map(|entry| entry.event());
    let events: Vec<_> = events.collect();
    if events.is_empty() {
        let problem =
            "this history has no event of a model whose size is known\nhint: it grows while a server runs";
        return Err(invalid_request(problem));
    }
    Ok(Trace { events, costs })
}

#[cfg(test)]
mod tests {
    use helios_prefetch::EventKind;
    use helios_types::ModelRef;
    use proptest::prelude::*;

    use super::{Saved, recorded_trace};
    use crate::demand::history::History;

    fn history(notes: &[(u8, bool, u32)]) -> History {
        let (mut history, mut at) = (History::default(), 1_700_000_000_000);
        for (model, is_deployed, later) in notes {
            at += u64::from(*later);
            let model: ModelRef = format!("m{model}").parse().expect("a name");
            let kind = if *is_deployed { EventKind::Deploy } else { EventKind::Request };
            history.note(&model, kind, at);
        }
        history
    }

    proptest! {
        #[test]
        fn a_history_is_the_same_after_it_was_kept(notes: Vec<(u8, bool, u32)>) {
            let history = history(&notes);
            let bytes = serde_json::to_vec(&Saved::new(&history, &[])).expect("JSON");
            let again = Saved::parse(&bytes).expect("parsed").history();
            prop_assert_eq!(history.models(), again.models());
            prop_assert!(history.events().eq(again.events()));
        }

        #[test]
        fn whatever_is_torn_or_flipped_is_refused_or_still_a_history(
            notes: Vec<(u8, bool, u32)>, cut: prop::sample::Index, flip: prop::sample::Index, bit in 0..8_u8,
        ) {
            let mut bytes = serde_json::to_vec(&Saved::new(&history(&notes), &[7])).expect("JSON");
            let torn = &bytes[..cut.index(bytes.len())];
            prop_assert!(Saved::parse(torn).is_err());
            let at = flip.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Ok(saved) = Saved::parse(&bytes) {
                saved.history();
                drop(recorded_trace(&bytes));
            }
        }
    }

    #[test]
    fn a_recorded_history_is_a_trace() {
        let history = history(&[(1, false, 0), (2, true, 90_000), (1, false, 90_000)]);
        let trace =
            |bytes: &[u64]| recorded_trace(&serde_json::to_vec(&Saved::new(&history, bytes)).expect("JSON"));
        let whole = trace(&[5, 6]).expect("a trace");
        assert_eq!((whole.events.len(), whole.bytes()), (3, 11));
        assert_eq!(trace(&[5]).expect("a trace").events.len(), 2, "a size is missing");
        assert!(trace(&[]).expect_err("no size").to_string().contains("hint: "));
        assert!(recorded_trace(b"{").expect_err("torn").to_string().contains("history.json"));
    }
}
