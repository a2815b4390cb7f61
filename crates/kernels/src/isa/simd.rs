//! Sixteen f32 lanes: the one vector shape in which all kernels are written.
//!
//! The operations are exactly those whose result IEEE 754 (or this text) fixes to the bit, so that an instruction set
//! with wider, narrower or no vectors gives the same answer.

/// An instruction set as a value: whoever holds one may use its instructions.
pub(crate) trait Simd: Copy + Send + Sync {
    /// Sixteen f32 lanes.
    type V: Copy;

    /// Whether about thirty vectors fit in registers (otherwise about eight do).
    const MANY_REGISTERS: bool;

    /// All lanes `value`.
    fn splat(self, value: f32) -> Self::V;
    /// All lanes the little-endian f16 in `bits`.
    fn splat_f16(self, bits: [u8; 2]) -> Self::V;
    /// Lane `i` is `from[i]`.
    fn load(self, from: &[f32; 16]) -> Self::V;
    /// Sixteen little-endian f16.
    fn load_f16(self, from: &[u8; 32]) -> Self::V;
    /// Sixteen little-endian bf16.
    fn load_bf16(self, from: &[u8; 32]) -> Self::V;
    /// Sixteen little-endian f32.
    fn load_f32(self, from: &[u8; 64]) -> Self::V;
    /// Sixteen two's-complement bytes.
    fn load_i8(self, from: &[u8; 16]) -> Self::V;
    /// Looks nibbles up in a table of sixteen values: first the low nibble of each byte, then the high.
    fn lookup_nibbles(self, table: Self::V, from: &[u8; 16]) -> [Self::V; 2];
    /// `to[i]` becomes lane `i`.
    fn store(self, v: Self::V, to: &mut [f32; 16]);
    /// Stores little-endian f16, rounded to nearest, ties to even.
    fn store_f16(self, v: Self::V, to: &mut [u8; 32]);

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a` where `a > b`, else `b`; so a NaN in `b` stays.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where `a < b`, else `b`; so a NaN in `b` stays.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^n`, rounded once, for integral `n` in `-150..=128` and `a` in `0.5..2`; NaN where `a` is NaN.
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V;

    /// Sum of the lanes as a tree: lanes 8 apart, then 4, 2, 1.
    fn sum(self, a: Self::V) -> f32;
    /// [`Self::max`] of the lanes, in the same tree as [`Self::sum`].
    fn max_lane(self, a: Self::V) -> f32;

    /// Up to sixteen values, zeros behind them.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::V {
        let mut lanes = [0.0; 16];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// The first `to.len()` (at most sixteen) lanes.
    #[inline(always)]
    fn store_part(self, v: Self::V, to: &mut [f32]) {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }
}
