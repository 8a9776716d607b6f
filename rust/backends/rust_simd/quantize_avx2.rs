//! Quantisation with AVX2, bit for bit as `docs/NUMERICS.md` states it.
//!
//! The largest magnitude is found on bit patterns: without their sign they order like the magnitudes, and every
//! NaN and infinity lies at or above the pattern of infinity, so one integer maximum answers both questions.
//! Rounding is `vcvtps2dq`, half to even in the default mode; `vpackss` saturates, which is the clamp. Loops that
//! the compiler turns into the same vectors by itself are left to it. The sum inside absmean is serial by
//! definition (float64, in index order).

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm256_add_epi32, _mm256_cvtepi8_epi32, _mm256_cvtps_epi32,
    _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_packs_epi16, _mm256_packs_epi32,
    _mm256_permutevar_ps, _mm256_permutevar8x32_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setr_ps,
    _mm256_setzero_si256, _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::super::detect::Avx2;
use super::Elementwise;
use super::ternary::{self, TernaryLoops, first_non_finite};

/// Values per step: four vectors of floats become one of bytes.
const STEP: usize = 32;

impl Elementwise for Avx2 {
    fn max_abs(self, x: &[f32]) -> Result<f32, usize> {
        // SAFETY: `self` proves that this CPU runs AVX2 and FMA.
        let max_abs = f32::from_bits(unsafe { largest_magnitude_bits(x) });
        if max_abs.is_finite() {
            return Ok(max_abs);
        }
        Err(first_non_finite(x))
    }

    fn quantize(self, x: &[f32], scale: f32, q: &mut [i8]) -> i32 {
        // SAFETY: `self` proves that this CPU runs AVX2 and FMA.
        unsafe { quantize(x, scale, q) }
    }

    fn rescale(self, dot: &[i32], activation_scale: f32, weight_scale: f32, y: &mut [f32]) {
        // SAFETY: `self` proves that this CPU runs AVX2 and FMA.
        unsafe { rescale(dot, activation_scale, weight_scale, y) }
    }
}

impl TernaryLoops for Avx2 {
    fn magnitudes(self, x: &[f32]) -> (u32, f64) {
        // SAFETY: `self` proves that this CPU runs AVX2 and FMA.
        unsafe { magnitudes(x) }
    }

    fn round(self, src: &[f32], multiplier: f32, codes: &mut [i8]) {
        // SAFETY: `self` proves that this CPU runs AVX2 and FMA.
        unsafe { round_to_ternary(src, multiplier, codes) }
    }

    fn signs(self, src: &[f32], codes: &mut [i8]) {
        // SAFETY: `self` proves that this CPU runs AVX2 and FMA.
        unsafe { signs(src, codes) }
    }
}

/// `dst` = f32(code) * scale.
pub(super) fn dequantize(_: Avx2, codes: &[i8], scale: f32, dst: &mut [f32]) {
    // SAFETY: the token proves that this CPU runs AVX2 and FMA.
    unsafe { multiply(codes, scale, dst) }
}

#[target_feature(enable = "avx2,fma")]
fn largest_magnitude_bits(x: &[f32]) -> u32 {
    ternary::largest_magnitude_bits(x)
}

#[target_feature(enable = "avx2,fma")]
fn magnitudes(x: &[f32]) -> (u32, f64) {
    ternary::magnitudes(x)
}

#[target_feature(enable = "avx2,fma")]
fn signs(src: &[f32], codes: &mut [i8]) {
    ternary::signs(src, codes);
}

#[target_feature(enable = "avx2,fma")]
fn quantize(x: &[f32], scale: f32, q: &mut [i8]) -> i32 {
    let (x_steps, x_rest) = x.as_chunks::<STEP>();
    let (q_steps, q_rest) = q.as_chunks_mut::<STEP>();
    let multiplier = _mm256_set1_ps(scale);
    let mut sums = _mm256_setzero_si256();
    for (x, q) in x_steps.iter().zip(q_steps) {
        let rounded = load4(x).map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, multiplier)));
        for rounded in rounded {
            sums = _mm256_add_epi32(sums, rounded);
        }
        store(q, pack_to_i8(rounded));
    }
    let mut sum = lanes(sums).into_iter().fold(0, i32::wrapping_add);
    for (x, q) in x_rest.iter().zip(q_rest) {
        *q = (x * scale).round_ties_even().clamp(-128.0, 127.0) as i8;
        sum = sum.wrapping_add(i32::from(*q));
    }
    sum
}

#[target_feature(enable = "avx2,fma")]
fn rescale(dot: &[i32], activation_scale: f32, weight_scale: f32, y: &mut [f32]) {
    for (y, &dot) in y.iter_mut().zip(dot) {
        *y = dot as f32 / activation_scale * weight_scale;
    }
}

/// clamp(round_half_even(w * multiplier), -1, 1). The clamp comes first, so that nothing is too large to round.
#[target_feature(enable = "avx2,fma")]
fn round_to_ternary(src: &[f32], multiplier: f32, codes: &mut [i8]) {
    let (src_steps, src_rest) = src.as_chunks::<STEP>();
    let (code_steps, code_rest) = codes.as_chunks_mut::<STEP>();
    let (factor, low, high) = (_mm256_set1_ps(multiplier), _mm256_set1_ps(-1.0), _mm256_set1_ps(1.0));
    for (src, codes) in src_steps.iter().zip(code_steps) {
        let rounded = load4(src).map(|w| {
            let scaled = _mm256_mul_ps(w, factor);
            _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(scaled, low), high))
        });
        store(codes, pack_to_i8(rounded));
    }
    for (w, code) in src_rest.iter().zip(code_rest) {
        *code = (w * multiplier).clamp(-1.0, 1.0).round_ties_even() as i8;
    }
}

/// The two low bits of a code choose among the three products.
#[target_feature(enable = "avx2,fma")]
fn multiply(codes: &[i8], scale: f32, dst: &mut [f32]) {
    let products = products([0.0, 1.0, 0.0, -1.0], scale);
    let (code_steps, code_rest) = codes.as_chunks::<8>();
    let (dst_steps, dst_rest) = dst.as_chunks_mut::<8>();
    for (dst, codes) in dst_steps.iter_mut().zip(code_steps) {
        // SAFETY: the arrays hold 8 codes and 8 floats; an unaligned load and an unaligned store.
        unsafe {
            let codes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(codes.as_ptr().cast()));
            _mm256_storeu_ps(dst.as_mut_ptr(), _mm256_permutevar_ps(products, codes));
        }
    }
    for (value, &code) in dst_rest.iter_mut().zip(code_rest) {
        *value = f32::from(code) * scale;
    }
}

/// Four codes times `scale`, twice.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn products(codes: [f32; 4], scale: f32) -> __m256 {
    let [a, b, c, d] = codes.map(|code| code * scale);
    _mm256_setr_ps(a, b, c, d, a, b, c, d)
}

/// 32 int32 to 32 int8 in order, saturating. The packs work within 128-bit halves; the permutation undoes that.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn pack_to_i8([a, b, c, d]: [__m256i; 4]) -> __m256i {
    let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load4(x: &[f32; STEP]) -> [__m256; 4] {
    let x = x.as_ptr();
    // SAFETY: the array holds 4 * 8 floats; unaligned loads.
    unsafe { [0, 8, 16, 24].map(|at| _mm256_loadu_ps(x.add(at))) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(dst: &mut [i8; STEP], bytes: __m256i) {
    // SAFETY: the array is 32 bytes; an unaligned store.
    unsafe { _mm256_storeu_si256(dst.as_mut_ptr().cast(), bytes) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn lanes(v: __m256i) -> [i32; 8] {
    let mut lanes = [0; 8];
    // SAFETY: the array is 32 bytes; an unaligned store.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), v) };
    lanes
}
