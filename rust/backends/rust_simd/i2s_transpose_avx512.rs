//! I2_S bytes of sixteen weight rows, dword by dword, on AVX-512: what its panels are made of.
//!
//! What the compiler must not do: keep sixteen pointers, more than it has registers, and advance each of them on the stack for
//! every block (a tenth of the time of a product with eight activation rows). They stand in memory and are read again (`reload`).

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use super::i2s_avx2::{Lane, reload};
use super::i2s_avx512vnni::load_block;
use super::panel_avx512vnni::{LANES, prefetch_line};

/// Dwords of a block of one row.
pub(super) const DWORDS: usize = 8;

/// A strip of blocks of sixteen of the rows of codes `[.., blocks]`.
pub(super) struct SixteenRows<'a> {
    /// Where the strip begins in each of them.
    rows: [*const Lane; LANES],
    strip: usize,
    ahead: usize,
    codes: PhantomData<&'a [Lane]>,
}

impl<'a> SixteenRows<'a> {
    /// Up to sixteen rows, at least one; the last is repeated. The strip after this one is the next of the same rows, or the
    /// first of those that are `panel_rows` further on.
    #[inline]
    pub fn new(
        codes: &'a [Lane],
        blocks: usize,
        rows: Range<usize>,
        strip: &Range<usize>,
        panel_rows: usize,
    ) -> Self {
        let within = rows.end.checked_mul(blocks).is_some_and(|end| end <= codes.len());
        assert!((1..=LANES).contains(&rows.len()) && within && strip.end <= blocks);
        let mut pointers = [codes.as_ptr(); LANES];
        for (r, pointer) in pointers.iter_mut().enumerate() {
            let row = (rows.start + r).min(rows.end - 1);
            *pointer = codes.as_ptr().wrapping_add(row * blocks + strip.start);
        }
        let next = if strip.end < blocks { strip.len() } else { panel_rows * blocks - strip.start };
        Self { rows: pointers, strip: strip.len(), ahead: next, codes: PhantomData }
    }

    /// Block `block` of the strip, of every row: vector j holds dword j of each of its 32 bytes. Asks for the same block of the
    /// strip after this one, for every second block: two are a cache line.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn transposed(&self, block: usize) -> [__m512i; DWORDS] {
        assert!(block < self.strip);
        if block.is_multiple_of(2) {
            for row in reload(&self.rows) {
                prefetch_line(row.wrapping_add(block + self.ahead));
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::detect::Avx512Vnni;
    use crate::rng::Rng;

    /// Of every strip, for row counts beside those of a vector: the dwords of the rows that there are, the last one repeated.
    #[test]
    fn dwords_are_those_of_the_rows() {
        if Avx512Vnni::detect().is_err() {
            return;
        }
        let mut rng = Rng::new(5);
        let (all, blocks) = (18, 5);
        let codes: Vec<Lane> =
            (0..all * blocks).map(|_| std::array::from_fn(|_| rng.next_u64() as u8)).collect();
        for (rows, strip) in [(0..1, 0..5), (2..17, 1..3), (2..18, 4..5), (17..18, 2..5)] {
            let sixteen = SixteenRows::new(&codes, blocks, rows.clone(), &strip, 16);
            for row in &sixteen.rows {
                assert!(codes.as_ptr_range().contains(row));
            }
            for block in 0..strip.len() {
                // SAFETY: this CPU has AVX-512 F.
                let dwords = unsafe { sixteen.transposed(block) };
                for (j, dword) in dwords.into_iter().enumerate() {
                    // SAFETY: 64 bytes either way.
                    let dword: [[u8; 4]; LANES] = unsafe { std::mem::transmute(dword) };
                    for (r, dword) in dword.iter().enumerate() {
                        let row = (rows.start + r).min(rows.end - 1);
                        assert_eq!(*dword, codes[row * blocks + strip.start + block][4 * j..][..4]);
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "within")]
    fn rows_that_are_not_there_are_refused() {
        let _ = SixteenRows::new(&[[0; 32]; 4], 1 << 63, 0..2, &(0..1), 16);
    }
}
