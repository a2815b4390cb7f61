//! The header from magic to the last tensor, in file order.

use std::collections::BTreeMap;

use helios_types::TensorType;

use crate::TensorInfo;
use crate::format::{FieldError, FormatProblem, InField, shorten};
use crate::tensor::{byte_length, sort_by_disjoint_range, sort_by_unique_name};

use super::GgufValue;
use super::reader::Reader;

/// Metadata keys of one file; models have about 40.
const KEYS_MAX: u64 = 4096;
/// Tensors of one file; models of today have up to 3,000.
const TENSORS_MAX: u64 = 65_536;
/// Dimensions of a tensor, as in ggml.
const DIMENSIONS_MAX: usize = 4;
/// What tensor data is aligned to, where `general.alignment` does not say; and the values that it may have.
pub(super) const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MIN: u64 = 8;
const ALIGNMENT_MAX: u64 = 1 << 16;
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
/// A key of no letters, a type and one byte.
const KEY_BYTES_MIN: u64 = 8 + 4 + 1;
/// A name of no letters, a rank, one dimension, a type and an offset.
const TENSOR_BYTES_MIN: u64 = 8 + 4 + 8 + 4 + 8;

/// The `ggml_type` numbers of the element types; those left out are of intermediate results, or were never released.
const TYPE_NUMBERS: [(u32, TensorType); 32] = [
    (0, TensorType::F32),
    (1, TensorType::F16),
    (2, TensorType::Q4_0),
    (3, TensorType::Q4_1),
    (6, TensorType::Q5_0),
    (7, TensorType::Q5_1),
    (8, TensorType::Q8_0),
    (10, TensorType::Q2K),
    (11, TensorType::Q3K),
    (12, TensorType::Q4K),
    (13, TensorType::Q5K),
    (14, TensorType::Q6K),
    (16, TensorType::Iq2Xxs),
    (17, TensorType::Iq2Xs),
    (18, TensorType::Iq3Xxs),
    (19, TensorType::Iq1S),
    (20, TensorType::Iq4Nl),
    (21, TensorType::Iq3S),
    (22, TensorType::Iq2S),
    (23, TensorType::Iq4Xs),
    (24, TensorType::I8),
    (25, TensorType::I16),
    (26, TensorType::I32),
    (27, TensorType::I64),
    (28, TensorType::F64),
    (29, TensorType::Iq1M),
    (30, TensorType::BF16),
    (34, TensorType::Tq1_0),
    (35, TensorType::Tq2_0),
    (39, TensorType::Mxfp4),
    (40, TensorType::Nvfp4),
    (41, TensorType::Q1_0),
];

type Metadata = BTreeMap<String, GgufValue>;

/// Reads the header of a file of `file_bytes`, whose beginning `bytes` is.
pub(super) fn parse(bytes: &[u8], file_bytes: usize) -> Result<(Metadata, Vec<TensorInfo>), FieldError> {
    let mut reader = Reader::new(bytes);
    check_version(&mut reader)?;
    let tensor_count = reader.count(0, TENSORS_MAX, TENSOR_BYTES_MIN).at("tensor count")?;
    let key_count = reader.count(0, KEYS_MAX, KEY_BYTES_MIN).at("metadata count")?;
    let metadata = read_metadata(&mut reader, key_count)?;
    let alignment = alignment(&metadata)?;
    let mut tensors = read_tensors(&mut reader, tensor_count)?;
    place_in_file(&mut tensors, reader.position(), alignment, file_bytes)?;
    sort_by_unique_name(&mut tensors)?;
    sort_by_disjoint_range(&mut tensors)?;
    Ok((metadata, tensors))
}

fn check_version(reader: &mut Reader<'_>) -> Result<(), FieldError> {
    if reader.take(4).at("magic")? != b"GGUF" {
        return Err(FormatProblem::WrongMagic.at("magic"));
    }
    match reader.u32().at("version")? {
        2 | 3 => Ok(()),
        version => Err(FormatProblem::UnsupportedVersion { version }.at("version")),
    }
}

fn read_metadata(reader: &mut Reader<'_>, count: usize) -> Result<Metadata, FieldError> {
    let mut metadata = Metadata::new();
    for index in 0..count {
        let key = reader.string().at(format_args!("metadata key {index}"))?;
        let value = GgufValue::read(reader).at(shorten(key))?;
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(FormatProblem::Duplicate.at(shorten(key)));
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &Metadata) -> Result<u64, FieldError> {
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => ALIGNMENT_DEFAULT,
        Some(GgufValue::U32(alignment)) => u64::from(*alignment),
        Some(other) => {
            let problem =
                FormatProblem::WrongType { expected: "an unsigned 32-bit integer", found: other.describe() };
            return Err(problem.at(ALIGNMENT_KEY));
        }
    };
    if !alignment.is_power_of_two() || !(ALIGNMENT_MIN..=ALIGNMENT_MAX).contains(&alignment) {
        let problem = FormatProblem::InvalidAlignment { alignment, min: ALIGNMENT_MIN, max: ALIGNMENT_MAX };
        return Err(problem.at(ALIGNMENT_KEY));
    }
    Ok(alignment)
}

/// Reads the tensor directory; ranges count from the beginning of the data section.
fn read_tensors(reader: &mut Reader<'_>, count: usize) -> Result<Vec<TensorInfo>, FieldError> {
    let mut tensors = Vec::with_capacity(count);
    for index in 0..count {
        let name = reader.string().at(format_args!("name of tensor {index}"))?;
        tensors.push(read_tensor(reader, name).at(format_args!("tensor `{}`", shorten(name)))?);
    }
    Ok(tensors)
}

fn read_tensor(reader: &mut Reader<'_>, name: &str) -> Result<TensorInfo, FormatProblem> {
    let shape = read_shape(reader)?;
    let tensor_type = tensor_type(reader.u32()?)?;
    let offset = reader.u64()?;
    let length = byte_length(tensor_type, &shape)?;
    let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(length)?));
    let out_of_file = FormatProblem::OutOfFile { offset, length: length as u64, size: 0 };
    Ok(TensorInfo { name: name.to_owned(), tensor_type, shape, file: 0, range: range.ok_or(out_of_file)? })
}

/// Reads a rank and as many dimensions, innermost first in the file.
fn read_shape(reader: &mut Reader<'_>) -> Result<Vec<usize>, FormatProblem> {
    let rank = reader.u32()?;
    if !(1..=DIMENSIONS_MAX as u32).contains(&rank) {
        return Err(FormatProblem::OutOfRange { count: rank.into(), min: 1, max: DIMENSIONS_MAX as u64 });
    }
    let mut shape = vec![0; rank as usize];
    for dimension in shape.iter_mut().rev() {
        let size = reader.u64()?;
        if !(1..=isize::MAX as u64).contains(&size) {
            return Err(FormatProblem::OutOfRange { count: size, min: 1, max: isize::MAX as u64 });
        }
        *dimension = size as usize;
    }
    Ok(shape)
}

/// Checks the tensors against the data section and moves their ranges to count from the beginning of the file.
fn place_in_file(
    tensors: &mut [TensorInfo],
    header_end: usize,
    alignment: u64,
    file_bytes: usize,
) -> Result<(), FieldError> {
    let data_start = header_end.next_multiple_of(alignment as usize);
    let size = file_bytes.saturating_sub(data_start);
    for tensor in tensors {
        let (offset, length) = (tensor.range.start as u64, tensor.range.len() as u64);
        let problem = if !offset.is_multiple_of(alignment) {
            FormatProblem::Misaligned { offset, alignment }
        } else if tensor.range.end > size {
            FormatProblem::OutOfFile { offset, length, size: size as u64 }
        } else {
            tensor.range = data_start + tensor.range.start..data_start + tensor.range.end;
            continue;
        };
        return Err(problem.at(format_args!("tensor `{}`", shorten(&tensor.name))));
    }
    Ok(())
}

fn tensor_type(number: u32) -> Result<TensorType, FormatProblem> {
    let found = TYPE_NUMBERS.iter().find(|(known, _)| *known == number);
    let found = found.map(|(_, tensor_type)| *tensor_type);
    found.ok_or_else(|| FormatProblem::UnknownTensorType { name: format!("number {number}") })
}

/// The `ggml_type` number of an element type that the format has.
pub(super) fn type_number(tensor_type: TensorType) -> Option<u32> {
    TYPE_NUMBERS.iter().find(|(_, known)| *known == tensor_type).map(|(number, _)| *number)
}
