//! The BLAKE3 tree of a blob: the chaining values of its leaves of 256 KiB, from which any range is verified alone.
//!
//! BLAKE3 is a binary tree over chunks of 1 KiB (O'Connor et al., "BLAKE3: one function, fast everywhere", 2020,
//! section 2.1); a leaf here is the complete subtree of 256 of them. A tree counts only if its leaves merge to the root
//! that the manifest names: after that check, a leaf's value is as good as the root. A blob of one leaf needs no tree,
//! its root is the hash of the leaf.

use std::ops::Range;

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::{StorageError, hashing};

/// Bytes of a leaf; the last leaf of a blob may be shorter.
///
/// 32 bytes of tree for each: 0.012 % of the blob. Hashing a leaf fills the widest SIMD of BLAKE3 (16 chunks) 16 times.
pub const LEAF_BYTES: u64 = 256 << 10;

/// Bytes of a chaining value.
const VALUE_BYTES: usize = 32;

/// The leaves of one blob, known to merge to its root.
#[derive(Clone, PartialEq, Eq)]
pub struct Tree {
    root: [u8; 32],
    size: u64,
    /// Empty for a blob of one leaf or none.
    leaves: Vec<ChainingValue>,
}

impl Tree {
    /// The tree of `bytes`: O(bytes).
    pub fn build(bytes: &[u8]) -> Self {
        let mut hasher = TreeHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Takes the leaves of a blob with that root and size from their bytes. O(leaves).
    ///
    /// # Errors
    /// [`StorageError::TreeMismatch`] unless the leaves are as many as the size needs and merge to the root.
    pub fn from_bytes(root: [u8; 32], size: u64, bytes: &[u8]) -> Result<Self, StorageError> {
        let expected = Self::bytes_of(size);
        if bytes.len() as u64 != expected {
            let problem = format!("{} bytes of leaves, expected {expected}", bytes.len());
            return Err(StorageError::TreeMismatch { problem });
        }
        let (leaves, _) = bytes.as_chunks::<VALUE_BYTES>();
        if !leaves.is_empty() && merge_root(leaves) != root {
            let problem = format!("its leaves do not merge to the root {}", blake3::Hash::from_bytes(root));
            return Err(StorageError::TreeMismatch { problem });
        }
        Ok(Self { root, size, leaves: leaves.to_vec() })
    }

    /// The leaves as bytes: what [`from_bytes`](Self::from_bytes) takes, empty for a blob of one leaf or none.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.leaves.concat()
    }

    /// Bytes of the tree of a blob of `size` bytes.
    pub fn bytes_of(size: u64) -> u64 {
        if size <= LEAF_BYTES { 0 } else { size.div_ceil(LEAF_BYTES) * VALUE_BYTES as u64 }
    }

    /// The blob's BLAKE3 root.
    pub fn root(&self) -> [u8; 32] {
        self.root
    }

    /// Bytes of the blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The smallest range of whole leaves around `range`, which is cut at the end of the blob.
    pub fn align(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start.min(self.size) / LEAF_BYTES * LEAF_BYTES;
        start..range.end.next_multiple_of(LEAF_BYTES).clamp(start, self.size)
    }

    /// Checks that `bytes` are the blob's bytes from `offset` on. O(bytes).
    ///
    /// # Errors
    /// [`StorageError::TreeMismatch`] naming the first leaf that is wrong, or if the range is not one of whole leaves.
    pub fn verify(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let range = offset..offset.saturating_add(bytes.len() as u64);
        if range.end > self.size || self.align(&range) != range {
            let problem = format!("bytes {offset} to {} are not whole leaves", range.end);
            return Err(StorageError::TreeMismatch { problem });
        }
        if self.leaves.is_empty() {
            return self.verify_whole(bytes);
        }
        for (index, leaf) in bytes.chunks(LEAF_BYTES as usize).enumerate() {
            let offset = offset + index as u64 * LEAF_BYTES;
            if leaf_value(offset, leaf) != self.leaves[(offset / LEAF_BYTES) as usize] {
                return Err(wrong_bytes(offset, leaf));
            }
        }
        Ok(())
    }

    fn verify_whole(&self, bytes: &[u8]) -> Result<(), StorageError> {
        // An empty range of a blob that is not empty says nothing, and there is nothing to say.
        let is_empty_range = bytes.is_empty() && self.size > 0;
        if is_empty_range || *blake3::hash(bytes).as_bytes() == self.root {
            return Ok(());
        }
        Err(wrong_bytes(0, bytes))
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let root = blake3::Hash::from_bytes(self.root).to_hex();
        write!(f, "Tree({root}, {} bytes, {} leaves)", self.size, self.leaves.len())
    }
}

fn wrong_bytes(offset: u64, leaf: &[u8]) -> StorageError {
    let end = offset + leaf.len() as u64;
    StorageError::TreeMismatch { problem: format!("bytes {offset} to {end} are not the blob's") }
}

/// The chaining value of a leaf that is not the whole blob and not empty.
fn leaf_value(offset: u64, leaf: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hashing::blake3_of_memory(hasher.set_input_offset(offset), leaf);
    hasher.finalize_non_root()
}

/// The root over two leaves or more; the root of a single value is that value, which [`Tree`] never asks for.
fn merge_root(leaves: &[ChainingValue]) -> [u8; 32] {
    match split(leaves) {
        None => leaves.first().copied().unwrap_or_default(),
        Some((left, right)) => *merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).as_bytes(),
    }
}

fn merge(leaves: &[ChainingValue]) -> ChainingValue {
    match split(leaves) {
        None => leaves.first().copied().unwrap_or_default(),
        Some((left, right)) => merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash),
    }
}

/// Left and right subtree: the left one is the largest complete one that leaves something to the right.
fn split(leaves: &[ChainingValue]) -> Option<(&[ChainingValue], &[ChainingValue])> {
    (leaves.len() > 1).then(|| leaves.split_at(leaves.len().div_ceil(2).next_power_of_two()))
}

/// A blob's tree over the bytes seen so far: the BLAKE3 hash, with its leaves kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct TreeHasher {
    /// Leaves that are full and are not the only one.
    leaves: Vec<ChainingValue>,
    /// The leaf that is being filled.
    leaf: blake3::Hasher,
}

impl TreeHasher {
    /// Fastest when `bytes` are whole leaves. O(bytes).
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.leaf.count() == LEAF_BYTES {
                self.leaves.push(self.leaf.finalize_non_root());
                let offset = self.leaves.len() as u64 * LEAF_BYTES;
                self.leaf = blake3::Hasher::new();
                self.leaf.set_input_offset(offset);
            }
            let room = (LEAF_BYTES - self.leaf.count()) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            hashing::blake3_of_memory(&mut self.leaf, now);
            bytes = later;
        }
    }

    /// Bytes seen so far.
    pub(crate) fn size(&self) -> u64 {
        self.leaves.len() as u64 * LEAF_BYTES + self.leaf.count()
    }

    pub(crate) fn finish(mut self) -> Tree {
        let size = self.size();
        if self.leaves.is_empty() {
            return Tree { root: *self.leaf.finalize().as_bytes(), size, leaves: Vec::new() };
        }
        self.leaves.push(self.leaf.finalize_non_root());
        Tree { root: merge_root(&self.leaves), size, leaves: self.leaves }
    }
}
