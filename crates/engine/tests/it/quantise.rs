//! Writes f32 rows in the storage formats, and says what a reader gets back.

use half::{bf16, f16};
use helios_types::TensorType;

/// The stored bytes of `values` and the values that they stand for.
pub(crate) fn store(tensor_type: TensorType, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let blocks = values.chunks(tensor_type.block_elements());
    let (bytes, read): (Vec<_>, Vec<_>) = blocks.map(|block| store_block(tensor_type, block)).unzip();
    (bytes.concat(), read.concat())
}

fn store_block(tensor_type: TensorType, x: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let min = x.iter().copied().fold(f32::INFINITY, f32::min);
    let largest = max.abs().max(min.abs());
    match tensor_type {
        TensorType::F32 => (x[0].to_le_bytes().to_vec(), x.to_vec()),
        TensorType::F16 => (f16::from_f32(x[0]).to_le_bytes().to_vec(), vec![f16::from_f32(x[0]).to_f32()]),
        TensorType::BF16 => {
            (bf16::from_f32(x[0]).to_le_bytes().to_vec(), vec![bf16::from_f32(x[0]).to_f32()])
        }
        TensorType::Q8_0 => {
            let d = f16::from_f32(largest / 127.0);
            let q: Vec<i8> = x.iter().map(|x| (x / d.to_f32()).round().clamp(-127.0, 127.0) as i8).collect();
            let bytes = d.to_le_bytes().into_iter().chain(q.iter().map(|q| *q as u8)).collect();
            (bytes, q.iter().map(|q| d.to_f32() * f32::from(*q)).collect())
        }
        TensorType::Q4_0 => {
            let d = f16::from_f32(largest / 8.0);
            let q: Vec<u8> =
                x.iter().map(|x| (x / d.to_f32() + 8.0).round().clamp(0.0, 15.0) as u8).collect();
            let bytes = d.to_le_bytes().into_iter().chain(nibbles(&q)).collect();
            (bytes, q.iter().map(|q| d.to_f32() * (f32::from(*q) - 8.0)).collect())
        }
        TensorType::Q4_1 => {
            let (d, m) = (f16::from_f32((max - min) / 15.0), f16::from_f32(min));
            let level = |x: &f32| ((x - m.to_f32()) / d.to_f32()).round().clamp(0.0, 15.0) as u8;
            let q: Vec<u8> = x.iter().map(level).collect();
            let bytes = d.to_le_bytes().into_iter().chain(m.to_le_bytes()).chain(nibbles(&q)).collect();
            (bytes, q.iter().map(|q| d.to_f32() * f32::from(*q) + m.to_f32()).collect())
        }
        other => panic!("nothing is stored as {other} here"),
    }
}

/// Elements 0 to 15 in the low halves, 16 to 31 in the high ones.
fn nibbles(q: &[u8]) -> impl Iterator<Item = u8> + '_ {
    (0..16).map(|i| q[i] | q[i + 16] << 4)
}
