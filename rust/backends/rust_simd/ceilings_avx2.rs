//! Ceilings of AVX2: loads of 32 bytes; products of int8 by `vpmaddubsw`, added up in int16, which is the least that an
//! int8 product takes there; FMA on eight floats.

use std::arch::asm;
use std::arch::x86_64::{
    __m256i, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi16, _mm256_fmadd_ps, _mm256_loadu_si256,
    _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_xor_si256,
};
use std::hint::black_box;

use super::super::detect::Avx2;
use super::ceilings::{AHEAD_BYTES, reading};

/// Sums that do not wait for one another; with the operands and a product they fit the sixteen registers.
const SUMS: usize = 12;

/// Reads along one stream.
pub(super) fn read(_: Avx2, bytes: &[u8]) {
    // SAFETY: the token proves that this CPU runs AVX2.
    unsafe { along_one(bytes) }
}

/// Reads along four.
pub(super) fn read_far(_: Avx2, bytes: &[u8]) {
    // SAFETY: the token proves that this CPU runs AVX2.
    unsafe { along_four(bytes) }
}

/// Products of int8; returns the operations.
pub(super) fn int8_dot(_: Avx2, rounds: u64) -> u64 {
    // SAFETY: the token proves that this CPU runs AVX2.
    unsafe { multiply_bytes(rounds) };
    rounds * (2 * 32 * SUMS) as u64
}

/// Products of f32; returns the operations.
pub(super) fn f32_fma(_: Avx2, rounds: u64) -> u64 {
    // SAFETY: the token proves that this CPU runs AVX2 and FMA.
    unsafe { multiply_floats(rounds) };
    rounds * (2 * 8 * SUMS) as u64
}

reading!("avx2", 32, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_xor_si256);

/// The same vector, of which the compiler knows nothing: a product with it is another one each time.
#[inline]
#[target_feature(enable = "avx2")]
fn unknown(mut vector: __m256i) -> __m256i {
    // SAFETY: no instruction; the register comes back as it was.
    unsafe { asm!("/* {v} */", v = inout(ymm_reg) vector, options(nomem, nostack, preserves_flags)) };
    vector
}

#[target_feature(enable = "avx2")]
fn multiply_bytes(rounds: u64) {
    let mut a = _mm256_set1_epi8(black_box(2));
    let b = _mm256_set1_epi8(black_box(-3));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            a = unknown(a);
            *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a, b));
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx2,fma")]
fn multiply_floats(rounds: u64) {
    let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
    let mut sums = [_mm256_setzero_ps(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(a, b, *sum);
        }
    }
    black_box(sums);
}
