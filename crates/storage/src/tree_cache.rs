//! Trees of blobs that are read in ranges, kept in memory so that each is read and merged once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use helios_types::Digest;

use crate::{BlobInfo, Tree};

/// Bytes of all kept trees: those of 500 GB of blobs.
const BYTES_MAX: u64 = 64 << 20;

/// The trees last used, the oldest first; those at the front go when there are too many bytes.
#[derive(Debug, Default)]
pub(crate) struct TreeCache(Mutex<VecDeque<(Digest, Arc<Tree>)>>);

impl TreeCache {
    /// The tree of a blob, if it is kept and the one that `info` names. O(trees kept).
    pub(crate) fn get(&self, info: &BlobInfo) -> Option<Arc<Tree>> {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = trees.iter().position(|(digest, _)| *digest == info.digest)?;
        let entry = trees.remove(position)?;
        let tree = Arc::clone(&entry.1);
        trees.push_back(entry);
        (tree.root() == info.blake3 && tree.size() == info.size).then_some(tree)
    }

    pub(crate) fn insert(&self, digest: Digest, tree: &Arc<Tree>) {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.retain(|(kept, _)| *kept != digest);
        trees.push_back((digest, Arc::clone(tree)));
        let mut bytes: u64 = trees.iter().map(|(_, tree)| Tree::bytes_of(tree.size())).sum();
        while bytes > BYTES_MAX
            && let Some((_, oldest)) = trees.pop_front()
        {
            bytes -= Tree::bytes_of(oldest.size());
        }
    }
}
