//! Who holds which KV block, and which blocks can be reused by their contents.
//!
//! A block is *held* (by one or more sequences), *cached* (held by nobody, but its hash is known and a later prompt may
//! take it) or *empty*. New contents go into empty blocks first, then into the cached one that was let go the longest
//! ago. Only whole blocks have a hash, and held ones are never written again, so sharing needs no copies.

use std::collections::BTreeMap;

use helios_types::BlockHash;

use crate::CacheChange;

/// Number of a block in the KV pool.
pub(crate) type BlockId = u32;

struct Block {
    holders: usize,
    hash: Option<BlockHash>,
    /// When it was last let go; its key among the cached.
    released: u64,
}

/// The books of a pool of KV blocks.
pub(crate) struct BlockManager {
    blocks: Vec<Block>,
    empty: Vec<BlockId>,
    /// By the moment they were let go.
    cached: BTreeMap<u64, BlockId>,
    by_hash: BTreeMap<BlockHash, BlockId>,
    releases: u64,
    changes: Vec<CacheChange>,
}

impl BlockManager {
    /// A pool of `count` empty blocks.
    pub(crate) fn new(count: usize) -> Self {
        let count = BlockId::try_from(count).expect("invariant: the engine checked the number of blocks");
        let block = |_| Block { holders: 0, hash: None, released: 0 };
        Self {
            blocks: (0..count).map(block).collect(),
            empty: (0..count).rev().collect(),
            cached: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            releases: 0,
            changes: Vec::new(),
        }
    }

    /// Blocks in all.
    pub(crate) fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that can be given out: empty and cached ones.
    pub(crate) fn free(&self) -> usize {
        self.empty.len() + self.cached.len()
    }

    /// Blocks that somebody holds.
    pub(crate) fn used(&self) -> usize {
        self.total() - self.free()
    }

    /// Blocks held by nobody whose contents can be reused.
    pub(crate) fn cached(&self) -> usize {
        self.cached.len()
    }

    /// Holds a free block for new contents; the oldest cached one loses its own. O(log n).
    pub(crate) fn allocate(&mut self) -> Option<BlockId> {
        let id = match self.empty.pop() {
            Some(id) => id,
            None => self.evict()?,
        };
        self.blocks[id as usize].holders = 1;
        Some(id)
    }

    /// Holds the block with these contents, if there is one. O(log n).
    pub(crate) fn acquire(&mut self, hash: &BlockHash) -> Option<BlockId> {
        let id = *self.by_hash.get(hash)?;
        let block = &mut self.blocks[id as usize];
        if block.holders == 0 {
            self.cached.remove(&block.released);
        }
        block.holders += 1;
        Some(id)
    }

    /// Makes a held block, now full and final, known by its contents. Where two sequences computed the same, the first
    /// stays the known one.
    pub(crate) fn store(&mut self, id: BlockId, hash: BlockHash) {
        let block = &mut self.blocks[id as usize];
        assert!(
            block.holders > 0 && block.hash.is_none(),
            "block {id} is stored while free or for the second time"
        );
        if let std::collections::btree_map::Entry::Vacant(entry) = self.by_hash.entry(hash) {
            entry.insert(id);
            block.hash = Some(hash);
            self.changes.push(CacheChange::Stored(hash));
        }
    }

    /// Lets go of a block. The last holder leaves it cached if its contents are known, else empty.
    pub(crate) fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        assert!(block.holders > 0, "block {id} is released more often than held");
        block.holders -= 1;
        if block.holders > 0 {
            return;
        }
        if block.hash.is_none() {
            return self.empty.push(id);
        }
        self.releases += 1;
        block.released = self.releases;
        self.cached.insert(self.releases, id);
    }

    /// Lets go of a sequence's blocks, the last first, so that a prefix outlives what follows it.
    pub(crate) fn release_all(&mut self, ids: &mut Vec<BlockId>) {
        while let Some(id) = ids.pop() {
            self.release(id);
        }
    }

    /// What changed among the known blocks since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<CacheChange> {
        std::mem::take(&mut self.changes)
    }

    /// The hashes that [`BlockManager::acquire`] would find.
    pub(crate) fn stored(&self) -> impl Iterator<Item = BlockHash> + '_ {
        self.by_hash.keys().copied()
    }

    fn evict(&mut self) -> Option<BlockId> {
        let (_, id) = self.cached.pop_first()?;
        let hash = self.blocks[id as usize].hash.take().expect("invariant: cached blocks have a hash");
        self.by_hash.remove(&hash);
        self.changes.push(CacheChange::Removed(hash));
        Some(id)
    }

    /// Checks that every block is in exactly one state and held as often as `held` says.
    #[cfg(test)]
    pub(crate) fn assert_consistent(&self, held: impl Iterator<Item = BlockId>) {
        let mut holders = vec![0; self.total()];
        held.for_each(|id| holders[id as usize] += 1);
        for (id, block) in self.blocks.iter().enumerate() {
            assert_eq!(block.holders, holders[id], "holders of block {id}");
            let empty = self.empty.iter().filter(|&&empty| empty as usize == id).count();
            let cached = self.cached.values().filter(|&&cached| cached as usize == id).count();
            assert_eq!(empty + cached, usize::from(block.holders == 0), "free entries of block {id}");
            assert!(cached == 0 || block.hash.is_some(), "cached block {id} has no hash");
            if let Some(hash) = block.hash {
                assert_eq!(self.by_hash.get(&hash), Some(&(id as BlockId)), "hash of block {id}");
            }
        }
        assert_eq!(self.by_hash.len(), self.blocks.iter().filter(|block| block.hash.is_some()).count());
    }
}

#[cfg(test)]
mod tests {
    use helios_types::BlockHash;

    use super::BlockManager;
    use crate::CacheChange::{Removed, Stored};

    fn hash(byte: u8) -> BlockHash {
        BlockHash::from_bytes([byte; 16])
    }

    #[test]
    fn contents_are_found_until_the_block_is_needed() {
        let mut blocks = BlockManager::new(2);
        let (first, second) = (blocks.allocate().unwrap(), blocks.allocate().unwrap());
        assert_eq!(blocks.allocate(), None);
        blocks.store(first, hash(1));
        blocks.store(second, hash(2));
        blocks.release(first);
        blocks.release(second);
        assert_eq!(blocks.acquire(&hash(1)), Some(first));
        blocks.release(first);
        assert_eq!(blocks.allocate(), Some(second), "the one released longest ago goes first");
        assert_eq!(blocks.acquire(&hash(2)), None);
        assert_eq!(blocks.take_changes(), [Stored(hash(1)), Stored(hash(2)), Removed(hash(2))]);
        blocks.assert_consistent([second].into_iter());
    }

    #[test]
    fn a_shared_block_is_free_only_after_its_last_holder() {
        let mut blocks = BlockManager::new(1);
        let id = blocks.allocate().unwrap();
        blocks.store(id, hash(1));
        assert_eq!(blocks.acquire(&hash(1)), Some(id));
        blocks.release(id);
        assert_eq!((blocks.free(), blocks.used()), (0, 1));
        blocks.release(id);
        assert_eq!((blocks.free(), blocks.cached()), (1, 1));
    }

    #[test]
    fn the_first_of_two_equal_blocks_stays_known() {
        let mut blocks = BlockManager::new(2);
        let (first, second) = (blocks.allocate().unwrap(), blocks.allocate().unwrap());
        blocks.store(first, hash(1));
        blocks.store(second, hash(1));
        blocks.release(second);
        assert_eq!(blocks.cached(), 0, "the second copy is empty at once");
        assert_eq!(blocks.acquire(&hash(1)), Some(first));
        blocks.assert_consistent([first, first].into_iter());
    }
}
