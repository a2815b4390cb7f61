//! One transfer of a digest at a time: who comes second waits, and finds the file there or goes on where the first
//! stopped. While somebody waits who is in no [`pace`], whoever fetches keeps to none.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use helios_storage::BlobInfo;
use helios_types::Digest;
use tokio::sync::OwnedMutexGuard;

use crate::pace::{self, Scope};

/// The digests that are being fetched.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Digest, Weak<Slot>>>);

/// A digest that is being fetched.
#[derive(Debug, Default)]
struct Slot {
    brought: Arc<tokio::sync::Mutex<Option<BlobInfo>>>,
    line: Mutex<Line>,
}

/// Who fetches a digest, and who waits for it.
#[derive(Debug, Default)]
struct Line {
    /// Who fetches, if that is at a bounded rate.
    fetcher: Option<Arc<Scope>>,
    /// How many wait who are not bound themselves.
    waiting: usize,
}

/// The right to fetch a digest; holds what somebody before brought.
#[derive(Debug)]
pub(crate) struct Turn {
    brought: OwnedMutexGuard<Option<BlobInfo>>,
    slot: Arc<Slot>,
}

/// Somebody in line who is not bound.
struct Waiting<'a>(&'a Slot);

impl Turns {
    /// Waits until nobody else fetches `digest`. Bounded by those who fetch: each has limits of its own.
    pub(crate) async fn take(&self, digest: Digest) -> Turn {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            slots.retain(|_, slot| slot.strong_count() > 0);
            let slot = slots.get(&digest).and_then(Weak::upgrade).unwrap_or_default();
            slots.insert(digest, Arc::downgrade(&slot));
            slot
        };
        let scope = pace::current();
        let waiting = scope.is_none().then(|| Waiting::new(&slot));
        let brought = Arc::clone(&slot.brought).lock_owned().await;
        drop(waiting);
        slot.line().fetched_by(scope);
        Turn { brought, slot }
    }
}

impl Slot {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn fetched_by(&mut self, scope: Option<Arc<Scope>>) {
        self.fetcher.iter().for_each(|scope| scope.waits_end(self.waiting));
        self.fetcher = scope;
        self.fetcher.iter().for_each(|scope| scope.waits_begin(self.waiting));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.slot.line().fetched_by(None);
    }
}

impl Deref for Turn {
    type Target = Option<BlobInfo>;

    fn deref(&self) -> &Self::Target {
        &self.brought
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.brought
    }
}

impl<'a> Waiting<'a> {
    fn new(slot: &'a Slot) -> Self {
        let mut line = slot.line();
        line.waiting += 1;
        line.fetcher.iter().for_each(|scope| scope.waits_begin(1));
        drop(line);
        Self(slot)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.0.line();
        line.waiting -= 1;
        line.fetcher.iter().for_each(|scope| scope.waits_end(1));
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use helios_types::Digest;

    use super::Turns;
    use crate::pace::{self, Pace};

    /// At a byte a second: longer than anybody waits.
    const LONG: u64 = 1 << 40;

    #[tokio::test]
    async fn who_waits_unbound_frees_the_fetch_and_who_is_bound_does_not() {
        let (turns, digest, pace) = (Turns::default(), Digest::from_bytes([1; 32]), Pace::new(1));
        let fetch = async {
            let _turn = turns.take(digest).await;
            pace::keep(LONG).await;
            pace::keep(LONG).await;
        };
        let mut ahead = Box::pin(pace::scope(pace.clone(), fetch));
        assert!(poll!(&mut ahead).is_pending());
        let mut bound = Box::pin(pace::scope(pace, turns.take(digest)));
        assert!(poll!(&mut bound).is_pending());
        let mut other = Box::pin(turns.take(Digest::from_bytes([2; 32])));
        assert!(poll!(&mut other).is_ready(), "nobody fetches it");
        assert!(poll!(&mut ahead).is_pending(), "nobody waits for it who is not bound");
        drop(bound);

        let mut request = Box::pin(turns.take(digest));
        assert!(poll!(&mut request).is_pending());
        assert!(poll!(&mut ahead).is_ready(), "it is waited for");
        drop(request.await);
    }

    #[tokio::test]
    async fn a_fetch_that_nobody_waits_for_any_more_is_bound_again() {
        let (turns, digest) = (Turns::default(), Digest::from_bytes([1; 32]));
        let before = turns.take(digest).await;
        let fetch = async {
            let _turn = turns.take(digest).await;
            pace::keep(LONG).await;
            tokio::task::yield_now().await;
            pace::keep(LONG).await;
        };
        let mut ahead = Box::pin(pace::scope(Pace::new(1), fetch));
        assert!(poll!(&mut ahead).is_pending(), "somebody else fetches");
        let mut request = Box::pin(turns.take(digest));
        assert!(poll!(&mut request).is_pending());
        drop(before);
        assert!(poll!(&mut ahead).is_pending(), "past the first wait: the request was there before");
        drop(request);
        for _ in 0..3 {
            assert!(poll!(&mut ahead).is_pending());
        }
    }
}
