//! Ceilings of AVX-512 with VNNI: loads of 64 bytes; products of int8 added up in int32 by one instruction, 64 at a time;
//! FMA on sixteen floats, on thirty-two of F16, and on sixteen pairs of BF16.

use std::arch::x86_64::{
    __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_si512, _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_xor_si512,
};
use std::hint::black_box;
use std::mem::transmute;

use super::super::detect::{Avx512Bf16, Avx512Fp16, Avx512Vnni};
use super::ceilings::{AHEAD_BYTES, reading};
use super::float_avx512fp16::fused;

/// Sums that do not wait for one another.
const SUMS: usize = 12;

/// Reads along one stream.
pub(super) fn read(_: Avx512Vnni, bytes: &[u8]) {
    // SAFETY: the token proves that this CPU runs AVX-512 F.
    unsafe { along_one(bytes) }
}

/// Reads along four.
pub(super) fn read_far(_: Avx512Vnni, bytes: &[u8]) {
    // SAFETY: the token proves that this CPU runs AVX-512 F.
    unsafe { along_four(bytes) }
}

/// Products of int8; returns the operations.
pub(super) fn int8_dot(_: Avx512Vnni, rounds: u64) -> u64 {
    // SAFETY: the token proves that this CPU runs AVX-512 F, BW and VNNI.
    unsafe { multiply_bytes(rounds) };
    rounds * (2 * 64 * SUMS) as u64
}

/// Products of f32; returns the operations.
pub(super) fn f32_fma(_: Avx512Vnni, rounds: u64) -> u64 {
    // SAFETY: the token proves that this CPU runs AVX-512 F.
    unsafe { multiply_floats(rounds) };
    rounds * (2 * 16 * SUMS) as u64
}

/// Products of BF16 in pairs; returns the operations.
pub(super) fn bf16_dot(_: Avx512Bf16, rounds: u64) -> u64 {
    // SAFETY: the token proves that this CPU runs AVX-512 F and BF16.
    unsafe { multiply_pairs(rounds) };
    rounds * (2 * 32 * SUMS) as u64
}

/// Products of F16; returns the operations.
pub(super) fn f16_fma(token: Avx512Fp16, rounds: u64) -> u64 {
    // SAFETY: the token proves that this CPU runs AVX-512 F.
    unsafe { multiply_halves(token, rounds) };
    rounds * (2 * 32 * SUMS) as u64
}

reading!("avx512f", 64, _mm512_setzero_si512, _mm512_loadu_si512, _mm512_xor_si512);

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn multiply_bytes(rounds: u64) {
    let (a, b) = (_mm512_set1_epi8(black_box(2)), _mm512_set1_epi8(black_box(-3)));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f")]
fn multiply_floats(rounds: u64) {
    let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(a, b, *sum);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_pairs(rounds: u64) {
    // SAFETY: the cast changes no bit. 0x3f00 is 0.5.
    let a = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi16(black_box(0x3f00))) };
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, a, a);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f")]
fn multiply_halves(token: Avx512Fp16, rounds: u64) {
    // 2^-10: the sums end where a product is half a unit in their last place.
    let a = _mm512_set1_epi16(black_box(0x1400));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = fused(token, *sum, a, a);
        }
    }
    black_box(sums);
}
