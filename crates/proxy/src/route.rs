//! Which worker gets a request: of the ready ones that serve this model version, the one that owes the fewest tokens.
//!
//! What a worker owes is what its next steps have to compute: every prompt token that waits to be read, and one token
//! for each sequence. The worker's own word (`Watch`) covers what other proxies sent, but is a moment old; this
//! proxy's count of its own open streams is exact, but only its own. The larger of both is taken, so that a burst is
//! spread before the first update comes back. Equals take turns by the streams this proxy has open there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use helios_types::Digest;

use crate::fleet::{Fleet, TrackedWorker};

/// What a request needs of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) manifest_digest: Digest,
    /// Prompt and answer together.
    pub(crate) context_tokens: u32,
}

/// Picks workers.
#[derive(Debug, Default)]
pub(crate) struct Router {
    /// Where the search begins, so that equals take turns.
    turn: AtomicUsize,
}

impl Router {
    /// The best worker for `need` that is not `failed`. O(workers).
    pub(crate) fn pick(
        &self,
        fleet: &Fleet,
        need: Need,
        failed: Option<&TrackedWorker>,
    ) -> Option<Arc<TrackedWorker>> {
        let workers = fleet.workers();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % workers.len().max(1);
        let in_turn = workers[first..].iter().chain(&workers[..first]);
        let fit = in_turn.filter(|worker| failed.is_none_or(|failed| !std::ptr::eq(failed, worker.as_ref())));
        let loads = fit.filter_map(|worker| Some((load(worker, need)?, worker)));
        loads.min_by_key(|(load, _)| *load).map(|(_, worker)| worker.clone())
    }
}

/// (tokens owed, streams of this proxy), or nothing for a worker that cannot take the request.
fn load(worker: &TrackedWorker, need: Need) -> Option<(u64, u64)> {
    if worker.member.manifest_digest != need.manifest_digest {
        return None;
    }
    let view = worker.view()?;
    let status = &view.status;
    let fits = view.model.context_tokens_max >= need.context_tokens;
    if !status.ready || status.draining || !fits {
        return None;
    }
    let in_flight = worker.in_flight();
    let sequences = u64::from(status.running_sequences) + u64::from(status.queued_sequences);
    let owed = status.queued_prefill_tokens.max(worker.unread_tokens()) + sequences.max(in_flight);
    Some((owed, in_flight))
}
