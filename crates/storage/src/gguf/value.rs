//! Metadata values. Arrays are kept packed, so that a parsed header is no larger than the file's.

use crate::format::FormatProblem;

use super::reader::Reader;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the format's own types")]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(GgufArray),
}

/// An array of values of one type.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the format's own types")]
pub enum GgufArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(StringArray),
}

/// Strings behind each other in one allocation: a vocabulary of 49,152 entries costs two allocations, not 49,152.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringArray {
    text: String,
    /// Where each string ends in `text`.
    ends: Vec<u32>,
}

/// The format's numbers of its value types.
pub(super) mod value_type {
    pub(in crate::gguf) const U8: u32 = 0;
    pub(in crate::gguf) const I8: u32 = 1;
    pub(in crate::gguf) const U16: u32 = 2;
    pub(in crate::gguf) const I16: u32 = 3;
    pub(in crate::gguf) const U32: u32 = 4;
    pub(in crate::gguf) const I32: u32 = 5;
    pub(in crate::gguf) const F32: u32 = 6;
    pub(in crate::gguf) const BOOL: u32 = 7;
    pub(in crate::gguf) const STRING: u32 = 8;
    pub(in crate::gguf) const ARRAY: u32 = 9;
    pub(in crate::gguf) const U64: u32 = 10;
    pub(in crate::gguf) const I64: u32 = 11;
    pub(in crate::gguf) const F64: u32 = 12;
}

impl GgufValue {
    /// Reads a type number and a value of that type.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatProblem> {
        Ok(match reader.u32()? {
            value_type::U8 => Self::U8(u8::from_le_bytes(reader.array()?)),
            value_type::I8 => Self::I8(i8::from_le_bytes(reader.array()?)),
            value_type::U16 => Self::U16(u16::from_le_bytes(reader.array()?)),
            value_type::I16 => Self::I16(i16::from_le_bytes(reader.array()?)),
            value_type::U32 => Self::U32(u32::from_le_bytes(reader.array()?)),
            value_type::I32 => Self::I32(i32::from_le_bytes(reader.array()?)),
            value_type::F32 => Self::F32(f32::from_le_bytes(reader.array()?)),
            value_type::BOOL => Self::Bool(truth_value(reader.array()?)?),
            value_type::STRING => Self::String(reader.string()?.to_owned()),
            value_type::ARRAY => Self::Array(GgufArray::read(reader)?),
            value_type::U64 => Self::U64(u64::from_le_bytes(reader.array()?)),
            value_type::I64 => Self::I64(i64::from_le_bytes(reader.array()?)),
            value_type::F64 => Self::F64(f64::from_le_bytes(reader.array()?)),
            value_type => return Err(FormatProblem::UnknownValueType { value_type }),
        })
    }

    /// The value of any integer type.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(value) => value.into(),
            Self::I8(value) => value.into(),
            Self::U16(value) => value.into(),
            Self::I16(value) => value.into(),
            Self::U32(value) => value.into(),
            Self::I32(value) => value.into(),
            Self::U64(value) => value.into(),
            Self::I64(value) => value.into(),
            _ => return None,
        })
    }

    /// The value as an error message shows it: short, whatever its size.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::String(text) => format!("string `{}`", crate::format::shorten(text)),
            Self::Array(array) => format!("an array of {} values", array.len()),
            scalar => format!("{scalar:?}"),
        }
    }
}

impl GgufArray {
    /// Reads an element type, a count and the elements.
    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatProblem> {
        Ok(match reader.u32()? {
            value_type::U8 => Self::U8(packed(reader, u8::from_le_bytes)?),
            value_type::I8 => Self::I8(packed(reader, i8::from_le_bytes)?),
            value_type::U16 => Self::U16(packed(reader, u16::from_le_bytes)?),
            value_type::I16 => Self::I16(packed(reader, i16::from_le_bytes)?),
            value_type::U32 => Self::U32(packed(reader, u32::from_le_bytes)?),
            value_type::I32 => Self::I32(packed(reader, i32::from_le_bytes)?),
            value_type::F32 => Self::F32(packed(reader, f32::from_le_bytes)?),
            value_type::BOOL => Self::Bool(truth_values(reader)?),
            value_type::STRING => Self::String(StringArray::read(reader)?),
            value_type::ARRAY => return Err(FormatProblem::NestedArray),
            value_type::U64 => Self::U64(packed(reader, u64::from_le_bytes)?),
            value_type::I64 => Self::I64(packed(reader, i64::from_le_bytes)?),
            value_type::F64 => Self::F64(packed(reader, f64::from_le_bytes)?),
            value_type => return Err(FormatProblem::UnknownValueType { value_type }),
        })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::String(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a count and as many numbers of `N` bytes.
fn packed<T, const N: usize>(
    reader: &mut Reader<'_>,
    number: fn([u8; N]) -> T,
) -> Result<Vec<T>, FormatProblem> {
    let count = reader.count(0, u64::MAX, N as u64)?;
    let (elements, _) = reader.take((count * N) as u64)?.as_chunks::<N>();
    Ok(elements.iter().map(|&bytes| number(bytes)).collect())
}

fn truth_values(reader: &mut Reader<'_>) -> Result<Vec<bool>, FormatProblem> {
    let count = reader.count(0, u64::MAX, 1)?;
    reader.take(count as u64)?.iter().map(|&byte| truth_value([byte])).collect()
}

fn truth_value([value]: [u8; 1]) -> Result<bool, FormatProblem> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(FormatProblem::InvalidBool { value }),
    }
}

impl StringArray {
    /// Reads a count and as many strings: once to measure, once to copy, so that nothing is allocated twice.
    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatProblem> {
        let count = reader.count(0, u64::from(u32::MAX), size_of::<u64>() as u64)?;
        let mut measuring = *reader;
        let mut text_bytes = 0;
        for _ in 0..count {
            let length = measuring.u64()?;
            text_bytes += measuring.take(length)?.len() as u64;
        }
        if text_bytes > u64::from(u32::MAX) {
            return Err(FormatProblem::OutOfRange { count: text_bytes, min: 0, max: u32::MAX.into() });
        }
        let mut array =
            Self { text: String::with_capacity(text_bytes as usize), ends: Vec::with_capacity(count) };
        for _ in 0..count {
            array.text.push_str(reader.string()?);
            array.ends.push(array.text.len() as u32);
        }
        Ok(array)
    }

    /// Packs strings; `None` if they have more than 4 GiB together, which the format's readers refuse.
    pub fn pack<'a>(strings: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut array = Self::default();
        for text in strings {
            array.text.push_str(text);
            array.ends.push(u32::try_from(array.text.len()).ok()?);
        }
        Some(array)
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`. O(1).
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |previous| self.ends[previous] as usize);
        Some(&self.text[start..end])
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).expect("invariant: the index is below the length"))
    }
}
