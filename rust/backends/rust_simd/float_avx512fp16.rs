//! F16 products with AVX512-FP16: thirty-two lanes of F16, fused, which are widened to f32 before they lose much.
//!
//! The two instructions are written down: their intrinsics came to Rust later than the oldest compiler of this crate.
//!
//! A lane adds [`BLOCK`] products in F16; then its upper half is added to the lower one, still in F16, and what is left goes
//! to sums in f32. A term is so rounded to F16 at most 13 times: with the roundings of w and of x that is 15 / 2^11 of its
//! size, less than the 2 / 2^8 that rounding w and x to BF16 costs. Sixteen products are a twelfth faster than twelve, and
//! beyond that; twelve are a ninth faster than eight.

use std::arch::asm;
use std::arch::x86_64::{
    __m256i, __m512, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm256_storeu_si256,
    _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_si256, _mm512_cvtph_ps,
    _mm512_cvtps_ph, _mm512_extracti64x4_epi64, _mm512_load_si512, _mm512_maskz_loadu_ps, _mm512_max_epu32,
    _mm512_reduce_max_epu32, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
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
        // SAFETY: `self` proves that this CPU runs AVX-512 F and BW, AVX2, FMA and F16C; the lengths were checked.
        unsafe { tile(self, rows, x, ahead) }
    }
}

/// `w * x + sum` in each of 32 lanes of F16, rounded once.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn fused(_: Avx512Fp16, mut sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
    // SAFETY: the token proves that this CPU runs AVX512-FP16; registers alone, and the exception flags of MXCSR.
    unsafe {
        asm!("vfmadd231ph {sum}, {w}, {x}", sum = inout(zmm_reg) sum, w = in(zmm_reg) w, x = in(zmm_reg) x,
            options(pure, nomem, nostack));
    }
    sum
}

/// `a + b` in each of 16 lanes of F16.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum(_: Avx512Fp16, mut a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the token proves that this CPU runs AVX512-FP16, and AVX-512 VL with it; otherwise as above.
    unsafe {
        asm!("vaddph {a}, {a}, {b}", a = inout(ymm_reg) a, b = in(ymm_reg) b,
            options(pure, nomem, nostack));
    }
    a
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
#[target_feature(enable = "avx512f,avx512bw,avx2,fma,f16c")]
unsafe fn tile<const N: usize, const A: usize>(
    token: Avx512Fp16,
    rows: [&[u8]; ROWS],
    x: [&[Group]; N],
    ahead: [*const u8; A],
) -> [[f32; ROWS]; N] {
    let values = rows[0].len() / 2;
    let rows = rows.map(|row| row.as_ptr());
    let mut x = x.map(|x| x.as_ptr());
    let mut sums = [[_mm512_setzero_ps(); ROWS]; N];
    let groups = values / GROUP;
    for first in (0..groups).step_by(BLOCK) {
        let mut block = [[_mm512_setzero_si512(); ROWS]; N];
        for group in first..groups.min(first + BLOCK) {
            // SAFETY: a whole group of each row, and the same one of each row of x; beyond the last one only just.
            unsafe {
                add_products(token, &mut block, load_group(rows, ahead, group), x);
                for x in &mut x {
                    *x = x.add(1);
                }
            }
        }
        widen(token, &mut sums, &block);
    }
    if !values.is_multiple_of(GROUP) {
        let mut block = [[_mm512_setzero_si512(); ROWS]; N];
        // SAFETY: as many values of each row, and the last group of each row of x.
        unsafe { add_products(token, &mut block, load_rest(rows, values), x) };
        widen(token, &mut sums, &block);
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
#[target_feature(enable = "avx512f")]
unsafe fn add_products<const N: usize>(
    token: Avx512Fp16,
    block: &mut [[__m512i; ROWS]; N],
    w: [__m512i; ROWS],
    x: [*const Group; N],
) {
    for (block, x) in block.iter_mut().zip(x) {
        // SAFETY: the caller vouches for the group, which is aligned.
        let x = unsafe { _mm512_load_si512(x.cast()) };
        for (sum, w) in block.iter_mut().zip(w) {
            *sum = fused(token, *sum, w, x);
        }
    }
}

/// Adds a block to the sums.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen<const N: usize>(token: Avx512Fp16, sums: &mut [[__m512; ROWS]; N], block: &[[__m512i; ROWS]; N]) {
    for (total, &block) in sums.as_flattened_mut().iter_mut().zip(block.as_flattened()) {
        let halves = sum(token, _mm512_castsi512_si256(block), _mm512_extracti64x4_epi64::<1>(block));
        *total = _mm512_add_ps(*total, _mm512_cvtph_ps(halves));
    }
}
