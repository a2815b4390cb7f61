//! The pool of key and value blocks of all sequences.
//!
//! A block holds 16 tokens in all layers and is one contiguous piece, so that it can be exported, spilled and copied
//! whole: `[layers]` of keys `[kv_heads][head_dim][16 tokens]` (a vector of keys is one element of 16 tokens), then
//! values `[kv_heads][16 tokens][head_dim]`, all little-endian f16.

use crate::Isa;
use crate::isa::{Kernel, Simd};

/// Tokens in a block.
pub const BLOCK_TOKENS: usize = 16;

/// Blocks start on cache lines.
const ALIGNMENT: usize = 64;

/// Sixteen f16: one element of sixteen keys, or sixteen elements of one value.
pub(crate) type Halves = [u8; 32];

/// Storage for blocks, numbered from 0; who owns which block is the caller's business.
pub struct KvPool {
    layers: usize,
    blocks: usize,
    kv_heads: usize,
    head_dim: usize,
    start: usize,
    bytes: Vec<u8>,
}

impl KvPool {
    /// A pool of zeroed blocks. Memory is taken from the operating system as blocks are first written.
    ///
    /// # Panics
    /// If `head_dim` is not a positive multiple of 16, or the size overflows.
    pub fn new(layers: usize, blocks: usize, kv_heads: usize, head_dim: usize) -> Self {
        assert!(head_dim > 0 && head_dim.is_multiple_of(16), "head_dim {head_dim} is not a multiple of 16");
        let mut pool = Self { layers, blocks, kv_heads, head_dim, start: 0, bytes: Vec::new() };
        let size = pool
            .block_size()
            .checked_mul(blocks)
            .expect("invariant: a pool is smaller than the address space");
        pool.bytes = vec![0; size + ALIGNMENT];
        pool.start = pool.bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        pool
    }

    /// Blocks in the pool.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Layers of the model.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Key and value heads of a layer.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Bytes of one block.
    pub fn block_size(&self) -> usize {
        Self::block_size_of(self.layers, self.kv_heads, self.head_dim)
    }

    /// Bytes of one block of a model of this shape.
    pub fn block_size_of(layers: usize, kv_heads: usize, head_dim: usize) -> usize {
        layers * kv_heads * head_dim * BLOCK_TOKENS * 2 * 2
    }

    /// The whole block, for export.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block_bytes(&self, block: u32) -> &[u8] {
        &self.bytes[self.block_start(block)..][..self.block_size()]
    }

    /// The whole block, for import of what [`Self::block_bytes`] gave, here or in a pool of the same shape.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block_bytes_mut(&mut self, block: u32) -> &mut [u8] {
        let (start, size) = (self.block_start(block), self.block_size());
        &mut self.bytes[start..][..size]
    }

    /// Copies block `from` over block `to`.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let (start, size, to) = (self.block_start(from), self.block_size(), self.block_start(to));
        self.bytes.copy_within(start..start + size, to);
    }

    /// Stores one token's keys and values of a layer, `[kv_heads, head_dim]` each, in slot `slot` of a block,
    /// rounded to nearest even.
    ///
    /// # Panics
    /// If there is no such layer, block or slot, or the slices are not `kv_heads * head_dim` long.
    pub fn write(&mut self, layer: usize, block: u32, slot: usize, keys: &[f32], values: &[f32]) {
        self.write_with(Isa::detect(), layer, block, slot, keys, values);
    }

    fn write_with(&mut self, isa: Isa, layer: usize, block: u32, slot: usize, keys: &[f32], values: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        assert!(slot < BLOCK_TOKENS, "slot {slot} of a block of {BLOCK_TOKENS}");
        assert_eq!(keys.len(), width, "keys of a token");
        assert_eq!(values.len(), width, "values of a token");
        let (start, half) = (self.layer_start(layer, block), self.layer_half());
        let (to_keys, to_values) = self.bytes[start..][..2 * half].split_at_mut(half);
        isa.run(Write { head_dim: self.head_dim, slot, keys, values, to_keys, to_values });
    }

    /// The keys of one head in a block: `[head_dim]` groups of 16 tokens.
    pub(crate) fn keys(&self, layer: usize, block: u32, kv_head: usize) -> &[Halves] {
        self.head(self.layer_start(layer, block), kv_head)
    }

    /// The values of one head in a block: `[16 tokens, head_dim / 16]` groups of 16 elements.
    pub(crate) fn values(&self, layer: usize, block: u32, kv_head: usize) -> &[Halves] {
        self.head(self.layer_start(layer, block) + self.layer_half(), kv_head)
    }

    fn head(&self, start: usize, kv_head: usize) -> &[Halves] {
        assert!(kv_head < self.kv_heads, "head {kv_head} of {}", self.kv_heads);
        let size = self.head_dim * BLOCK_TOKENS * 2;
        self.bytes[start + kv_head * size..][..size].as_chunks().0
    }

    /// Bytes of the keys, or of the values, of a layer in a block.
    fn layer_half(&self) -> usize {
        self.kv_heads * self.head_dim * BLOCK_TOKENS * 2
    }

    fn layer_start(&self, layer: usize, block: u32) -> usize {
        assert!(layer < self.layers, "layer {layer} of {}", self.layers);
        self.block_start(block) + layer * 2 * self.layer_half()
    }

    fn block_start(&self, block: u32) -> usize {
        let block = block as usize;
        assert!(block < self.blocks, "block {block} of {}", self.blocks);
        self.start + block * self.block_size()
    }
}

struct Write<'a> {
    head_dim: usize,
    slot: usize,
    keys: &'a [f32],
    values: &'a [f32],
    to_keys: &'a mut [u8],
    to_values: &'a mut [u8],
}

impl Kernel for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let columns = self.to_keys.as_chunks_mut::<{ 16 * BLOCK_TOKENS * 2 }>().0;
        for (keys, columns) in self.keys.as_chunks().0.iter().zip(columns) {
            let mut halves = [0; 32];
            simd.store_f16(simd.load(keys), &mut halves);
            for (half, column) in halves.as_chunks::<2>().0.iter().zip(columns.as_chunks_mut::<32>().0) {
                column[2 * self.slot..][..2].copy_from_slice(half);
            }
        }
        let rows = self.to_values.chunks_exact_mut(self.head_dim * BLOCK_TOKENS * 2);
        for (values, rows) in self.values.chunks_exact(self.head_dim).zip(rows) {
            let row = &mut rows[self.slot * self.head_dim * 2..][..self.head_dim * 2];
            for (values, halves) in values.as_chunks().0.iter().zip(row.as_chunks_mut().0) {
                simd.store_f16(simd.load(values), halves);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::{BLOCK_TOKENS, KvPool};
    use crate::Isa;

    const HEADS: usize = 2;
    const DIM: usize = 32;

    fn row(seed: usize) -> Vec<f32> {
        (0..HEADS * DIM).map(|i| ((seed * 131 + i) as f32 * 0.37).sin() * 9.0).collect()
    }

    fn half_at(halves: &[[u8; 32]], index: usize) -> f32 {
        let bytes = halves.as_flattened();
        f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32()
    }

    #[test]
    fn tokens_land_in_their_slot_rounded_to_f16() {
        for isa in Isa::available() {
            let mut pool = KvPool::new(3, 4, HEADS, DIM);
            for slot in 0..BLOCK_TOKENS {
                pool.write_with(isa, 1, 2, slot, &row(slot), &row(slot + 50));
            }
            for (slot, i) in (0..BLOCK_TOKENS).flat_map(|slot| (0..HEADS * DIM).map(move |i| (slot, i))) {
                let (head, d) = (i / DIM, i % DIM);
                let key = half_at(pool.keys(1, 2, head), d * BLOCK_TOKENS + slot);
                let value = half_at(pool.values(1, 2, head), slot * DIM + d);
                assert_eq!(key, f16::from_f32(row(slot)[i]).to_f32());
                assert_eq!(value, f16::from_f32(row(slot + 50)[i]).to_f32());
            }
            let written = pool.block_bytes(2);
            let layer = pool.block_size() / 3;
            assert!(written[..layer].iter().chain(&written[2 * layer..]).all(|byte| *byte == 0));
            assert!([0, 1, 3].iter().all(|block| pool.block_bytes(*block).iter().all(|byte| *byte == 0)));
        }
    }

    #[test]
    fn blocks_copy_and_travel_whole() {
        let mut pool = KvPool::new(2, 3, HEADS, DIM);
        pool.write(0, 0, 3, &row(1), &row(2));
        pool.write(1, 0, 15, &row(3), &row(4));
        pool.copy_block(0, 2);
        assert_eq!(pool.block_bytes(0), pool.block_bytes(2));
        let mut other = KvPool::new(2, 1, HEADS, DIM);
        other.block_bytes_mut(0).copy_from_slice(pool.block_bytes(2));
        assert_eq!(other.keys(1, 0, 1), pool.keys(1, 0, 1));
        assert_eq!(other.values(0, 0, 0), pool.values(0, 0, 0));
    }

    #[test]
    #[should_panic(expected = "multiple of 16")]
    fn odd_head_sizes_are_refused() {
        KvPool::new(1, 1, 1, 40);
    }
}
