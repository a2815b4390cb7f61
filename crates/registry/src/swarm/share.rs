//! A blob on its way here, as others see it: what is in the file already, and the pieces that wait to be written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use helios_runtime::Clock;
use helios_storage::{BlobInfo, Tree};
use tokio::sync::Notify;

use crate::transfer::PIECE_BYTES;

/// How long somebody waits here for a piece that is on its way.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The download of one blob. Holds no bytes of its own: pieces are those that the download holds until they are written.
#[derive(Debug)]
pub(crate) struct Share {
    size: u64,
    /// What vouches for pieces; without it, there are none before the blob is whole.
    tree: Option<Arc<Tree>>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes in the partial file.
    written: u64,
    /// Pieces behind them.
    waiting: BTreeMap<u64, Bytes>,
    end: Option<End>,
}

/// How the download ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Stored(BlobInfo),
    Failed,
}

/// Where a piece is.
#[derive(Debug)]
pub(crate) enum Found {
    /// Here.
    Bytes(Bytes),
    /// In the partial file.
    Written,
}

impl Share {
    pub(crate) fn new(size: u64, tree: Option<Arc<Tree>>) -> Self {
        Self { size, tree, state: Mutex::default(), changed: Notify::new() }
    }

    /// Bytes of the blob.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether these are the blob's bytes from `start` on, as far as is known already. O(bytes).
    pub(crate) fn vouches(&self, start: u64, bytes: &[u8]) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.verify(start, bytes).is_ok())
    }

    /// A piece has come and was checked.
    pub(crate) fn publish(&self, index: u64, bytes: Bytes) {
        let mut state = self.lock();
        if index * PIECE_BYTES >= state.written {
            state.waiting.insert(index, bytes);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// So many bytes are in the file.
    pub(crate) fn wrote(&self, bytes: u64) {
        let mut state = self.lock();
        state.written = bytes;
        let size = self.size;
        state.waiting.retain(|index, _| ((index + 1) * PIECE_BYTES).min(size) > bytes);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The blob is in the store.
    pub(crate) fn finish(&self, info: BlobInfo) {
        self.lock().end = Some(End::Stored(info));
        self.changed.notify_waiters();
    }

    /// The download has ended; badly, unless it [finished](Self::finish). Returns whether badly.
    pub(crate) fn end(&self) -> bool {
        let is_failed = matches!(*self.lock().end.get_or_insert(End::Failed), End::Failed);
        self.changed.notify_waiters();
        is_failed
    }

    /// Waits until the blob is in the store; `None` if it does not get there in time.
    pub(crate) async fn stored(&self) -> Option<BlobInfo> {
        let ended = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                match self.lock().end {
                    Some(End::Stored(info)) => return Some(info),
                    Some(End::Failed) => return None,
                    None => {}
                }
                changed.await;
            }
        };
        Clock.timeout(WAIT_MAX, ended).await.ok().flatten()
    }

    /// Waits for a piece; `None` if it does not come in time.
    pub(crate) async fn wait(&self, index: u64) -> Option<Found> {
        let come = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                {
                    let state = self.lock();
                    if let Some(bytes) = state.waiting.get(&index) {
                        return Some(Found::Bytes(bytes.clone()));
                    }
                    if ((index + 1) * PIECE_BYTES).min(self.size) <= state.written {
                        return Some(Found::Written);
                    }
                    if matches!(state.end, Some(End::Failed)) {
                        return None;
                    }
                }
                changed.await;
            }
        };
        Clock.timeout(WAIT_MAX, come).await.ok().flatten()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
