//! Block hash, version 1: the address of a KV block, the same in all processes, languages and releases.
//!
//! A block's hash chains its parent's, so equal hashes mean equal prefixes. The root covers everything that makes KV
//! contents differ: manifest, adapter, numerics, block size and the tenant's salt.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::to_hex;
use crate::{Digest, NumericsId, TokenId};

/// Version of the hash that workers and proxies exchange when they connect.
pub const BLOCK_HASH_VERSION: u32 = 1;

/// Tokens in one KV block of the native engine.
pub const BLOCK_TOKENS: usize = 16;

/// BLAKE3, truncated to 128 bits, over (parent hash, token ids as u32 little-endian).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockHash([u8; 16]);

/// What the hash of an empty prefix covers.
#[derive(Clone, Debug)]
pub struct BlockRoot<'a> {
    /// The model version.
    pub manifest: Digest,
    /// The adapter, if one is applied.
    pub adapter: Option<Digest>,
    /// The arithmetic that filled the block.
    pub numerics: &'a NumericsId,
    /// Tokens in a block.
    pub block_tokens: u32,
    /// What keeps tenants apart; empty for the shared space.
    pub tenant_salt: &'a [u8],
}

impl BlockRoot<'_> {
    /// The hash of the empty prefix.
    pub fn hash(&self) -> BlockHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"helios block hash v1");
        hasher.update(self.manifest.as_bytes());
        hasher.update(self.adapter.as_ref().map_or(&[0; 32], |digest| digest.as_bytes()));
        update_sized(&mut hasher, self.numerics.as_str().as_bytes());
        hasher.update(&self.block_tokens.to_le_bytes());
        update_sized(&mut hasher, self.tenant_salt);
        BlockHash::truncate(&hasher.finalize())
    }
}

/// A field of variable length, behind its length as u32 little-endian, so that no two roots share an encoding.
fn update_sized(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("invariant: ids and salts are far below 4 GiB");
    hasher.update(&length.to_le_bytes());
    hasher.update(bytes);
}

impl BlockHash {
    /// The hash of the block of `tokens` behind this prefix. O(tokens).
    pub fn child(&self, tokens: &[TokenId]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        Self::truncate(&hasher.finalize())
    }

    /// The hashes of all whole blocks of `tokens`, first to last.
    pub fn chain(&self, tokens: &[TokenId], block_tokens: usize) -> Vec<Self> {
        let mut parent = *self;
        let mut hashes = Vec::with_capacity(tokens.len() / block_tokens);
        for block in tokens.chunks_exact(block_tokens) {
            parent = parent.child(block);
            hashes.push(parent);
        }
        hashes
    }

    fn truncate(hash: &blake3::Hash) -> Self {
        Self(std::array::from_fn(|i| hash.as_bytes()[i]))
    }

    /// Wraps the 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{BlockHash, BlockRoot};
    use crate::{Digest, NumericsId};

    fn root(numerics: &NumericsId, tenant_salt: &'static [u8]) -> BlockHash {
        let manifest = Digest::from_bytes([7; 32]);
        BlockRoot { manifest, adapter: None, numerics, block_tokens: 16, tenant_salt }.hash()
    }

    #[test]
    fn hashes_match_the_published_vectors() {
        let numerics = NumericsId::new("q4_1", 1, "f16", "f32-lanes16");
        let empty = root(&numerics, b"");
        assert_eq!(empty.to_string(), "c048b23bba573776e711702e920700f2");
        let tokens: Vec<u32> = (0..40).collect();
        let chain = empty.chain(&tokens, 16);
        assert_eq!(chain.len(), 2);
        assert_eq!(chain[0].to_string(), "abbf10a1ba7b4d43872d26679af8341c");
        assert_eq!(chain[1].to_string(), "ee74e5813096021b858d019523baa5be");
    }

    #[test]
    fn everything_in_the_root_and_the_prefix_changes_the_hash() {
        let numerics = NumericsId::new("q4_1", 1, "f16", "f32-lanes16");
        let other = NumericsId::new("q8_0", 1, "f16", "f32-lanes16");
        assert_ne!(root(&numerics, b""), root(&other, b""));
        assert_ne!(root(&numerics, b""), root(&numerics, b"tenant"));
        let empty = root(&numerics, b"");
        assert_ne!(empty.child(&[1, 2]).child(&[3]), empty.child(&[1]).child(&[2, 3]));
    }
}
