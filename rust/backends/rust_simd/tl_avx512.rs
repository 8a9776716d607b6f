//! Look-ups of TL1 and TL2 in twice AVX2's width, for up to four activation rows; `tl_avx2` says what h and l are and why
//! their sums fit.
//!
//! A TL1 step is one vector instead of two, and the tables are the same, in both halves. For TL2 two row blocks are
//! looked up side by side. AVX-512 has no `vpsignb`, but `vpermb` looks up among 32 answers as fast as among sixteen: the
//! sign is bit 4 of the index, and the second half of a table is the first, negated.

use std::arch::x86_64::*;

use super::tl_avx2::{self, Table};

/// 32 answers h and l for a triple, by sign and magnitude.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct SignedTable {
    high: [u8; 32],
    low: [u8; 32],
}

impl SignedTable {
    pub const ZERO: Self = Self { high: [0; 32], low: [0; 32] };

    /// From the answers of `tl_avx2::triple_answers`: 16 bytes h, 16 bytes l.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn store(&mut self, answers: __m256i) {
        let negated = _mm256_sub_epi8(_mm256_setzero_si256(), answers);
        tl_avx2::store(&mut self.high, _mm256_permute2x128_si256::<0x20>(answers, negated));
        tl_avx2::store(&mut self.low, _mm256_permute2x128_si256::<0x31>(answers, negated));
    }
}

/// Adds to the sums of two row blocks (each: the low and the high half of each lane) the triples of as many units as
/// there are codes.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
#[inline]
pub(super) fn add_triples<const N: usize>(
    codes: [&[[u8; 128]]; 2],
    signs: [&[[u8; 32]]; 2],
    tables: &[[[SignedTable; 8]; N]],
    sums: &mut [[[__m256i; 2]; N]; 2],
) {
    let mut wide = [[_mm512_setzero_si512(); 2]; N];
    let units = codes[0].iter().zip(codes[1]).zip(signs[0].iter().zip(signs[1]));
    for (tables, (codes, signs)) in tables.iter().zip(units) {
        tl_avx2::prefetch(codes.0);
        tl_avx2::prefetch(codes.1);
        let signs = spread_signs(both(signs.0, signs.1));
        let (mut high, mut low) = ([_mm512_setzero_si512(); N], [_mm512_setzero_si512(); N]);
        let fours = codes.0.as_chunks().0.iter().zip(codes.1.as_chunks().0);
        for (two, (first, second)) in fours.enumerate() {
            let bytes = both(first, second);
            for (which, nibbles) in [_mm512_srli_epi16::<4>(bytes), bytes].into_iter().enumerate() {
                let triple = 2 * two + which;
                let sign = sign_at_bit_4(signs[triple / 4], triple % 4);
                // Bits 0-3 of the one, bit 4 of the other; higher bits mean nothing to a table that repeats itself.
                let index = _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8(15), nibbles, sign);
                for i in 0..N {
                    let table = &tables[i][triple];
                    high[i] = _mm512_add_epi8(high[i], _mm512_permutexvar_epi8(index, twice(&table.high)));
                    low[i] = _mm512_add_epi8(low[i], _mm512_permutexvar_epi8(index, twice(&table.low)));
                }
            }
        }
        for i in 0..N {
            for (sum, part) in wide[i].iter_mut().zip(join(high[i], low[i])) {
                *sum = _mm512_add_epi16(*sum, part);
            }
        }
    }
    for i in 0..N {
        for half in 0..2 {
            let [first, second] = halves(wide[i][half]);
            sums[0][i][half] = first;
            sums[1][i][half] = second;
        }
    }
}

/// Steps of TL1 that add eight pairs to a byte sum.
const UNIT_STEPS: usize = 4;

/// Adds to `sums` (for either half of a step, the low and the high half of each lane) as many steps of TL1 as there are
/// codes.
#[target_feature(enable = "avx2,avx512f,avx512bw")]
#[inline]
pub(super) fn add_steps<const N: usize>(
    codes: &[[u8; 64]],
    tables: &[[[[Table; 2]; 2]; N]],
    sums: &mut [[__m256i; 4]; N],
) {
    let mut wide = [[_mm512_setzero_si512(); 2]; N];
    for (tables, codes) in tables.chunks(UNIT_STEPS).zip(codes.chunks(UNIT_STEPS)) {
        let mut parts = [[_mm512_setzero_si512(); 2]; N];
        for (tables, codes) in tables.iter().zip(codes) {
            tl_avx2::prefetch(codes);
            // SAFETY: 64 bytes; an unaligned load.
            let bytes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
            let mask = _mm512_set1_epi8(15);
            let nibbles =
                [_mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask), _mm512_and_si512(bytes, mask)];
            for (which, indices) in nibbles.into_iter().enumerate() {
                for i in 0..N {
                    for (part, table) in parts[i].iter_mut().zip(&tables[i][which]) {
                        let table = _mm512_broadcast_i64x4(table.load_wide());
                        *part = _mm512_add_epi8(*part, _mm512_shuffle_epi8(table, indices));
                    }
                }
            }
        }
        for i in 0..N {
            for (sum, part) in wide[i].iter_mut().zip(join(parts[i][0], parts[i][1])) {
                *sum = _mm512_add_epi16(*sum, part);
            }
        }
    }
    for i in 0..N {
        for half in 0..2 {
            let [first, second] = halves(wide[i][half]);
            sums[i][half] = first;
            sums[i][2 + half] = second;
        }
    }
}

/// As in `tl2_avx2`, for two row blocks: the signs of eight triples, of the first four and of the last four, in bits 7,
/// 5, 3 and 1 of each row's byte.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn spread_signs(words: __m512i) -> [__m512i; 2] {
    let high = _mm512_shuffle_epi8(words, _mm512_set1_epi64(0x0f0d_0b09_0705_0301));
    let low = _mm512_shuffle_epi8(words, _mm512_set1_epi64(0x0e0c_0a08_0604_0200));
    let one_more = _mm512_setr_epi64(0, 1 << 32 | 1, 0, 1 << 32 | 1, 0, 1 << 32 | 1, 0, 1 << 32 | 1);
    [_mm512_sllv_epi32(high, one_more), _mm512_sllv_epi32(low, one_more)]
}

/// The sign of triple 0, 1, 2 or 3, in bit 4.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn sign_at_bit_4(signs: __m512i, triple: usize) -> __m512i {
    match triple {
        0 => _mm512_srli_epi16::<3>(signs),
        1 => _mm512_srli_epi16::<1>(signs),
        2 => _mm512_slli_epi16::<1>(signs),
        _ => _mm512_slli_epi16::<3>(signs),
    }
}

/// `tl_avx2::join` in twice the width.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn join(high: __m512i, low: __m512i) -> [__m512i; 2] {
    let weights = _mm512_set1_epi16(tl_avx2::RADIX + 256);
    [
        _mm512_maddubs_epi16(weights, _mm512_unpacklo_epi8(high, low)),
        _mm512_maddubs_epi16(weights, _mm512_unpackhi_epi8(high, low)),
    ]
}

/// One vector of two.
#[target_feature(enable = "avx2,avx512f")]
#[inline]
fn both(first: &[u8; 32], second: &[u8; 32]) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(tl_avx2::load(first)), tl_avx2::load(second))
}

/// 32 bytes in both halves.
#[target_feature(enable = "avx2,avx512f")]
#[inline]
fn twice(bytes: &[u8; 32]) -> __m512i {
    _mm512_broadcast_i64x4(tl_avx2::load(bytes))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn halves(v: __m512i) -> [__m256i; 2] {
    [_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v)]
}
