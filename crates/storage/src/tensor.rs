//! Tensors as both file formats describe them: a name, an element type, a shape and a byte range of a file.

use std::ops::Range;

use helios_types::TensorType;

use crate::format::{FieldError, FormatProblem};

/// Where a tensor lies and how its elements are stored.
///
/// The range is inside the file, has exactly the bytes that shape and type need, and shares none with another tensor. In
/// safetensors files it may begin at any byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name in the checkpoint.
    pub name: String,
    /// How elements are stored.
    pub tensor_type: TensorType,
    /// Row-major, outermost dimension first: `[rows, columns]`.
    pub shape: Vec<usize>,
    /// Index of the checkpoint's file that holds it.
    pub file: usize,
    /// Bytes of that file.
    pub range: Range<usize>,
}

/// A tensor with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// What the header says.
    pub info: &'a TensorInfo,
    /// The stored elements.
    pub bytes: &'a [u8],
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Bytes of a tensor, or why no tensor can look like this.
pub(crate) fn byte_length(tensor_type: TensorType, shape: &[usize]) -> Result<usize, FormatProblem> {
    let overflow = || FormatProblem::SizeOverflow { shape: shape.to_vec() };
    let elements =
        shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim)).ok_or_else(overflow)?;
    let row = match tensor_type.packs_across_rows() {
        true => elements,
        false => shape.last().copied().unwrap_or(1),
    };
    let block = tensor_type.block_elements();
    if !row.is_multiple_of(block) {
        return Err(FormatProblem::PartialBlock { row, block });
    }
    tensor_type.bytes_of(elements).ok_or_else(overflow)
}

/// What the first byte of a tensor should be a multiple of, for its numbers to lie aligned.
pub(crate) fn element_alignment(tensor_type: TensorType) -> usize {
    // Blocks have no number wider than an f16 scale.
    let widest = if tensor_type.block_elements() == 1 { 8 } else { 2 };
    (1 << tensor_type.block_bytes().trailing_zeros()).min(widest)
}

/// Sorts the tensors by name and refuses a name that appears twice. O(n log n), in place.
pub(crate) fn sort_by_unique_name(tensors: &mut [TensorInfo]) -> Result<(), FieldError> {
    tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    match tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(FormatProblem::Duplicate.at(format_args!("tensor `{}`", pair[0].name))),
        None => Ok(()),
    }
}

/// Sorts the tensors of one file by position and refuses two that share bytes. O(n log n), in place.
pub(crate) fn sort_by_disjoint_range(tensors: &mut [TensorInfo]) -> Result<(), FieldError> {
    tensors.sort_unstable_by_key(|tensor| (tensor.range.start, tensor.range.end));
    match tensors.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        Some(pair) => Err(FormatProblem::Overlap { other: crate::format::shorten(&pair[0].name) }
            .at(format_args!("tensor `{}`", pair[1].name))),
        None => Ok(()),
    }
}
