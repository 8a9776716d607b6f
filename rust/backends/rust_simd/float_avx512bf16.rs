//! BF16 products with `vdpbf16ps`: a lane adds the products of a pair of neighbours in f32, each rounded to nearest even,
//! subnormals taken and given as zeros whatever the floating-point mode says.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _mm256_storeu_si256, _mm512_cvtneps_pbh, _mm512_dpbf16_ps,
    _mm512_load_si512, _mm512_maskz_loadu_ps, _mm512_setzero_ps,
};
use std::mem::transmute;

use super::super::detect::Avx512Bf16;
use super::float::ROWS;
use super::float_avx512::{WIDTH, load_group, load_rest, sum_vectors, valid};
use super::float_native::{GROUP, Group, NativeKernels};

impl NativeKernels for Avx512Bf16 {
    /// BF16 has the exponents of f32: nothing is scaled.
    fn exponent(self, _: i32, _: &[f32]) -> i32 {
        0
    }

    fn round(self, _: i32, x: &[f32], rounded: &mut [Group]) {
        assert!(rounded.len() == x.len().div_ceil(GROUP));
        // SAFETY: `self` proves that this CPU runs AVX-512 BF16.
        unsafe { round(x, rounded) }
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
        // SAFETY: `self` proves that this CPU runs AVX-512 F, BW, VL and BF16, AVX2, FMA and F16C; the lengths were checked.
        unsafe { tile(rows, x, ahead, values) }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn round(x: &[f32], rounded: &mut [Group]) {
    let halves = rounded.iter_mut().flat_map(|group| group.0.as_chunks_mut::<WIDTH>().0);
    for (index, half) in halves.enumerate() {
        let x = x.get(index * WIDTH..).unwrap_or_default();
        // SAFETY: as many floats as are loaded, and room for sixteen values; the cast changes no bit.
        unsafe {
            let values = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(valid(x), x.as_ptr()));
            _mm256_storeu_si256(half.as_mut_ptr().cast(), transmute::<__m256bh, __m256i>(values));
        }
    }
}

/// # Safety
/// Each row has the bytes of `values` values, and each row of x their groups.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma,f16c")]
unsafe fn tile<const N: usize, const A: usize>(
    rows: [&[u8]; ROWS],
    x: [&[Group]; N],
    ahead: [*const u8; A],
    values: usize,
) -> [[f32; ROWS]; N] {
    let rows = rows.map(|row| row.as_ptr());
    let mut x = x.map(|x| x.as_ptr());
    let mut sums = [[_mm512_setzero_ps(); ROWS]; N];
    for group in 0..values / GROUP {
        // SAFETY: a whole group of each row, and the same one of each row of x; beyond the last one only just.
        unsafe {
            add_products(&mut sums, load_group(rows, ahead, group), x);
            for x in &mut x {
                *x = x.add(1);
            }
        }
    }
    if !values.is_multiple_of(GROUP) {
        // SAFETY: as many values of each row, and the last group of each row of x.
        unsafe { add_products(&mut sums, load_rest(rows, values), x) };
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
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn add_products<const N: usize>(
    sums: &mut [[__m512; ROWS]; N],
    w: [__m512i; ROWS],
    x: [*const Group; N],
) {
    for (sums, x) in sums.iter_mut().zip(x) {
        // SAFETY: the caller vouches for the group, which is aligned; the casts change no bit.
        unsafe {
            let x = transmute::<__m512i, __m512bh>(_mm512_load_si512(x.cast()));
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = _mm512_dpbf16_ps(*sum, transmute::<__m512i, __m512bh>(w), x);
            }
        }
    }
}
