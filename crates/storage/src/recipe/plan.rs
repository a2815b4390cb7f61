//! Which parts of a file are elsewhere already: a pure computation over hashes.

use std::collections::HashMap;
use std::ops::Range;

use helios_types::Digest;

use super::Recipe;
use crate::tensor_hashes::TensorHashes;

/// Tensors below this are not worth a part of their own.
const SHARED_TENSOR_BYTES_MIN: u64 = 4096;

/// What the file's own tensors begin at multiples of.
pub(super) const PAGE_BYTES: u64 = 4096;

/// When a file becomes a recipe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DedupLimits {
    /// Share of the file's bytes that others must have, 0 to 1.
    pub shared_share_min: f64,
    /// Bytes of disk that it must save.
    pub saved_bytes_min: u64,
}

impl Default for DedupLimits {
    fn default() -> Self {
        Self { shared_share_min: 0.2, saved_bytes_min: 16 << 20 }
    }
}

/// The tensors of whole blobs by hash.
#[derive(Clone, Debug, Default)]
pub struct TensorIndex(HashMap<([u8; 32], u64), (Digest, u64)>);

impl TensorIndex {
    /// Adds the tensors of a whole blob. Of equal tensors the first added counts.
    pub fn add(&mut self, blob: Digest, hashes: &TensorHashes) {
        for tensor in &hashes.0 {
            let length = tensor.range.end - tensor.range.start;
            if length >= SHARED_TENSOR_BYTES_MIN {
                self.0.entry((tensor.hash, length)).or_insert((blob, tensor.range.start));
            }
        }
    }
}

impl TensorIndex {
    /// Adds the tensors that are in a recipe's own blob; `hashes` are those of the file that it stands for.
    pub fn add_own(&mut self, recipe: &Recipe, hashes: &TensorHashes) {
        let mut start = 0;
        for part in &recipe.parts {
            let range = start..start + part.length;
            start = range.end;
            if part.blob != recipe.own.digest {
                continue;
            }
            for tensor in &hashes.0 {
                let length = tensor.range.end - tensor.range.start;
                let inside = range.start <= tensor.range.start && tensor.range.end <= range.end;
                if inside && length >= SHARED_TENSOR_BYTES_MIN {
                    let offset = part.offset + (tensor.range.start - range.start);
                    self.0.entry((tensor.hash, length)).or_insert((recipe.own.digest, offset));
                }
            }
        }
    }
}

/// A file cut into what is elsewhere and what is not, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipePlan {
    pub(super) pieces: Vec<Piece>,
    /// Bytes of the file.
    pub size: u64,
    /// Those that others have.
    pub shared_bytes: u64,
    /// Bytes of the blob that is to hold the rest, padding included.
    pub own_bytes: u64,
}

/// One piece of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes that go into the file's own blob at an offset.
    Own { range: Range<u64>, offset: u64 },
    /// Bytes that another blob has at an offset.
    Shared { range: Range<u64>, blob: Digest, offset: u64 },
}

impl RecipePlan {
    /// Looks every tensor of a file of `size` bytes up. O(tensors).
    pub fn new(size: u64, hashes: &TensorHashes, index: &TensorIndex) -> Self {
        let mut plan = Self { pieces: Vec::new(), size, shared_bytes: 0, own_bytes: 0 };
        // What is no large tensor gathers from here: header, small tensors, padding.
        let mut rest = 0;
        for tensor in &hashes.0 {
            let length = tensor.range.end - tensor.range.start;
            if length < SHARED_TENSOR_BYTES_MIN || tensor.range.start < rest {
                continue;
            }
            let found = index.0.get(&(tensor.hash, length));
            let found = found.filter(|(_, offset)| offset.is_multiple_of(tensor.alignment));
            plan.add_own(rest..tensor.range.start, 64);
            match found {
                Some(&(blob, offset)) => plan.add_shared(tensor.range.clone(), blob, offset),
                None => plan.add_own(tensor.range.clone(), PAGE_BYTES),
            }
            rest = tensor.range.end;
        }
        plan.add_own(rest..size, 64);
        plan
    }

    /// Disk that the recipe saves.
    pub fn saved_bytes(&self) -> u64 {
        self.size.saturating_sub(self.own_bytes)
    }

    /// Whether it is worth it.
    pub fn is_worth(&self, limits: &DedupLimits) -> bool {
        self.shared_bytes as f64 >= self.size as f64 * limits.shared_share_min
            && self.shared_bytes > 0
            && self.saved_bytes() >= limits.saved_bytes_min
    }

    fn add_shared(&mut self, range: Range<u64>, blob: Digest, offset: u64) {
        self.shared_bytes += range.end - range.start;
        if let Some(Piece::Shared { range: last, blob: last_blob, offset: last_offset }) =
            self.pieces.last_mut()
            && (*last_blob, *last_offset + (last.end - last.start), last.end) == (blob, offset, range.start)
        {
            last.end = range.end;
            return;
        }
        self.pieces.push(Piece::Shared { range, blob, offset });
    }

    fn add_own(&mut self, range: Range<u64>, alignment: u64) {
        if range.start == range.end {
            return;
        }
        // The first piece keeps its place, so that tensors in it stay aligned to their elements.
        let misalignment = if alignment == PAGE_BYTES { 0 } else { range.start % alignment };
        let mut offset = self.own_bytes.next_multiple_of(alignment) + misalignment;
        if offset >= self.own_bytes + alignment {
            offset -= alignment;
        }
        self.own_bytes = offset + (range.end - range.start);
        self.pieces.push(Piece::Own { range, offset });
    }
}
