//! What the owner of the store knows of its blobs and the tiers cannot see.

use std::collections::HashSet;
use std::fmt::Debug;

use helios_types::Digest;

/// Tells the tiers what must not move, and what could be had again.
pub trait Keeper: Debug + Send + Sync {
    /// The blobs that somebody relies on who has none of them open here: leased workers that map them, running pulls,
    /// readers of a model. They stay where they are. Asked whenever room has to be made, and a last time before a blob
    /// goes; may block.
    fn held(&self) -> HashSet<Digest>;

    /// Whether a blob could be fetched again from elsewhere - the fourth tier, remote: an object store, another
    /// registry, a hub - as far as is known without asking anybody. Only such a blob may lose its last local copy.
    /// Called for every blob of a directory that needs room: must not block.
    fn can_fetch(&self, digest: &Digest) -> bool;

    /// Deletes what was derived from blobs and can be made again, about `bytes` of it, because the main directory's file
    /// system is full; returns the bytes that went. May block.
    fn give_up_derived(&self, bytes: u64) -> u64;
}

/// A store that nobody else relies on, and that is all there is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoKeeper;

impl Keeper for NoKeeper {
    fn held(&self) -> HashSet<Digest> {
        HashSet::new()
    }

    fn can_fetch(&self, _digest: &Digest) -> bool {
        false
    }

    fn give_up_derived(&self, _bytes: u64) -> u64 {
        0
    }
}
