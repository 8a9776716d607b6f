//! The ceiling of AVX-VNNI: products of int8 added up in int32 by one instruction, 32 at a time.

use std::arch::x86_64::{_mm256_dpbusd_avx_epi32, _mm256_set1_epi8, _mm256_setzero_si256};
use std::hint::black_box;

use super::super::detect::AvxVnni;

/// Sums that do not wait for one another.
const SUMS: usize = 12;

/// Products of int8; returns the operations.
pub(super) fn int8_dot(_: AvxVnni, rounds: u64) -> u64 {
    // SAFETY: the token proves that this CPU runs AVX-VNNI.
    unsafe { multiply_bytes(rounds) };
    rounds * (2 * 32 * SUMS) as u64
}

#[target_feature(enable = "avx2,avxvnni")]
fn multiply_bytes(rounds: u64) {
    let (a, b) = (_mm256_set1_epi8(black_box(2)), _mm256_set1_epi8(black_box(-3)));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
        }
    }
    black_box(sums);
}
