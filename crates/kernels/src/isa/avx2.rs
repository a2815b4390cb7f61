//! The lanes as two 256-bit registers: lanes 0 to 7, then 8 to 15.

use std::arch::x86_64::*;

use super::bits;
use super::simd::Simd;

/// Proof that this processor has AVX2, FMA and F16C.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let has_256 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has_256.then_some(Self(()))
    }
}

/// Runs intrinsics in a method of `Avx2`, or in a function that only such methods call.
macro_rules! with_avx2 {
    ($body:expr) => {
        // SAFETY: a value of `Avx2` proves that the processor has the features.
        unsafe { $body }
    };
}

type Pair = [__m256; 2];

/// `2^n` for integral lanes of normal results.
#[inline(always)]
fn power(n: __m256i) -> __m256 {
    with_avx2!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))))
}

/// Two exact-or-final multiplications, because `2^n` itself may not be a normal number.
#[inline(always)]
fn scale(a: __m256, n: __m256) -> __m256 {
    with_avx2!({
        let n = _mm256_cvtps_epi32(n);
        let half = _mm256_srai_epi32::<1>(n);
        _mm256_mul_ps(_mm256_mul_ps(a, power(half)), power(_mm256_sub_epi32(n, half)))
    })
}

/// Bits 0 to 2 of an index choose within each half of the table; bit 3, moved to the sign, chooses the half.
#[inline(always)]
fn lookup(table: Pair, bytes: [u8; 8]) -> Pair {
    with_avx2!({
        let low = _mm256_cvtepu8_epi32(_mm_set_epi64x(0, i64::from_le_bytes(bytes)));
        let high = _mm256_srli_epi32::<4>(low);
        let pick = |index: __m256i, half: __m256i| {
            let first = _mm256_permutevar8x32_ps(table[0], index);
            let second = _mm256_permutevar8x32_ps(table[1], index);
            _mm256_blendv_ps(first, second, _mm256_castsi256_ps(half))
        };
        [pick(low, _mm256_slli_epi32::<28>(low)), pick(high, _mm256_slli_epi32::<24>(low))]
    })
}

impl Simd for Avx2 {
    type V = Pair;

    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        with_avx2!([_mm256_set1_ps(value); 2])
    }

    #[inline(always)]
    fn splat_f16(self, bits: [u8; 2]) -> Pair {
        with_avx2!([_mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes(bits))); 2])
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> Pair {
        bits!([f32; 16] as Pair: *from)
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> Pair {
        let [a, b] = bits!([u8; 32] as [__m128i; 2]: *from);
        with_avx2!([_mm256_cvtph_ps(a), _mm256_cvtph_ps(b)])
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> Pair {
        let [a, b] = bits!([u8; 32] as [__m128i; 2]: *from);
        with_avx2!([
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(a))),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(b))),
        ])
    }

    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> Pair {
        bits!([u8; 64] as Pair: *from)
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> Pair {
        let all = bits!([u8; 16] as __m128i: *from);
        with_avx2!([
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(all)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(all))),
        ])
    }

    #[inline(always)]
    fn lookup_nibbles(self, table: Pair, from: &[u8; 16]) -> [Pair; 2] {
        let [a, b] = bits!([u8; 16] as [[u8; 8]; 2]: *from);
        let [[low_a, high_a], [low_b, high_b]] = [lookup(table, a), lookup(table, b)];
        [[low_a, low_b], [high_a, high_b]]
    }

    #[inline(always)]
    fn store(self, v: Pair, to: &mut [f32; 16]) {
        *to = bits!(Pair as [f32; 16]: v);
    }

    #[inline(always)]
    fn store_f16(self, v: Pair, to: &mut [u8; 32]) {
        const ROUNDING: i32 = _MM_FROUND_TO_NEAREST_INT;
        let halves = with_avx2!([_mm256_cvtps_ph::<ROUNDING>(v[0]), _mm256_cvtps_ph::<ROUNDING>(v[1])]);
        *to = bits!([__m128i; 2] as [u8; 32]: halves);
    }

    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        with_avx2!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn sub(self, a: Pair, b: Pair) -> Pair {
        with_avx2!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        with_avx2!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn div(self, a: Pair, b: Pair) -> Pair {
        with_avx2!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn fma(self, a: Pair, b: Pair, c: Pair) -> Pair {
        with_avx2!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }

    #[inline(always)]
    fn max(self, a: Pair, b: Pair) -> Pair {
        with_avx2!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn min(self, a: Pair, b: Pair) -> Pair {
        with_avx2!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn round(self, a: Pair) -> Pair {
        const ROUNDING: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        with_avx2!([_mm256_round_ps::<ROUNDING>(a[0]), _mm256_round_ps::<ROUNDING>(a[1])])
    }

    #[inline(always)]
    fn scale_by_power(self, a: Pair, n: Pair) -> Pair {
        [scale(a[0], n[0]), scale(a[1], n[1])]
    }

    #[inline(always)]
    fn sum(self, a: Pair) -> f32 {
        with_avx2!({
            let a = _mm256_add_ps(a[0], a[1]);
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        })
    }

    #[inline(always)]
    fn max_lane(self, a: Pair) -> f32 {
        with_avx2!({
            let a = _mm256_max_ps(a[0], a[1]);
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps::<1>(a, a)))
        })
    }
}
