//! The BLAKE3 of each tensor of a model file: what tells which tensors two files share.
//!
//! Kept as a derived blob. Layout: for each tensor, ordered by position, start and end as u64 and element alignment as
//! u64, little-endian, then 32 bytes of hash.

use std::ops::Range;

use crate::format::FormatProblem;
use crate::tensor::element_alignment;
use crate::{FileBytes, Gguf, SafetensorsHeader, StorageError};

/// Bytes of one entry in the encoded form.
const ENTRY_BYTES: usize = 8 + 8 + 8 + 32;

/// A tensor's place and hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedTensor {
    /// Bytes of the file.
    pub range: Range<u64>,
    /// What the first byte must be a multiple of, counted from the beginning of a file.
    pub alignment: u64,
    /// BLAKE3 of the bytes, whatever type they have.
    pub hash: [u8; 32],
}

/// The tensors of one file by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorHashes(pub Vec<HashedTensor>);

impl TensorHashes {
    /// Identifies the layout among derived blobs.
    pub const LAYOUT: &'static str = "tensor-hashes";
    /// Its version.
    pub const VERSION: u32 = 1;

    /// Hashes every tensor of a GGUF or safetensors file. O(size).
    ///
    /// # Errors
    /// [`StorageError::Format`] if it is neither.
    pub fn of(file: &str, bytes: &FileBytes) -> Result<Self, StorageError> {
        let mut tensors = match bytes.head().starts_with(b"GGUF") {
            true => Gguf::parse_prefix(file, bytes.head(), bytes.len())?.tensors,
            false => SafetensorsHeader::parse_prefix(file, bytes.head(), bytes.len())?.tensors,
        };
        tensors.sort_unstable_by_key(|tensor| tensor.range.start);
        let hashed = tensors.into_iter().map(|tensor| HashedTensor {
            range: tensor.range.start as u64..tensor.range.end as u64,
            alignment: element_alignment(tensor.tensor_type) as u64,
            hash: hash(bytes, tensor.range),
        });
        Ok(Self(hashed.collect()))
    }

    /// The encoded form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * ENTRY_BYTES);
        for tensor in &self.0 {
            for number in [tensor.range.start, tensor.range.end, tensor.alignment] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(tensor.hash);
        }
        bytes
    }

    /// Reads the encoded form; `file` is its name for errors.
    ///
    /// # Errors
    /// [`StorageError::Format`] if it is not one.
    pub fn from_bytes(file: &str, bytes: &[u8]) -> Result<Self, StorageError> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            let problem =
                FormatProblem::Truncated { needed: ENTRY_BYTES as u64, available: rest.len() as u64 };
            return Err(problem.at("tensor hashes").in_file(file).into());
        }
        Ok(Self(entries.iter().map(decode).collect()))
    }
}

fn hash(bytes: &FileBytes, range: Range<usize>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (blob, range) in bytes.pieces(range) {
        hasher.update(&blob[range]);
    }
    *hasher.finalize().as_bytes()
}

fn decode(entry: &[u8; ENTRY_BYTES]) -> HashedTensor {
    let number = |at: usize| {
        u64::from_le_bytes(entry[at..at + 8].try_into().expect("invariant: eight bytes of the entry"))
    };
    let hash = entry[24..].try_into().expect("invariant: the last 32 bytes of the entry");
    HashedTensor { range: number(0)..number(8), alignment: number(16).max(1), hash }
}
