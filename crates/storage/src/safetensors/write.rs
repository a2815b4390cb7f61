//! The header of a safetensors file to be, as the reference crate would write it.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{LENGTH_BYTES, METADATA_KEY, TYPE_NAMES};
use crate::file_layout::{FileLayout, TensorPlan};
use crate::format::{FieldError, FormatProblem, shorten};
use crate::tensor::{byte_length, element_alignment};
use crate::{SafetensorsHeader, StorageError};

/// What the header is padded to with spaces, so that data begins aligned.
const HEADER_ALIGNMENT: usize = 8;

impl SafetensorsHeader {
    /// Lays out a file with these tensors and this `__metadata__`. Wider elements come first, then names in order, so
    /// that each tensor begins at a multiple of its element. `file` is its name for errors.
    ///
    /// # Errors
    /// [`StorageError::Format`] for an element type that safetensors does not have, or a size that overflows.
    pub fn layout(
        file: &str,
        tensors: &[TensorPlan],
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileLayout, StorageError> {
        layout(tensors, metadata).map_err(|error| error.in_file(file).into())
    }
}

fn layout(tensors: &[TensorPlan], metadata: &BTreeMap<String, String>) -> Result<FileLayout, FieldError> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| {
        let tensor = &tensors[index];
        (std::cmp::Reverse(element_alignment(tensor.tensor_type)), &tensor.name)
    });
    let mut entries = Vec::with_capacity(order.len());
    let mut end = 0_usize;
    for index in order {
        let tensor = &tensors[index];
        let entry = place(tensor, end).map_err(|problem| problem.at(field(tensor)))?;
        end = entry.data_offsets.1;
        entries.push((index, entry));
    }
    let document = Document { tensors, entries: &entries, metadata };
    let mut json = serde_json::to_vec(&document).expect("invariant: the header has only string keys");
    json.resize(json.len().next_multiple_of(HEADER_ALIGNMENT), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    debug_assert!(header.len() > LENGTH_BYTES);
    let start = header.len();
    let placed = |(index, entry): &(usize, Entry<'_>)| {
        (*index, start + entry.data_offsets.0..start + entry.data_offsets.1)
    };
    Ok(FileLayout { tensors: entries.iter().map(placed).collect(), size: start + end, header })
}

fn field(tensor: &TensorPlan) -> String {
    format!("tensor `{}`", shorten(&tensor.name))
}

/// Gives a tensor the bytes from `start` of the data.
fn place(tensor: &TensorPlan, start: usize) -> Result<Entry<'_>, FormatProblem> {
    let found = TYPE_NAMES.iter().find(|(_, tensor_type)| *tensor_type == tensor.tensor_type);
    let dtype = found.map(|(dtype, _)| *dtype).ok_or(FormatProblem::NoSuchTensorType {
        format: "safetensors",
        name: tensor.tensor_type.as_str(),
    })?;
    let length = byte_length(tensor.tensor_type, &tensor.shape)?;
    let end = start
        .checked_add(length)
        .ok_or_else(|| FormatProblem::SizeOverflow { shape: tensor.shape.clone() })?;
    Ok(Entry { dtype, shape: &tensor.shape, data_offsets: (start, end) })
}

/// A tensor's entry as it will stand in the header.
#[derive(serde::Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: (usize, usize),
}

struct Document<'a> {
    tensors: &'a [TensorPlan],
    entries: &'a [(usize, Entry<'a>)],
    metadata: &'a BTreeMap<String, String>,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA_KEY, self.metadata)?;
        }
        for (index, entry) in self.entries {
            map.serialize_entry(&self.tensors[*index].name, entry)?;
        }
        map.end()
    }
}
