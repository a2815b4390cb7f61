//! The header of a safetensors file: a length, JSON, and tensors that cover the rest of the file without gaps.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. The reference crate's own reader is not used: it keeps
//! the last of two tensors with one name, buffers the JSON twice, and does not say which tensor is wrong. A test holds
//! that it accepts every file that this one accepts, with the same tensors.

mod write;

use std::borrow::Cow;
use std::fmt;

use helios_types::TensorType;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::format::{FieldError, FormatProblem, shorten};
use crate::tensor::{byte_length, sort_by_disjoint_range, sort_by_unique_name};
use crate::{StorageError, TensorInfo};

/// Bytes of the JSON, as in the reference implementation.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Tensors of one file; the shards of the largest models of today have about 1,000.
const TENSORS_MAX: usize = 65_536;
/// Dimensions of a tensor.
const DIMENSIONS_MAX: usize = 8;
/// Bytes before the JSON: its length.
const LENGTH_BYTES: usize = 8;
/// The one key that is not a tensor.
const METADATA_KEY: &str = "__metadata__";

/// The format's names of its element types.
const TYPE_NAMES: [(&str, TensorType); 22] = [
    ("F32", TensorType::F32),
    ("F16", TensorType::F16),
    ("BF16", TensorType::BF16),
    ("F64", TensorType::F64),
    ("C64", TensorType::C64),
    ("F8_E4M3", TensorType::F8E4M3),
    ("F8_E5M2", TensorType::F8E5M2),
    ("F8_E4M3FNUZ", TensorType::F8E4M3Fnuz),
    ("F8_E5M2FNUZ", TensorType::F8E5M2Fnuz),
    ("F8_E8M0", TensorType::F8E8M0),
    ("F6_E2M3", TensorType::F6E2M3),
    ("F6_E3M2", TensorType::F6E3M2),
    ("F4", TensorType::F4),
    ("I8", TensorType::I8),
    ("I16", TensorType::I16),
    ("I32", TensorType::I32),
    ("I64", TensorType::I64),
    ("U8", TensorType::U8),
    ("U16", TensorType::U16),
    ("U32", TensorType::U32),
    ("U64", TensorType::U64),
    ("BOOL", TensorType::Bool),
];

/// The tensors of one safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetensorsHeader {
    /// The tensors, ordered by position; their `file` is 0.
    pub tensors: Vec<TensorInfo>,
}

impl SafetensorsHeader {
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
        let tensors = parse(prefix, file_bytes).map_err(|error| error.in_file(file))?;
        Ok(Self { tensors })
    }
}

fn parse(prefix: &[u8], file_bytes: usize) -> Result<Vec<TensorInfo>, FieldError> {
    let json = header_json(prefix)?;
    let data_start = LENGTH_BYTES + json.len();
    let mut tensors = read_tensors(json, data_start, file_bytes)?;
    sort_by_unique_name(&mut tensors)?;
    sort_by_disjoint_range(&mut tensors)?;
    check_coverage(&tensors, data_start, file_bytes)?;
    Ok(tensors)
}

/// Reads the JSON into tensors whose ranges count from the beginning of the file.
fn read_tensors(json: &[u8], data_start: usize, file_bytes: usize) -> Result<Vec<TensorInfo>, FieldError> {
    let mut problem = None;
    let directory = Directory { data_start, file_bytes, problem: &mut problem };
    let mut json = serde_json::Deserializer::from_slice(json);
    let tensors = directory.deserialize(&mut json).and_then(|tensors| json.end().map(|()| tensors));
    tensors.map_err(|error| {
        problem.unwrap_or_else(|| FormatProblem::Json { message: error.to_string() }.at("header"))
    })
}

/// The JSON between the length and the data.
fn header_json(bytes: &[u8]) -> Result<&[u8], FieldError> {
    let truncated =
        |needed, available: usize| FormatProblem::Truncated { needed, available: available as u64 };
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(truncated(LENGTH_BYTES as u64, bytes.len()).at("header length"));
    };
    let length = u64::from_le_bytes(*length);
    if !(2..=HEADER_BYTES_MAX).contains(&length) {
        return Err(
            FormatProblem::OutOfRange { count: length, min: 2, max: HEADER_BYTES_MAX }.at("header length")
        );
    }
    let json = rest.get(..length as usize).ok_or_else(|| truncated(length, rest.len()).at("header"))?;
    if json[0] == b'{' {
        Ok(json)
    } else {
        Err(FormatProblem::Json { message: "does not begin with `{`".to_owned() }.at("header"))
    }
}

/// Every byte behind the header belongs to a tensor.
fn check_coverage(tensors: &[TensorInfo], data_start: usize, file_bytes: usize) -> Result<(), FieldError> {
    let mut covered = data_start;
    for tensor in tensors {
        if tensor.range.start > covered {
            let problem = gap(covered, tensor.range.start);
            return Err(problem.at(format_args!("tensor `{}`", shorten(&tensor.name))));
        }
        covered = tensor.range.end;
    }
    if covered == file_bytes { Ok(()) } else { Err(gap(covered, file_bytes).at("end of file")) }
}

fn gap(covered: usize, next: usize) -> FormatProblem {
    FormatProblem::Gap { bytes: (next - covered) as u64, offset: next as u64 }
}

/// Reads the header's object, placing every tensor in the file as it comes.
struct Directory<'p> {
    data_start: usize,
    file_bytes: usize,
    /// What is wrong with the tensor at which reading stopped.
    problem: &'p mut Option<FieldError>,
}

/// A tensor's entry as it stands in the header.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// Up to [`DIMENSIONS_MAX`] dimensions, without an allocation that a hostile header could multiply.
struct Shape {
    dimensions: [u64; DIMENSIONS_MAX],
    rank: usize,
}

impl Entry<'_> {
    /// Checks the entry against the file and gives it a range that counts from the beginning of the file.
    fn place(&self, name: &str, data_start: usize, file_bytes: usize) -> Result<TensorInfo, FormatProblem> {
        let tensor_type = tensor_type(&self.dtype)?;
        let shape = self.shape.to_vec()?;
        let needed = byte_length(tensor_type, &shape)? as u64;
        let (start, end) = self.data_offsets;
        let declared = end.checked_sub(start).ok_or(FormatProblem::ReversedRange { start, end })?;
        let size = (file_bytes - data_start) as u64;
        let offset = data_start as u64 + start.min(size);
        if end > size {
            Err(FormatProblem::OutOfFile { offset: start, length: declared, size })
        } else if declared != needed {
            Err(FormatProblem::SizeMismatch { declared, needed })
        } else {
            let range = offset as usize..offset as usize + declared as usize;
            Ok(TensorInfo { name: name.to_owned(), tensor_type, shape, file: 0, range })
        }
    }
}

fn tensor_type(dtype: &str) -> Result<TensorType, FormatProblem> {
    let found = TYPE_NAMES.iter().find(|(known, _)| *known == dtype).map(|(_, tensor_type)| *tensor_type);
    found.ok_or_else(|| FormatProblem::UnknownTensorType { name: shorten(dtype) })
}

impl Shape {
    fn to_vec(&self) -> Result<Vec<usize>, FormatProblem> {
        let dimensions = &self.dimensions[..self.rank];
        dimensions
            .iter()
            .map(|&size| {
                usize::try_from(size).map_err(|_| FormatProblem::OutOfRange {
                    count: size,
                    min: 0,
                    max: usize::MAX as u64,
                })
            })
            .collect()
    }
}

impl<'de> DeserializeSeed<'de> for Directory<'_> {
    type Value = Vec<TensorInfo>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Directory<'_> {
    type Value = Vec<TensorInfo>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tensors = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            if name == METADATA_KEY {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if tensors.len() == TENSORS_MAX {
                return Err(A::Error::custom(format_args!("more than {TENSORS_MAX} tensors")));
            }
            let field = || format!("tensor `{}`", shorten(&name));
            let entry: Result<Entry<'_>, _> = map.next_value();
            let entry = entry.map_err(|error| A::Error::custom(format_args!("{}: {error}", field())))?;
            match entry.place(&name, self.data_start, self.file_bytes) {
                Ok(tensor) => tensors.push(tensor),
                Err(problem) => {
                    *self.problem = Some(problem.at(field()));
                    return Err(A::Error::custom("a tensor is wrong"));
                }
            }
        }
        Ok(tensors)
    }
}

/// A key, borrowed from the header unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to {DIMENSIONS_MAX} dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Shape, A::Error> {
        let mut shape = Shape { dimensions: [0; DIMENSIONS_MAX], rank: 0 };
        while let Some(size) = sequence.next_element()? {
            let Some(slot) = shape.dimensions.get_mut(shape.rank) else {
                return Err(A::Error::invalid_length(shape.rank + 1, &self));
            };
            *slot = size;
            shape.rank += 1;
        }
        Ok(shape)
    }
}
