//! Which prefixes the engine holds, told as numbered changes so that a router can follow.

use helios_types::BlockHash;
use tokio::sync::broadcast;

/// Changes a slow follower may fall behind before it has to ask for a new feed.
pub(crate) const DELTAS_BUFFERED: usize = 1024;

/// What one step changed in the prefix cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDelta {
    /// Counts up by one; a gap means that deltas were lost and a new feed is needed.
    pub sequence: u64,
    /// The changes, in the order in which they happened.
    pub changes: Vec<CacheChange>,
}

/// One change of the prefix cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheChange {
    /// A block of this hash can be reused from now on.
    Stored(BlockHash),
    /// The last block of this hash was given to other tokens.
    Removed(BlockHash),
}

/// A snapshot of the prefix cache, and every change after it.
#[derive(Debug)]
pub struct CacheFeed {
    /// Number of the last delta that `stored` includes; the first that comes has the next number.
    pub sequence: u64,
    /// The hashes that can be reused, in no order.
    pub stored: Vec<BlockHash>,
    /// The changes; `Lagged` means: ask for a new feed.
    pub deltas: broadcast::Receiver<CacheDelta>,
}
