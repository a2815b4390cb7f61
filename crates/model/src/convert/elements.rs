//! What happens to the elements of one tensor on their way, in bounded memory.

use half::{bf16, f16};
use helios_storage::{BlobWriter, TensorView};
use helios_types::TensorType;

use crate::ModelError;

/// Bytes gathered before they go to the file.
const BUFFER_BYTES: usize = 1 << 20;

/// How a tensor differs between the forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    None,
    /// Rows of each of so many heads, halves behind each other, become interleaved (`permute` of llama.cpp's
    /// `convert_hf_to_gguf.py`).
    Interleave(usize),
    /// The way back.
    Split(usize),
    /// 16 bits become F32, exactly.
    Widen,
    /// F32 that came from 16 bits becomes those again.
    Narrow(TensorType),
}

/// The file in work.
pub(super) struct Output<'a> {
    writer: BlobWriter,
    buffer: Vec<u8>,
    report: &'a mut dyn FnMut(u64),
}

impl<'a> Output<'a> {
    pub(super) fn new(writer: BlobWriter, report: &'a mut dyn FnMut(u64)) -> Self {
        Self { writer, buffer: Vec::with_capacity(BUFFER_BYTES), report }
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), ModelError> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BUFFER_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if self.buffer.len() == BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn zeros_up_to(&mut self, position: u64) -> Result<(), ModelError> {
        let gap = position.saturating_sub(self.writer.len() + self.buffer.len() as u64);
        self.put(&vec![0; gap as usize])
    }

    pub(super) fn finish(mut self) -> Result<BlobWriter, ModelError> {
        self.flush()?;
        Ok(self.writer)
    }

    fn flush(&mut self) -> Result<(), ModelError> {
        self.writer.write(&self.buffer)?;
        self.buffer.clear();
        (self.report)(self.writer.len());
        Ok(())
    }
}

/// Writes the elements of `view`, changed.
pub(super) fn write(
    view: &TensorView<'_>,
    change: Change,
    output: &mut Output<'_>,
) -> Result<(), ModelError> {
    match change {
        Change::None => output.put(view.bytes),
        Change::Interleave(heads) => rows(view, heads, output, |row, half| (row % 2) * half + row / 2),
        Change::Split(heads) => rows(view, heads, output, |row, half| (row % half) * 2 + row / half),
        Change::Widen => output.put(&widen(view)),
        Change::Narrow(tensor_type) => output.put(&narrow(view.bytes, tensor_type)),
    }
}

/// Writes the rows of each head in another order: `origin` gives the row that comes at a place of a head.
fn rows(
    view: &TensorView<'_>,
    heads: usize,
    output: &mut Output<'_>,
    origin: impl Fn(usize, usize) -> usize,
) -> Result<(), ModelError> {
    let head_rows = view.info.shape[0] / heads;
    let row_bytes = view.bytes.len() / view.info.shape[0];
    for head in view.bytes.chunks_exact(row_bytes * head_rows) {
        for row in 0..head_rows {
            let start = origin(row, head_rows / 2) * row_bytes;
            output.put(&head[start..start + row_bytes])?;
        }
    }
    Ok(())
}

fn widen(view: &TensorView<'_>) -> Vec<u8> {
    let wide = |bits: u16| match view.info.tensor_type {
        TensorType::F16 => f16::from_bits(bits).to_f32(),
        _ => bf16::from_bits(bits).to_f32(),
    };
    let (elements, _) = view.bytes.as_chunks::<2>();
    elements.iter().flat_map(|bytes| wide(u16::from_le_bytes(*bytes)).to_le_bytes()).collect()
}

fn narrow(bytes: &[u8], tensor_type: TensorType) -> Vec<u8> {
    let (elements, _) = bytes.as_chunks::<4>();
    elements
        .iter()
        .flat_map(|bytes| narrow_bits(f32::from_le_bytes(*bytes), tensor_type).to_le_bytes())
        .collect()
}

fn narrow_bits(value: f32, tensor_type: TensorType) -> u16 {
    match tensor_type {
        TensorType::F16 => f16::from_f32(value).to_bits(),
        _ => bf16::from_f32(value).to_bits(),
    }
}

/// Whether narrowing an F32 tensor loses nothing.
pub(super) fn narrows_exactly(bytes: &[u8], tensor_type: TensorType) -> bool {
    let back = |bits: u16| match tensor_type {
        TensorType::F16 => f16::from_bits(bits).to_f32(),
        _ => bf16::from_bits(bits).to_f32(),
    };
    let (elements, _) = bytes.as_chunks::<4>();
    elements.iter().all(|bytes| {
        let value = f32::from_le_bytes(*bytes);
        back(narrow_bits(value, tensor_type)).to_bits() == value.to_bits()
    })
}

/// Whether widening a tensor of 16 bits can be undone to the bit: always, but for signalling NaNs of F16.
pub(super) fn widens_exactly(view: &TensorView<'_>) -> bool {
    narrow(&widen(view), view.info.tensor_type) == view.bytes
}
