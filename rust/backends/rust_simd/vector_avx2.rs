//! What AVX2 brings to the loops of a whole model (`backends/vector.rs`) that the compiler does not find by itself:
//! conversions of halves, and the products of four keys at once.

use std::arch::x86_64::*;

use half::f16;

use super::super::detect::Avx2;
use super::super::vector::{self, Vectors};

impl Vectors for Avx2 {
    #[inline(always)]
    fn widen(values: &[f16; 8]) -> [f32; 8] {
        let mut wide = [0.0; 8];
        // SAFETY: called only from the functions of `vector.rs`, which are compiled for F16C and entered with the token; 16 bytes are
        // read and 32 written, at places of those sizes.
        unsafe {
            _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(values.as_ptr().cast())))
        };
        wide
    }

    #[inline(always)]
    fn narrow(values: &[f32; 8]) -> [f16; 8] {
        let mut narrow = [f16::ZERO; 8];
        // SAFETY: as above, the other way round.
        unsafe {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(values.as_ptr()));
            _mm_storeu_si128(narrow.as_mut_ptr().cast(), halves);
        }
        narrow
    }

    #[inline(always)]
    #[allow(unused_unsafe, reason = "whether it is unsafe depends on the version of std::arch")]
    fn ask_for(at: *const u8) {
        // SAFETY: a prefetch never faults; the address need not be mapped, and nothing is read through it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn products_f32(keys: [&[f32]; 4], q: &[f32]) -> [f32; 4] {
        // SAFETY: called only from the functions of `vector.rs`, which are compiled for AVX2 and FMA and entered with the
        // token.
        unsafe { products(keys, q, |key| _mm256_loadu_ps(key.as_ptr())) }
    }

    #[inline(always)]
    fn products_f16(keys: [&[f16]; 4], q: &[f32]) -> [f32; 4] {
        for key in keys.iter().flat_map(|key| key.as_chunks::<32>().0) {
            Self::ask_for(key.as_ptr().cast::<u8>().wrapping_add(vector::AHEAD_BYTES));
        }
        // SAFETY: as above, and for F16C.
        unsafe { products(keys, q, |key| _mm256_cvtph_ps(_mm_loadu_si128(key.as_ptr().cast()))) }
    }
}

/// The products of four keys of whole groups of 32 lanes. The lanes of a key are added in halves down to four; those of
/// four keys are transposed, and four additions are one.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn products<T: Copy>(keys: [&[T]; 4], q: &[f32], load: impl Fn(&[T; 8]) -> __m256) -> [f32; 4] {
    let mut fours = [_mm_setzero_ps(); 4];
    for (four, key) in fours.iter_mut().zip(keys) {
        let mut lanes = [_mm256_setzero_ps(); 4];
        for (key, q) in key.as_chunks::<32>().0.iter().zip(q.as_chunks::<32>().0) {
            let eights = key.as_chunks::<8>().0.iter().zip(q.as_chunks::<8>().0);
            for (lanes, (key, q)) in lanes.iter_mut().zip(eights) {
                // SAFETY: eight floats.
                *lanes = _mm256_fmadd_ps(load(key), unsafe { _mm256_loadu_ps(q.as_ptr()) }, *lanes);
            }
        }
        let by_8 = _mm256_add_ps(_mm256_add_ps(lanes[0], lanes[2]), _mm256_add_ps(lanes[1], lanes[3]));
        *four = _mm_add_ps(_mm256_castps256_ps128(by_8), _mm256_extractf128_ps::<1>(by_8));
    }
    let [a, b, c, d] = fours;
    let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
    let even_odd = (_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
    let (ab, cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
    let sums = _mm_add_ps(
        _mm_add_ps(even_odd.0, _mm_movelh_ps(ab, cd)),
        _mm_add_ps(even_odd.1, _mm_movehl_ps(cd, ab)),
    );
    let mut products = [0.0; 4];
    // SAFETY: four floats.
    unsafe { _mm_storeu_ps(products.as_mut_ptr(), sums) };
    products
}
