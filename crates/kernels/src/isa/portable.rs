//! The lanes in plain Rust: what the other instruction sets are compared with, and what other processors run.

use half::{bf16, f16};

use super::simd::Simd;

/// No instruction set in particular.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Portable;

type Lanes = [f32; 16];

#[inline(always)]
fn lanes(mut lane: impl FnMut(usize) -> f32) -> Lanes {
    let mut out = [0.0; 16];
    for (i, out) in out.iter_mut().enumerate() {
        *out = lane(i);
    }
    out
}

/// Folds lanes 8 apart, then 4, 2, 1.
#[inline(always)]
fn tree(mut a: Lanes, op: impl Fn(f32, f32) -> f32) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            a[i] = op(a[i], a[i + width]);
        }
    }
    a[0]
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `2^n` for normal results.
#[inline(always)]
fn power(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

impl Simd for Portable {
    type V = Lanes;

    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; 16]
    }

    #[inline(always)]
    fn splat_f16(self, bits: [u8; 2]) -> Lanes {
        [f16::from_le_bytes(bits).to_f32(); 16]
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> Lanes {
        *from
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> Lanes {
        lanes(|i| f16::from_le_bytes([from[2 * i], from[2 * i + 1]]).to_f32())
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> Lanes {
        lanes(|i| bf16::from_le_bytes([from[2 * i], from[2 * i + 1]]).to_f32())
    }

    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> Lanes {
        let (words, _) = from.as_chunks::<4>();
        lanes(|i| f32::from_le_bytes(words[i]))
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> Lanes {
        lanes(|i| f32::from(from[i] as i8))
    }

    #[inline(always)]
    fn lookup_nibbles(self, table: Lanes, from: &[u8; 16]) -> [Lanes; 2] {
        [lanes(|i| table[usize::from(from[i] & 15)]), lanes(|i| table[usize::from(from[i] >> 4)])]
    }

    #[inline(always)]
    fn store(self, v: Lanes, to: &mut [f32; 16]) {
        *to = v;
    }

    #[inline(always)]
    fn store_f16(self, v: Lanes, to: &mut [u8; 32]) {
        for (to, v) in to.as_chunks_mut::<2>().0.iter_mut().zip(v) {
            *to = f16::from_f32(v).to_le_bytes();
        }
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        lanes(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        lanes(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        lanes(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        lanes(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        lanes(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        lanes(|i| greater(a[i], b[i]))
    }

    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        lanes(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn round(self, a: Lanes) -> Lanes {
        lanes(|i| a[i].round_ties_even())
    }

    /// Two exact-or-final multiplications, because `2^n` itself may not be a normal number.
    #[inline(always)]
    fn scale_by_power(self, a: Lanes, n: Lanes) -> Lanes {
        lanes(|i| {
            let n = n[i] as i32;
            let half = n >> 1;
            a[i] * power(half) * power(n - half)
        })
    }

    #[inline(always)]
    fn sum(self, a: Lanes) -> f32 {
        tree(a, |a, b| a + b)
    }

    #[inline(always)]
    fn max_lane(self, a: Lanes) -> f32 {
        tree(a, greater)
    }
}
