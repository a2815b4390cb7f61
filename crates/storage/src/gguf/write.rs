//! The header of a GGUF file to be, version 3: keys in order of name, tensors in the order given.

use std::collections::BTreeMap;

use super::header::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, type_number};
use super::value::value_type;
use super::{Gguf, GgufArray, GgufValue};
use crate::StorageError;
use crate::file_layout::{FileLayout, TensorPlan};
use crate::format::{FieldError, FormatProblem, InField, shorten};
use crate::tensor::byte_length;

const VERSION: u32 = 3;
const ALIGNMENT: usize = ALIGNMENT_DEFAULT as usize;

impl Gguf {
    /// Lays out a file with this metadata and these tensors, at the format's usual alignment of 32 bytes. `file` is its
    /// name for errors.
    ///
    /// # Errors
    /// [`StorageError::Format`] for an element type that GGUF does not have, rows that do not fill blocks, a size that
    /// overflows, or another alignment asked for in the metadata.
    pub fn layout(
        file: &str,
        metadata: &BTreeMap<String, GgufValue>,
        tensors: &[TensorPlan],
    ) -> Result<FileLayout, StorageError> {
        layout(metadata, tensors).map_err(|error| error.in_file(file).into())
    }
}

fn layout(metadata: &BTreeMap<String, GgufValue>, tensors: &[TensorPlan]) -> Result<FileLayout, FieldError> {
    if let Some(other) =
        metadata.get(ALIGNMENT_KEY).filter(|value| **value != GgufValue::U32(ALIGNMENT as u32))
    {
        let problem = FormatProblem::WrongType { expected: "32", found: other.describe() };
        return Err(problem.at(ALIGNMENT_KEY));
    }
    let mut header = b"GGUF".to_vec();
    header.extend(VERSION.to_le_bytes());
    put_length(&mut header, tensors.len());
    put_length(&mut header, metadata.len());
    for (key, value) in metadata {
        put_text(&mut header, key);
        put_value(&mut header, value);
    }
    let mut placed = Vec::with_capacity(tensors.len());
    let mut end = 0_usize;
    for (index, tensor) in tensors.iter().enumerate() {
        let range = place(tensor, end).and_then(|range| {
            put_tensor(&mut header, tensor, range.start)?;
            Ok(range)
        });
        let range = range.at(format_args!("tensor `{}`", shorten(&tensor.name)))?;
        end = range.end;
        placed.push((index, range));
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    let start = header.len();
    for (_, range) in &mut placed {
        *range = start + range.start..start + range.end;
    }
    Ok(FileLayout { header, tensors: placed, size: (start + end).next_multiple_of(ALIGNMENT) })
}

/// Gives a tensor the next aligned bytes of the data.
fn place(tensor: &TensorPlan, end: usize) -> Result<std::ops::Range<usize>, FormatProblem> {
    let start = end.next_multiple_of(ALIGNMENT);
    let length = byte_length(tensor.tensor_type, &tensor.shape)?;
    let overflow = || FormatProblem::SizeOverflow { shape: tensor.shape.clone() };
    // Room for the padding behind it, too.
    let end = start.checked_add(length).filter(|end| *end <= isize::MAX as usize).ok_or_else(overflow)?;
    Ok(start..end)
}

fn put_tensor(out: &mut Vec<u8>, tensor: &TensorPlan, offset: usize) -> Result<(), FormatProblem> {
    let tensor_type = tensor.tensor_type;
    let number = type_number(tensor_type)
        .ok_or(FormatProblem::NoSuchTensorType { format: "GGUF", name: tensor_type.as_str() })?;
    put_text(out, &tensor.name);
    out.extend((tensor.shape.len() as u32).to_le_bytes());
    tensor.shape.iter().rev().for_each(|&size| put_length(out, size));
    out.extend(number.to_le_bytes());
    put_length(out, offset);
    Ok(())
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend((length as u64).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend(text.as_bytes());
}

/// Writes a type number and the value.
fn put_value(out: &mut Vec<u8>, value: &GgufValue) {
    let mut put = |value_type: u32, bytes: &[u8]| {
        out.extend(value_type.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        GgufValue::U8(value) => put(value_type::U8, &value.to_le_bytes()),
        GgufValue::I8(value) => put(value_type::I8, &value.to_le_bytes()),
        GgufValue::U16(value) => put(value_type::U16, &value.to_le_bytes()),
        GgufValue::I16(value) => put(value_type::I16, &value.to_le_bytes()),
        GgufValue::U32(value) => put(value_type::U32, &value.to_le_bytes()),
        GgufValue::I32(value) => put(value_type::I32, &value.to_le_bytes()),
        GgufValue::U64(value) => put(value_type::U64, &value.to_le_bytes()),
        GgufValue::I64(value) => put(value_type::I64, &value.to_le_bytes()),
        GgufValue::F32(value) => put(value_type::F32, &value.to_le_bytes()),
        GgufValue::F64(value) => put(value_type::F64, &value.to_le_bytes()),
        GgufValue::Bool(value) => put(value_type::BOOL, &[u8::from(*value)]),
        GgufValue::String(text) => {
            put(value_type::STRING, &(text.len() as u64).to_le_bytes());
            out.extend(text.as_bytes());
        }
        GgufValue::Array(array) => {
            put(value_type::ARRAY, &[]);
            put_array(out, array);
        }
    }
}

/// Writes an element type, a count and the elements.
fn put_array(out: &mut Vec<u8>, array: &GgufArray) {
    let mut put = |value_type: u32, elements: Vec<u8>| {
        out.extend(value_type.to_le_bytes());
        put_length(out, array.len());
        out.extend(elements);
    };
    match array {
        GgufArray::U8(values) => put(value_type::U8, values.clone()),
        GgufArray::I8(values) => put(value_type::I8, packed(values, i8::to_le_bytes)),
        GgufArray::U16(values) => put(value_type::U16, packed(values, u16::to_le_bytes)),
        GgufArray::I16(values) => put(value_type::I16, packed(values, i16::to_le_bytes)),
        GgufArray::U32(values) => put(value_type::U32, packed(values, u32::to_le_bytes)),
        GgufArray::I32(values) => put(value_type::I32, packed(values, i32::to_le_bytes)),
        GgufArray::U64(values) => put(value_type::U64, packed(values, u64::to_le_bytes)),
        GgufArray::I64(values) => put(value_type::I64, packed(values, i64::to_le_bytes)),
        GgufArray::F32(values) => put(value_type::F32, packed(values, f32::to_le_bytes)),
        GgufArray::F64(values) => put(value_type::F64, packed(values, f64::to_le_bytes)),
        GgufArray::Bool(values) => {
            put(value_type::BOOL, values.iter().map(|value| u8::from(*value)).collect())
        }
        GgufArray::String(strings) => {
            let mut elements = Vec::new();
            strings.iter().for_each(|text| put_text(&mut elements, text));
            put(value_type::STRING, elements);
        }
    }
}

fn packed<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}
