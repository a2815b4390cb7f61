//! GGUF, versions 2 and 3, little-endian: typed metadata and the tensor directory of one file.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Everything is checked while it is read, so that
//! a parsed header describes only bytes that exist.

mod header;
mod reader;
mod value;
mod write;

use std::collections::BTreeMap;

pub use value::{GgufArray, GgufValue, StringArray};

use crate::format::{FormatError, FormatProblem};
use crate::{StorageError, TensorInfo};

/// The header of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// The file's name, for errors.
    file: String,
    /// Metadata by key.
    pub metadata: BTreeMap<String, GgufValue>,
    /// The tensors, ordered by position; their `file` is 0.
    pub tensors: Vec<TensorInfo>,
}

impl Gguf {
    /// Reads the header of a file given whole; tensor data is not touched. `file` is its name for errors.
    ///
    /// # Errors
    /// [`StorageError::Format`] with the first field that is wrong.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, StorageError> {
        Self::parse_prefix(file, bytes, bytes.len())
    }

    /// As [`parse`](Self::parse), for a file of `file_bytes` of which only the beginning is at hand: whatever holds the
    /// header will do.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); a header that goes on behind `prefix` is [`FormatProblem::Truncated`].
    pub fn parse_prefix(file: &str, prefix: &[u8], file_bytes: usize) -> Result<Self, StorageError> {
        let (metadata, tensors) = header::parse(prefix, file_bytes).map_err(|error| error.in_file(file))?;
        Ok(Self { file: file.to_owned(), metadata, tensors })
    }

    /// The value of a key that may be absent, through one of the typed getters: `gguf.optional(key, Gguf::u32)`.
    ///
    /// # Errors
    /// [`StorageError::Format`] if the key is there with another type.
    pub fn optional<'a, T>(
        &'a self,
        key: &str,
        get: impl FnOnce(&'a Self, &str) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        if self.metadata.contains_key(key) { get(self, key).map(Some) } else { Ok(None) }
    }

    /// A text.
    ///
    /// # Errors
    /// [`StorageError::Format`] if the key is missing or has another type, as with all getters.
    pub fn str(&self, key: &str) -> Result<&str, StorageError> {
        self.typed(key, "a string", |value| match value {
            GgufValue::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An integer of any stored width that fits 32 bits without sign.
    ///
    /// # Errors
    /// As [`str`](Self::str).
    pub fn u32(&self, key: &str) -> Result<u32, StorageError> {
        self.typed(key, "an unsigned 32-bit integer", |value| {
            value.as_integer().and_then(|value| value.try_into().ok())
        })
    }

    /// An integer of any stored width that fits 64 bits without sign.
    ///
    /// # Errors
    /// As [`str`](Self::str).
    pub fn u64(&self, key: &str) -> Result<u64, StorageError> {
        self.typed(key, "an unsigned integer", |value| {
            value.as_integer().and_then(|value| value.try_into().ok())
        })
    }

    /// A number stored as 32 or 64 bit floating point.
    ///
    /// # Errors
    /// As [`str`](Self::str).
    pub fn f32(&self, key: &str) -> Result<f32, StorageError> {
        self.typed(key, "a floating point number", |value| match value {
            GgufValue::F32(value) => Some(*value),
            GgufValue::F64(value) => Some(*value as f32),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// As [`str`](Self::str).
    pub fn bool(&self, key: &str) -> Result<bool, StorageError> {
        self.typed(key, "a truth value", |value| match value {
            GgufValue::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// An array of strings.
    ///
    /// # Errors
    /// As [`str`](Self::str).
    pub fn strings(&self, key: &str) -> Result<&StringArray, StorageError> {
        self.typed(key, "an array of strings", |value| match value {
            GgufValue::Array(GgufArray::String(strings)) => Some(strings),
            _ => None,
        })
    }

    /// An array of 32-bit floating point numbers.
    ///
    /// # Errors
    /// As [`str`](Self::str).
    pub fn f32s(&self, key: &str) -> Result<&[f32], StorageError> {
        self.typed(key, "an array of 32-bit floating point numbers", |value| match value {
            GgufValue::Array(GgufArray::F32(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// An array of 32-bit integers with sign.
    ///
    /// # Errors
    /// As [`str`](Self::str).
    pub fn i32s(&self, key: &str) -> Result<&[i32], StorageError> {
        self.typed(key, "an array of 32-bit integers", |value| match value {
            GgufValue::Array(GgufArray::I32(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a GgufValue) -> Option<T>,
    ) -> Result<T, StorageError> {
        let problem = match self.metadata.get(key) {
            None => FormatProblem::Missing,
            Some(value) => match read(value) {
                Some(value) => return Ok(value),
                None => FormatProblem::WrongType { expected, found: value.describe() },
            },
        };
        Err(FormatError { file: self.file.clone(), field: key.to_owned(), problem }.into())
    }
}
