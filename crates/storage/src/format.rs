//! How a model file can break its format: always the file, the field in it, and the problem.

use std::fmt::Display;

use helios_types::{Classify, ErrorCode};

/// Characters of a hostile name that are repeated in an error.
const FIELD_CHARS_MAX: usize = 100;

/// A model file that breaks its format, or uses what Helios does not support.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {field}: {problem}")]
pub struct FormatError {
    /// The file's name.
    pub file: String,
    /// The header field, metadata key or tensor.
    pub field: String,
    /// What is wrong with it.
    pub problem: FormatProblem,
}

/// What is wrong with a field of a model file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatProblem {
    /// The file ends inside the field.
    #[error("needs {needed} bytes where {available} are left")]
    Truncated {
        /// Bytes the field claims.
        needed: u64,
        /// Bytes the file still has.
        available: u64,
    },
    /// The file is of another kind.
    #[error("not a GGUF file")]
    WrongMagic,
    /// A version that Helios does not read.
    #[error("version {version} is not supported (little-endian 2 and 3 are)")]
    UnsupportedVersion {
        /// The version, as read.
        version: u32,
    },
    /// A count, length or rank outside what any model needs.
    #[error("{count} is outside the accepted range of {min} to {max}")]
    OutOfRange {
        /// The value in the file.
        count: u64,
        /// The least accepted.
        min: u64,
        /// The most accepted.
        max: u64,
    },
    /// Text that is not UTF-8.
    #[error("not valid UTF-8 at byte {at}")]
    InvalidUtf8 {
        /// Offset of the first wrong byte in the text.
        at: usize,
    },
    /// A value type that the format does not define.
    #[error("value type {value_type} does not exist")]
    UnknownValueType {
        /// The type's number.
        value_type: u32,
    },
    /// An array of arrays, which no known writer produces.
    #[error("nested arrays are not supported")]
    NestedArray,
    /// A truth value that is neither 0 nor 1.
    #[error("{value} is not a truth value")]
    InvalidBool {
        /// The byte in the file.
        value: u8,
    },
    /// An alignment that is not a sensible power of two.
    #[error("{alignment} is not a power of two from {min} to {max}")]
    InvalidAlignment {
        /// The alignment in the file.
        alignment: u64,
        /// The least accepted.
        min: u64,
        /// The most accepted.
        max: u64,
    },
    /// An element type whose size this release does not know.
    #[error("this release does not know element type {name}")]
    UnknownTensorType {
        /// The type's name in its format.
        name: String,
    },
    /// An element type that a file to be written cannot have.
    #[error("{format} has no element type {name}")]
    NoSuchTensorType {
        /// The format of the file.
        format: &'static str,
        /// The type's name.
        name: &'static str,
    },
    /// The size of the tensor exceeds the address space.
    #[error("the size of shape {shape:?} overflows")]
    SizeOverflow {
        /// The shape, outermost dimension first.
        shape: Vec<usize>,
    },
    /// Rows that do not fill whole blocks.
    #[error("rows of {row} elements do not fill blocks of {block}")]
    PartialBlock {
        /// Elements of a row.
        row: usize,
        /// Elements of a block.
        block: usize,
    },
    /// Shape and byte range disagree.
    #[error("has {declared} bytes, its shape and type need {needed}")]
    SizeMismatch {
        /// Bytes in the declared range.
        declared: u64,
        /// Bytes that shape and type imply.
        needed: u64,
    },
    /// A byte range that ends before it begins.
    #[error("byte range {start}..{end} is reversed")]
    ReversedRange {
        /// First byte.
        start: u64,
        /// Byte behind the last.
        end: u64,
    },
    /// Data outside the file.
    #[error("data begins at byte {offset} and has {length} bytes, the file has {size}")]
    OutOfFile {
        /// First byte, counted from the beginning of the data section.
        offset: u64,
        /// Bytes of the tensor.
        length: u64,
        /// Bytes of the data section.
        size: u64,
    },
    /// Data that does not begin where its type or the file's alignment wants it.
    #[error("data begins at byte {offset}, which is not a multiple of {alignment}")]
    Misaligned {
        /// First byte.
        offset: u64,
        /// What it must be a multiple of.
        alignment: u64,
    },
    /// Two tensors share bytes.
    #[error("data overlaps that of `{other}`")]
    Overlap {
        /// The other tensor.
        other: String,
    },
    /// Bytes that belong to no tensor, which safetensors forbids.
    #[error("{bytes} bytes before byte {offset} belong to no tensor")]
    Gap {
        /// Unused bytes.
        bytes: u64,
        /// Where the gap ends.
        offset: u64,
    },
    /// A tensor that no one blob holds whole: its file is a recipe that was not made from its tensors.
    #[error("its bytes lie in several blobs")]
    Scattered,
    /// The name appears twice.
    #[error("appears more than once")]
    Duplicate,
    /// The field is required and not there.
    #[error("missing")]
    Missing,
    /// The field is there with another type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What is needed.
        expected: &'static str,
        /// What the file has.
        found: String,
    },
    /// A header or index that is not the JSON it should be.
    #[error("{message}")]
    Json {
        /// The parser's words.
        message: String,
    },
    /// A file name that could leave the model's folder.
    #[error("`{name}` is not a plain file name")]
    UnsafeFileName {
        /// The name in the index.
        name: String,
    },
    /// The index and the shards disagree.
    #[error("the index places it in `{index}`, it is in `{actual}`")]
    WrongShard {
        /// The file that the index names, or `no file`.
        index: String,
        /// The file that has it, or `no file`.
        actual: String,
    },
}

impl Classify for FormatError {
    fn code(&self) -> ErrorCode {
        match self.problem {
            FormatProblem::UnsupportedVersion { .. }
            | FormatProblem::UnknownTensorType { .. }
            | FormatProblem::NoSuchTensorType { .. } => ErrorCode::InvalidRequest,
            _ => ErrorCode::Corrupt,
        }
    }
}

/// A problem with its field, before the file's name is known.
#[derive(Debug)]
pub(crate) struct FieldError {
    field: String,
    problem: FormatProblem,
}

impl FieldError {
    /// Adds the file's name.
    pub(crate) fn in_file(self, file: &str) -> FormatError {
        FormatError { file: file.to_owned(), field: self.field, problem: self.problem }
    }
}

impl FormatProblem {
    /// Adds the field's name.
    pub(crate) fn at(self, field: impl Display) -> FieldError {
        FieldError { field: field.to_string(), problem: self }
    }
}

/// At most [`FIELD_CHARS_MAX`] characters of `text`, those that do not print escaped.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(FIELD_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// Names the field that a failed read belongs to.
pub(crate) trait InField<T> {
    /// Adds the field's name to the problem.
    fn at(self, field: impl Display) -> Result<T, FieldError>;
}

impl<T> InField<T> for Result<T, FormatProblem> {
    fn at(self, field: impl Display) -> Result<T, FieldError> {
        self.map_err(|problem| problem.at(field))
    }
}
