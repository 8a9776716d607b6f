//! I2_S bytes of sixteen weight rows, dword by dword, on AVX-512: what its panels are made of.
//!
//! What the compiler must not do: keep sixteen pointers, more than it has registers, and advance each of them on the stack for
//! every block (a tenth of the time of a product with eight activation rows). They stand in memory and are read again (`reload`).

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use super::i2s_avx2::{Lane, reload};
use super::i2s_avx512vnni::{load_block, prefetch_line};
use super::panel_avx512vnni::LANES;

/// Dwords of a block of one row.
pub(super) const DWORDS: usize = 8;

/// Sixteen of the rows of codes `[.., blocks]`.
pub(super) struct SixteenRows<'a> {
    rows: [*const Lane; LANES],
    blocks: usize,
    codes: PhantomData<&'a [Lane]>,
}

impl<'a> SixteenRows<'a> {
    /// Up to sixteen rows, at least one; the last is repeated.
    #[inline]
    pub fn new(codes: &'a [Lane], blocks: usize, rows: Range<usize>) -> Self {
        assert!((1..=LANES).contains(&rows.len()) && rows.end * blocks <= codes.len());
        let mut pointers = [codes.as_ptr(); LANES];
        for (r, pointer) in pointers.iter_mut().enumerate() {
            *pointer = codes.as_ptr().wrapping_add((rows.start + r).min(rows.end - 1) * blocks);
        }
        Self { rows: pointers, blocks, codes: PhantomData }
    }

    /// Asks for that block of every row, which need not be there.
    #[inline]
    pub fn ask_for(&self, block: usize) {
        for row in reload(&self.rows) {
            prefetch_line::<_MM_HINT_T0>(row.wrapping_add(block));
        }
    }

    /// That block of every row: vector j holds dword j of each of its 32 bytes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn transposed(&self, block: usize) -> [__m512i; DWORDS] {
        assert!(block < self.blocks);
        let rows = reload(&self.rows);
        let mut r = [_mm512_setzero_si512(); DWORDS];
        for (i, r) in r.iter_mut().enumerate() {
            // SAFETY: rows of the codes, each of which has this block.
            let (low, high) = unsafe { (&*rows[i].add(block), &*rows[i + DWORDS].add(block)) };
            *r = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load_block(low)), load_block(high));
        }
        // Within lanes of 128 bits: dwords of four rows ...
        let mut t = r;
        for i in [0, 4] {
            let (ab_low, ab_high) =
                (_mm512_unpacklo_epi32(r[i], r[i + 1]), _mm512_unpackhi_epi32(r[i], r[i + 1]));
            let (cd_low, cd_high) =
                (_mm512_unpacklo_epi32(r[i + 2], r[i + 3]), _mm512_unpackhi_epi32(r[i + 2], r[i + 3]));
            t[i] = _mm512_unpacklo_epi64(ab_low, cd_low);
            t[i + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
            t[i + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
            t[i + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
        }
        // ... then lanes: of rows 0-3 | 0-3 | 8-11 | 8-11 and 4-7 | 4-7 | 12-15 | 12-15.
        let first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
        let second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
        let mut dwords = r;
        for i in 0..4 {
            dwords[i] = _mm512_permutex2var_epi64(t[i], first, t[i + 4]);
            dwords[i + 4] = _mm512_permutex2var_epi64(t[i], second, t[i + 4]);
        }
        dwords
    }
}
