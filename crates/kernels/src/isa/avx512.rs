//! The lanes as one 512-bit register.

use std::arch::x86_64::*;

use super::bits;
use super::simd::Simd;

/// Proof that this processor has AVX-512 F, BW, VL and DQ, and what is older.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let has_512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        let has_256 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        (has_512 && has_256).then_some(Self(()))
    }
}

/// Runs intrinsics in a method of `Avx512`.
macro_rules! with_avx512 {
    ($body:expr) => {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { $body }
    };
}

impl Simd for Avx512 {
    type V = __m512;

    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        with_avx512!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn splat_f16(self, bits: [u8; 2]) -> __m512 {
        with_avx512!(_mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(bits))))
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        bits!([f32; 16] as __m512: *from)
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> __m512 {
        let halves = bits!([u8; 32] as __m256i: *from);
        with_avx512!(_mm512_cvtph_ps(halves))
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> __m512 {
        let words = bits!([u8; 32] as __m256i: *from);
        with_avx512!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words))))
    }

    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> __m512 {
        bits!([u8; 64] as __m512: *from)
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> __m512 {
        let bytes = bits!([u8; 16] as __m128i: *from);
        with_avx512!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)))
    }

    /// The permutation takes four bits of each index, so low nibbles need no mask.
    #[inline(always)]
    fn lookup_nibbles(self, table: __m512, from: &[u8; 16]) -> [__m512; 2] {
        let bytes = bits!([u8; 16] as __m128i: *from);
        with_avx512!({
            let low = _mm512_cvtepu8_epi32(bytes);
            let high = _mm512_srli_epi32::<4>(low);
            [_mm512_permutexvar_ps(low, table), _mm512_permutexvar_ps(high, table)]
        })
    }

    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; 16]) {
        *to = bits!(__m512 as [f32; 16]: v);
    }

    #[inline(always)]
    fn store_f16(self, v: __m512, to: &mut [u8; 32]) {
        let halves = with_avx512!(_mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v));
        *to = bits!(__m256i as [u8; 32]: halves);
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        with_avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        with_avx512!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn scale_by_power(self, a: __m512, n: __m512) -> __m512 {
        with_avx512!(_mm512_scalef_ps(a, n))
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        with_avx512!({
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        })
    }

    #[inline(always)]
    fn max_lane(self, a: __m512) -> f32 {
        with_avx512!({
            let a = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps::<1>(a, a)))
        })
    }
}
