//! Files: verified blobs, memory maps, and the two tensor formats, GGUF and safetensors.
//!
//! The only crate that touches the file system. Its invariants:
//! - a blob appears under its digest by rename after fsync, so that no reader sees a partial one;
//! - no byte is handed out before it was verified: the whole blob against its BLAKE3 root, once since
//!   the system started, or the leaves of the range
//!   against a tree that merges to it;
//! - parsing a file never panics and never allocates more than a small multiple of the file's size, whatever it holds.

#![allow(clippy::disallowed_methods, reason = "files belong to this crate")]

mod blob;
mod blob_store;
mod blob_writer;
mod checkpoint;
mod derived;
mod dir_lock;
mod dir_users;
pub mod disk;
mod durable;
mod durable_files;
mod error;
mod file_bytes;
mod file_layout;
mod format;
mod gguf;
mod growing_file;
mod hashing;
pub mod io;
mod layout;
mod load;
mod model_config;
pub mod probe;
mod ranges;
mod recipe;
mod residency;
mod safetensors;
mod scrub;
mod shard_index;
mod tensor;
mod tensor_hashes;
mod tensor_names;
pub mod tiers;
mod tree;
mod tree_cache;
mod verified;
mod verify;

pub use blob::Blob;
pub use blob_store::BlobStore;
pub use blob_writer::BlobWriter;
pub use checkpoint::Checkpoint;
pub use derived::{DerivedBlobs, DerivedKey, DerivedSink};
pub use dir_lock::DirLock;
pub use dir_users::DirUsers;
pub use disk::{Disk, DiskFile, FileStatus, RealDisk, SimulatedDisk};
pub use durable_files::{DurableFiles, remove_stale_temporaries, write_atomic};
pub use error::StorageError;
pub use file_bytes::FileBytes;
pub use file_layout::{FileLayout, TensorPlan};
pub use format::{FormatError, FormatProblem};
pub use gguf::{Gguf, GgufArray, GgufValue, StringArray};
pub use growing_file::GrowingFile;
pub use hashing::BlobInfo;
pub use load::populate;
pub use model_config::{ModelConfig, ModelConfigError, NATIVE_TENSOR_TYPES, NameScheme, RopeLayout};
pub use recipe::{DedupLimits, Recipe, RecipePart, RecipePlan, TensorIndex};
pub use safetensors::SafetensorsHeader;
pub use scrub::{BlobScrub, ScrubStep};
pub use shard_index::ShardIndex;
pub use tensor::{TensorInfo, TensorView};
pub use tensor_hashes::{HashedTensor, TensorHashes};
pub use tensor_names::TensorNames;
pub use tiers::Tiers;
pub use tree::{LEAF_BYTES, Tree};
