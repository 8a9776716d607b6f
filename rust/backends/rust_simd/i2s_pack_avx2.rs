//! I2_S weights to and from floats with AVX2 (`docs/FORMATS.md` 2).
//!
//! Packing takes the matrix in chunks whose codes stay in L1. Unpacking needs no codes at all: a group's two bits,
//! shifted to the bottom of a dword, choose among the three products of code and scale.

use std::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm_loadl_epi64, _mm256_add_epi8, _mm256_cvtepu8_epi32, _mm256_loadu_si256,
    _mm256_or_si256, _mm256_permutevar_ps, _mm256_set1_epi8, _mm256_slli_epi16, _mm256_srl_epi32,
    _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::super::detect::Avx2;
use super::i2s_avx2::{self, BLOCK, Lane};
use super::quantize_avx2;
use super::ternary::{self, Ternary};
use crate::bitnet::formats::{FormatError, Weights};

/// The codes that whole blocks of `src` become, packed into `bytes`. Whether any of them is not 0.
pub(super) fn pack(token: Avx2, ternary: Ternary, src: &[f32], bytes: &mut [u8]) -> bool {
    ternary::pack_i2s(token, ternary, src, bytes, |codes, packed| {
        // SAFETY: the token proves that this CPU runs AVX2 and FMA.
        unsafe { pack_codes(codes, packed) }
    })
}

/// `dst` `[rows, cols]` = code * scale. Nothing is written where a code is invalid.
pub(super) fn dequantize(token: Avx2, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), FormatError> {
    let codes = i2s_avx2::codes(token, weights)?;
    // SAFETY: the token proves that this CPU runs AVX2 and FMA.
    unsafe { dequantize_codes(codes, weights.scale(), dst.as_chunks_mut().0) };
    Ok(())
}

/// code + 1 of each group moves up by 6, 4, 2 and 0 bits; none leaves its byte, so 16-bit shifts will do.
#[target_feature(enable = "avx2,fma")]
fn pack_codes(codes: &[[i8; BLOCK]], packed: &mut [Lane]) {
    for (codes, packed) in codes.iter().zip(packed) {
        let [a, b, c, d] = load4(codes).map(|codes| _mm256_add_epi8(codes, _mm256_set1_epi8(1)));
        let (a, b, c) = (_mm256_slli_epi16::<6>(a), _mm256_slli_epi16::<4>(b), _mm256_slli_epi16::<2>(c));
        let bytes = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
        // SAFETY: the array is 32 bytes; an unaligned store.
        unsafe { _mm256_storeu_si256(packed.as_mut_ptr().cast(), bytes) };
    }
}

#[target_feature(enable = "avx2,fma")]
fn dequantize_codes(codes: &[Lane], scale: f32, dst: &mut [[f32; BLOCK]]) {
    // Code 3 does not occur; bits above the two are ignored by the choice.
    let products = quantize_avx2::products([-1.0, 0.0, 1.0, 0.0], scale);
    for (codes, dst) in codes.iter().zip(dst) {
        let eights = codes.as_chunks::<8>().0;
        // SAFETY: each array is 8 bytes; unaligned loads.
        let dwords =
            [0, 1, 2, 3].map(|i| _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(eights[i].as_ptr().cast()) }));
        for (dst, shift) in dst.as_chunks_mut::<32>().0.iter_mut().zip([6, 4, 2, 0]) {
            for (dst, dwords) in dst.as_chunks_mut::<8>().0.iter_mut().zip(dwords) {
                let chosen = _mm256_srl_epi32(dwords, _mm_cvtsi32_si128(shift));
                // SAFETY: the array is 8 floats; an unaligned store.
                unsafe { _mm256_storeu_ps(dst.as_mut_ptr(), _mm256_permutevar_ps(products, chosen)) };
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load4(codes: &[i8; BLOCK]) -> [__m256i; 4] {
    let codes = codes.as_ptr();
    // SAFETY: the array holds 4 * 32 codes; unaligned loads.
    unsafe { [0, 32, 64, 96].map(|at| _mm256_loadu_si256(codes.add(at).cast())) }
}
