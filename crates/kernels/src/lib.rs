//! SIMD kernels behind a safe API, and the thread team that runs them.
//!
//! Numerics family [`NUMERICS_FAMILY`]: weights are dequantised to f32, and every output element has one fixed order
//! of reduction. Sums run over 16 lanes, lane `j` taking elements `j`, `j + 16`, … in order with fused multiply-add,
//! then over the lanes as a tree (8 apart, 4, 2, 1). The bits of a result depend neither on the instruction set, nor on
//! how many tokens are computed together, nor on the number of threads.

mod activation;
mod attention;
mod decode;
mod disjoint;
mod exp;
mod format;
mod isa;
mod kv_pool;
mod matmul;
mod norm;
mod rope;
mod sampling;
mod team;
mod unroll;

pub use activation::{add, silu_mul};
pub use attention::{AttentionShape, Span, attention, attention_with};
pub use decode::dequantise_row;
pub use exp::exp_in_place;
pub use format::{Format, MatrixError, WeightMatrix};
pub use isa::Isa;
pub use kv_pool::{BLOCK_TOKENS, KvPool};
pub use matmul::{Projection, matmul, matmul_with, project};
pub use norm::rms_norm;
pub use rope::{RopeStyle, RopeTable};
pub use sampling::{SoftmaxStats, argmax};
pub use team::Team;

/// Name of the arithmetic of this crate, as it stands in a numerics id: a change of any result's bits changes it.
pub const NUMERICS_FAMILY: &str = "f32-lanes16";
