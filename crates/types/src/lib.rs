//! Ids, units and error codes: pure values that every other crate shares.
//!
//! Nothing here reads a clock, a file or the network. What two processes must agree on bit by bit (digests, block
//! hashes, numerics ids) lives here, with test vectors.

#![forbid(unsafe_code)]

mod block_hash;
mod digest;
mod error;
mod model_ref;
mod numerics;
mod tensor;

pub use block_hash::{BLOCK_HASH_VERSION, BLOCK_TOKENS, BlockHash, BlockRoot};
pub use digest::{Digest, DigestError};
pub use error::{Blame, Classify, ErrorCode};
pub use model_ref::{DEFAULT_TAG, ModelRef, ModelRefError};
pub use numerics::NumericsId;
pub use tensor::TensorType;

/// Index of one entry of a model's vocabulary.
pub type TokenId = u32;
