//! F16 products with AVX512-FP16: thirty-two lanes of F16, fused, which are widened to f32 before they lose much.
//!
//! A lane adds [`BLOCK`] products in F16; then its upper half is added to the lower one, still in F16, and what is left goes
//! to sums in f32. A term is so rounded to F16 at most 13 times: with the roundings of w and of x that is 15 / 2^11 of its
//! size, less than the 2 / 2^8 that rounding w and x to BF16 costs. Sixteen products are a twelfth faster than twelve, and
//! beyond that; twelve are a ninth faster than eight.

use std::arch::x86_64::{
    __m512, __m512h, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm256_add_ph, _mm256_castpd_ph,
    _mm256_storeu_si256, _mm512_add_ps, _mm512_and_si512, _mm512_castph_pd, _mm512_castph512_ph256,
    _mm512_castps_si512, _mm512_castsi512_ph, _mm512_cvtps_ph, _mm512_cvtxph_ps, _mm512_extractf64x4_pd,
    _mm512_fmadd_ph, _mm512_load_si512, _mm512_maskz_loadu_ps, _mm512_max_epu32, _mm512_reduce_max_epu32,
    _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ph, _mm512_setzero_ps,
    _mm512_setzero_si512,
};

use super::super::detect::Avx512Fp16;
use super::float::ROWS;
use super::float_avx512::{WIDTH, load_group, load_rest, sum_vectors, valid};
use super::float_native::{GROUP, Group, NativeKernels};

/// Products that a lane adds in F16.
const BLOCK: usize = 12;
/// Twice as many, which the sum of two lanes holds, are less than 2^5.
const BLOCK_BITS: i32 = 5;

impl NativeKernels for Avx512Fp16 {
    fn exponent(self, largest: i32, x: &[f32]) -> i32 {
        // SAFETY: `self` proves that this CPU runs AVX-512 F.
        let bits = unsafe { largest_bits(x) };
        if bits >= f32::INFINITY.to_bits() {
            return 0;
        }
        let of_x = (bits >> 23) as i32 - 126;
        (15 - of_x).min(15 - BLOCK_BITS - largest - of_x)
    }

    fn round(self, exponent: i32, x: &[f32], rounded: &mut [Group]) {
        assert!(rounded.len() == x.len().div_ceil(GROUP));
        // SAFETY: `self` proves that this CPU runs AVX-512 F.
        unsafe { round(exponent, x, rounded) }
    }

    fn tile<const N: usize, const A: usize>(
        self,
        rows: [&[u8]; ROWS],
        x: [&[Group]; N],
        ahead: [*const u8; A],
    ) -> [[f32; ROWS]; N] {
        let values = rows[0].len() / 2;
        assert!(rows.iter().all(|row| row.len() == 2 * values));
        assert!(x.iter().all(|x| x.len() == values.div_ceil(GROUP)));
        // SAFETY: `self` proves that this CPU runs AVX-512 F, BW, VL and FP16, AVX2, FMA and F16C; the lengths were checked.
        unsafe { tile(rows, x, ahead, values) }
    }
}

/// Of the largest magnitude; a NaN is above them all.
#[target_feature(enable = "avx512f")]
fn largest_bits(x: &[f32]) -> u32 {
    let mut largest = _mm512_setzero_si512();
    for x in x.chunks(WIDTH) {
        // SAFETY: as many floats as are loaded.
        let bits = _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(valid(x), x.as_ptr()) });
        largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fff_ffff)));
    }
    _mm512_reduce_max_epu32(largest)
}

#[target_feature(enable = "avx512f")]
fn round(exponent: i32, x: &[f32], rounded: &mut [Group]) {
    let exponent = _mm512_set1_ps(exponent as f32);
    let halves = rounded.iter_mut().flat_map(|group| group.0.as_chunks_mut::<WIDTH>().0);
    for (index, half) in halves.enumerate() {
        let x = x.get(index * WIDTH..).unwrap_or_default();
        // SAFETY: as many floats as are loaded, and room for sixteen values.
        unsafe {
            let scaled = _mm512_scalef_ps(_mm512_maskz_loadu_ps(valid(x), x.as_ptr()), exponent);
            let values = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(scaled);
            _mm256_storeu_si256(half.as_mut_ptr().cast(), values);
        }
    }
}

/// # Safety
/// Each row has the bytes of `values` values, and each row of x their groups.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16,avx2,fma,f16c")]
unsafe fn tile<const N: usize, const A: usize>(
    rows: [&[u8]; ROWS],
    x: [&[Group]; N],
    ahead: [*const u8; A],
    values: usize,
) -> [[f32; ROWS]; N] {
    let rows = rows.map(|row| row.as_ptr());
    let mut x = x.map(|x| x.as_ptr());
    let mut sums = [[_mm512_setzero_ps(); ROWS]; N];
    let groups = values / GROUP;
    for first in (0..groups).step_by(BLOCK) {
        let mut block = [[_mm512_setzero_ph(); ROWS]; N];
        for group in first..groups.min(first + BLOCK) {
            // SAFETY: a whole group of each row, and the same one of each row of x; beyond the last one only just.
            unsafe {
                add_products(&mut block, load_group(rows, ahead, group), x);
                for x in &mut x {
                    *x = x.add(1);
                }
            }
        }
        widen(&mut sums, &block);
    }
    if !values.is_multiple_of(GROUP) {
        let mut block = [[_mm512_setzero_ph(); ROWS]; N];
        // SAFETY: as many values of each row, and the last group of each row of x.
        unsafe { add_products(&mut block, load_rest(rows, values), x) };
        widen(&mut sums, &block);
    }
    let mut products = [[0.0; ROWS]; N];
    for (products, sums) in products.iter_mut().zip(sums) {
        *products = sum_vectors(sums);
    }
    products
}

/// # Safety
/// A group can be read at each of `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512fp16")]
unsafe fn add_products<const N: usize>(
    block: &mut [[__m512h; ROWS]; N],
    w: [__m512i; ROWS],
    x: [*const Group; N],
) {
    for (block, x) in block.iter_mut().zip(x) {
        // SAFETY: the caller vouches for the group, which is aligned.
        let x = _mm512_castsi512_ph(unsafe { _mm512_load_si512(x.cast()) });
        for (sum, w) in block.iter_mut().zip(w) {
            *sum = _mm512_fmadd_ph(_mm512_castsi512_ph(w), x, *sum);
        }
    }
}

/// Adds a block to the sums.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512fp16")]
fn widen<const N: usize>(sums: &mut [[__m512; ROWS]; N], block: &[[__m512h; ROWS]; N]) {
    for (sum, &block) in sums.as_flattened_mut().iter_mut().zip(block.as_flattened()) {
        let upper = _mm256_castpd_ph(_mm512_extractf64x4_pd::<1>(_mm512_castph_pd(block)));
        let halves = _mm256_add_ph(_mm512_castph512_ph256(block), upper);
        *sum = _mm512_add_ps(*sum, _mm512_cvtxph_ps(halves));
    }
}
