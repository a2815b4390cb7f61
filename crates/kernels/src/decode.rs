//! Stored weights to f32, 32 elements at a time, exactly as ggml's reference does it.

use crate::format::Format;
use crate::isa::{Isa, Kernel, Simd};

/// A storage format whose 32 elements take `N` bytes.
pub(crate) trait Decode<const N: usize> {
    /// Elements 0 to 15 and 16 to 31 of one step.
    fn decode<S: Simd>(simd: S, step: &[u8; N]) -> [S::V; 2];
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Bf16;
pub(crate) struct Q8_0;
pub(crate) struct Q4_0;
pub(crate) struct Q4_1;

/// Calls a function of a generic format with the type that belongs to `$format`.
macro_rules! with_format {
    ($format:expr, $call:ident::<$simd:ty>($($arg:expr),*)) => {
        match $format {
            $crate::Format::F32 => $call::<$simd, $crate::decode::F32, 128>($($arg),*),
            $crate::Format::F16 => $call::<$simd, $crate::decode::F16, 64>($($arg),*),
            $crate::Format::BF16 => $call::<$simd, $crate::decode::Bf16, 64>($($arg),*),
            $crate::Format::Q8_0 => $call::<$simd, $crate::decode::Q8_0, 34>($($arg),*),
            $crate::Format::Q4_0 => $call::<$simd, $crate::decode::Q4_0, 18>($($arg),*),
            $crate::Format::Q4_1 => $call::<$simd, $crate::decode::Q4_1, 20>($($arg),*),
        }
    };
}
pub(crate) use with_format;

/// Bytes `START..START + M` of `from`.
#[inline(always)]
pub(crate) fn part<const START: usize, const M: usize, const N: usize, T>(from: &[T; N]) -> &[T; M] {
    from[START..].first_chunk().expect("invariant: the part is within the array")
}

impl Decode<128> for F32 {
    #[inline(always)]
    fn decode<S: Simd>(simd: S, step: &[u8; 128]) -> [S::V; 2] {
        [simd.load_f32(part::<0, 64, 128, _>(step)), simd.load_f32(part::<64, 64, 128, _>(step))]
    }
}

impl Decode<64> for F16 {
    #[inline(always)]
    fn decode<S: Simd>(simd: S, step: &[u8; 64]) -> [S::V; 2] {
        [simd.load_f16(part::<0, 32, 64, _>(step)), simd.load_f16(part::<32, 32, 64, _>(step))]
    }
}

impl Decode<64> for Bf16 {
    #[inline(always)]
    fn decode<S: Simd>(simd: S, step: &[u8; 64]) -> [S::V; 2] {
        [simd.load_bf16(part::<0, 32, 64, _>(step)), simd.load_bf16(part::<32, 32, 64, _>(step))]
    }
}

impl Decode<34> for Q8_0 {
    #[inline(always)]
    fn decode<S: Simd>(simd: S, step: &[u8; 34]) -> [S::V; 2] {
        let d = simd.splat_f16([step[0], step[1]]);
        let low = simd.load_i8(part::<2, 16, 34, _>(step));
        let high = simd.load_i8(part::<18, 16, 34, _>(step));
        [simd.mul(d, low), simd.mul(d, high)]
    }
}

/// The sixteen values of a nibble.
const NIBBLES: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
/// The sixteen values of a nibble that stands for -8 to 7.
const NIBBLES_CENTRED: [f32; 16] = [-8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.];

// A block of nibbles has sixteen different values: computing them once and looking them up is cheaper than converting
// and scaling 32 numbers, and rounds the same.

impl Decode<18> for Q4_0 {
    #[inline(always)]
    fn decode<S: Simd>(simd: S, step: &[u8; 18]) -> [S::V; 2] {
        let d = simd.splat_f16([step[0], step[1]]);
        let table = simd.mul(d, simd.load(&NIBBLES_CENTRED));
        simd.lookup_nibbles(table, part::<2, 16, 18, _>(step))
    }
}

impl Decode<20> for Q4_1 {
    #[inline(always)]
    fn decode<S: Simd>(simd: S, step: &[u8; 20]) -> [S::V; 2] {
        let d = simd.splat_f16([step[0], step[1]]);
        let m = simd.splat_f16([step[2], step[3]]);
        let table = simd.add(simd.mul(d, simd.load(&NIBBLES)), m);
        simd.lookup_nibbles(table, part::<4, 16, 20, _>(step))
    }
}

/// The whole steps of a stored row, and the last one filled up with zeros if the row ends inside it.
#[inline(always)]
pub(crate) fn steps<const N: usize>(row: &[u8]) -> (&[[u8; N]], Option<[u8; N]>) {
    let (whole, rest) = row.as_chunks::<N>();
    let mut last = [0; N];
    last[..rest.len()].copy_from_slice(rest);
    (whole, (!rest.is_empty()).then_some(last))
}

/// Decodes a stored row into groups of sixteen, zeros behind the last element; `out` has two groups for each step.
#[inline(always)]
pub(crate) fn decode_row<S: Simd, F: Decode<N>, const N: usize>(simd: S, row: &[u8], out: &mut [Group]) {
    let (whole, last) = steps::<N>(row);
    for (step, out) in whole.iter().chain(&last).zip(out.as_chunks_mut::<2>().0) {
        let [low, high] = F::decode(simd, step);
        simd.store(low, &mut out[0].0);
        simd.store(high, &mut out[1].0);
    }
}

/// Sixteen decoded weights, on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Group(pub(crate) [f32; 16]);

impl Group {
    pub(crate) const ZERO: Self = Self([0.0; 16]);
}

/// Converts a stored row to f32.
///
/// # Panics
/// If `bytes` is not exactly `out.len()` elements of `format`.
pub fn dequantise_row(format: Format, bytes: &[u8], out: &mut [f32]) {
    dequantise_row_with(Isa::detect(), format, bytes, out);
}

fn dequantise_row_with(isa: Isa, format: Format, bytes: &[u8], out: &mut [f32]) {
    let expected = format.row_bytes(out.len());
    assert_eq!(expected, Some(bytes.len()), "bytes of a row of {} {format:?} elements", out.len());
    isa.run(DequantiseRow { format, bytes, out });
}

struct DequantiseRow<'a> {
    format: Format,
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for DequantiseRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        with_format!(self.format, dequantise::<S>(simd, self.bytes, self.out));
    }
}

#[inline(always)]
fn dequantise<S: Simd, F: Decode<N>, const N: usize>(simd: S, bytes: &[u8], out: &mut [f32]) {
    let (whole, last) = steps::<N>(bytes);
    for (step, out) in whole.iter().chain(&last).zip(out.chunks_mut(32)) {
        let mut values = [Group::ZERO; 2];
        let [low, high] = F::decode(simd, step);
        simd.store(low, &mut values[0].0);
        simd.store(high, &mut values[1].0);
        for (out, values) in out.chunks_mut(16).zip(&values) {
            out.copy_from_slice(&values.0[..out.len()]);
        }
    }
}
