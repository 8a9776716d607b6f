//! TL1 and TL2 decoded to the panels of `panel_avx512vnni`, for more activation rows than are looked up.
//!
//! **Pairs.** A byte of two indices becomes a dword of four codes: `vpshufb` copies it to both words of its row's lane, and
//! `vpermw` looks up the two codes of each word. It reads five bits of an index of four, so its table stands there twice.
//!
//! **Triples.** Two blocks of 32 rows are unpacked to one dword per row, the eight magnitudes of a unit, in the order in
//! which unpacking leaves the rows: four triples of a row are a dword, a nibble each in bits 0-3. `vpshufb` brings the
//! byte of their signs to all four, a test of one bit in each picks them, and bit 4 is set where it is: an index into the
//! codes of 14 magnitudes of either sign, two vectors that `vpermi2d` looks up together. Three codes are three bytes, four
//! triples three dwords, and a table for each place, its bytes where they are needed, leaves nothing to shift:
//!
//! ```text
//! bytes of         first   second  third   fourth triple
//! its table        012.    12.0    2.01    .012
//! dwords           012 + 0         12 + 01         2 + 012
//! ```

use std::arch::x86_64::*;
use std::ops::Range;

use super::codes::Sections;
use super::i2s_avx512vnni::store;
use super::panel_avx512vnni::{Packed, Quad, load};
use super::tl_region::Region;

/// Columns of eight triples.
const TRIPLE_COLS: usize = 24;
/// Columns of eight pairs.
const PAIR_COLS: usize = 16;
/// Rows of a block of TL2, and of TL1 with eight columns to a step.
const BLOCK_ROWS: usize = 32;

/// Rows of TL1, whole tiles.
pub(super) struct Tl1Rows<'a> {
    pub codes: &'a [u8],
    pub rows: usize,
    pub cols: usize,
    /// 4 or 8 (BY); a step has 256 / BY rows.
    pub step_cols: usize,
    /// Blocks of rows in a tile.
    pub row_blocks: usize,
    pub steps: Region,
}

impl Packed for Tl1Rows<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn strip(&self, col: usize, most: usize) -> usize {
        most.min(self.cols - col)
    }

    unsafe fn fill(&self, row: usize, kept: usize, cols: Range<usize>, panel: &mut [Quad]) {
        let steps = cols.start / self.step_cols..cols.end / self.step_cols;
        let block_rows = 256 / self.step_cols;
        let units = |row: usize| {
            let block = row / block_rows;
            self.steps.run::<64>(
                self.codes,
                (block / self.row_blocks, block % self.row_blocks),
                steps.clone(),
            )
        };
        // SAFETY: the caller vouches for the CPU.
        unsafe {
            if self.step_cols == 4 {
                fill_pairs(units(row), panel);
            } else {
                // Where half a panel is left, its rows stand there twice.
                let second = if kept > BLOCK_ROWS { row + BLOCK_ROWS } else { row };
                fill_pairs_of_blocks(units(row).zip(units(second)), panel);
            }
        }
    }
}

/// Rows of TL2, whole tiles.
pub(super) struct Tl2Rows<'a> {
    pub codes: Sections<'a>,
    pub rows: usize,
    pub cols: usize,
    pub three_cols: usize,
    /// Blocks of rows in a tile.
    pub row_blocks: usize,
    pub triples: Region,
    pub pairs: Region,
}

impl Packed for Tl2Rows<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn strip(&self, col: usize, most: usize) -> usize {
        match self.three_cols.checked_sub(col) {
            Some(left @ 1..) => left.min(most / TRIPLE_COLS * TRIPLE_COLS),
            _ => most.min(self.cols - col),
        }
    }

    unsafe fn fill(&self, row: usize, kept: usize, cols: Range<usize>, panel: &mut [Quad]) {
        let block = |row: usize| (row / BLOCK_ROWS / self.row_blocks, row / BLOCK_ROWS % self.row_blocks);
        let blocks = [block(row), block(if kept > BLOCK_ROWS { row + BLOCK_ROWS } else { row })];
        if cols.start < self.three_cols {
            let units = cols.start / TRIPLE_COLS..cols.end / TRIPLE_COLS;
            let [first, second] = blocks.map(|block| {
                let codes = self.triples.run::<128>(self.codes.magnitudes, block, units.clone());
                codes.zip(self.triples.run::<32>(self.codes.signs, block, units.clone()))
            });
            // SAFETY: the caller vouches for the CPU.
            unsafe { fill_triples(first.zip(second), panel) };
        } else {
            let from = cols.start - self.three_cols;
            let units = from / PAIR_COLS..(from + cols.len()) / PAIR_COLS;
            let [first, second] =
                blocks.map(|block| self.pairs.run::<128>(self.codes.indices, block, units.clone()));
            // SAFETY: the caller vouches for the CPU.
            unsafe { fill_scattered_pairs(first.zip(second), panel) };
        }
    }

    /// All of them hold rows of either block.
    fn vectors(_: usize) -> usize {
        4
    }

    unsafe fn in_order(sums: [__m512i; 4]) -> [__m512i; 4] {
        // SAFETY: the caller vouches for the CPU.
        unsafe { blocks_in_order(sums) }
    }
}

/// Sums of the rows 0-3, 8-11 | 4-7, 12-15 | 16-19, 24-27 | 20-23, 28-31 of two blocks, by rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn blocks_in_order([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    [
        _mm512_permutex2var_epi64(a, first, b),
        _mm512_permutex2var_epi64(c, first, d),
        _mm512_permutex2var_epi64(a, second, b),
        _mm512_permutex2var_epi64(c, second, d),
    ]
}

/// For 16 rows of 4 bytes, byte `starts[row / 4]` + row % 4 of the lane as the low byte of both words.
const fn spread(starts: [u8; 4]) -> [u8; 64] {
    let mut bytes = [0; 64];
    let mut row = 0;
    while row < 16 {
        bytes[4 * row] = starts[row / 4] + row as u8 % 4;
        bytes[4 * row + 2] = bytes[4 * row];
        row += 1;
    }
    bytes
}

/// Sixteen rows that stand in order, in every lane.
const IN_ORDER: [u8; 64] = spread([0, 4, 8, 12]);
/// The rows of vector v, see [`blocks_in_order`], of two blocks whose bytes stand in the order 0-7, 16-23, 8-15, 24-31.
const SCATTERED: [[u8; 64]; 4] = [spread([0; 4]), spread([4; 4]), spread([8; 4]), spread([12; 4])];

/// Code + 1 of both columns of the pairs of index 0-8, twice.
const PAIRS: [u16; 32] = {
    let mut words = [0; 32];
    let mut i = 0;
    while i < 32 {
        let index = i as u16 % 16;
        if index < 9 {
            words[i] = (index / 3) | ((index % 3) << 8);
        }
        i += 1;
    }
    words
};

/// The four columns of sixteen rows, whose bytes of two pairs stand in each lane where `rows` says.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn decode_pairs(bytes: __m512i, rows: &[u8; 64], quad: &mut [u8; 64]) {
    let words = _mm512_shuffle_epi8(bytes, load(rows));
    let indices = _mm512_srlv_epi16(words, _mm512_set1_epi32(4));
    // SAFETY: 64 bytes; an unaligned load.
    let pairs = unsafe { _mm512_loadu_si512(PAIRS.as_ptr().cast()) };
    store(quad, _mm512_permutexvar_epi16(indices, pairs));
}

/// 64 rows of steps of four columns.
#[target_feature(enable = "avx512f,avx512bw")]
fn fill_pairs<'a>(steps: impl Iterator<Item = &'a [u8; 64]>, panel: &mut [Quad]) {
    for (step, quad) in steps.zip(panel) {
        for (rows, quad) in step.as_chunks().0.iter().zip(quad) {
            decode_pairs(four_times(rows), &IN_ORDER, quad);
        }
    }
}

/// Twice 32 rows of steps of eight columns: 16 rows of the first four columns, of the others, then the other rows.
#[target_feature(enable = "avx512f,avx512bw")]
fn fill_pairs_of_blocks<'a>(steps: impl Iterator<Item = (&'a [u8; 64], &'a [u8; 64])>, panel: &mut [Quad]) {
    for ((first, second), quads) in steps.zip(panel.as_chunks_mut::<2>().0) {
        for (block, step) in [first, second].into_iter().enumerate() {
            for (part, rows) in step.as_chunks().0.iter().enumerate() {
                decode_pairs(four_times(rows), &IN_ORDER, &mut quads[part % 2][2 * block + part / 2]);
            }
        }
    }
}

/// Twice 32 rows of units of sixteen columns, in the order of [`blocks_in_order`].
#[target_feature(enable = "avx512f,avx512bw")]
fn fill_scattered_pairs<'a>(units: impl Iterator<Item = (&'a [u8; 128], &'a [u8; 128])>, panel: &mut [Quad]) {
    for ((first, second), quads) in units.zip(panel.as_chunks_mut::<{ PAIR_COLS / 4 }>().0) {
        let bytes = first.as_chunks().0.iter().zip(second.as_chunks().0);
        for ((first, second), quad) in bytes.zip(quads) {
            for (rows, quad) in SCATTERED.iter().zip(quad) {
                decode_pairs(both(first, second), rows, quad);
            }
        }
    }
}

/// Code + 1 of the three columns of the triples of either sign, one in each dword: `at[i]` is the byte of column i.
const fn triples(at: [usize; 3]) -> [[u32; 16]; 2] {
    let mut tables = [[0; 16]; 2];
    let mut magnitude = 0;
    while magnitude < 14 {
        // Adding 13 = 111 (base 3) turns balanced digits into plain ones.
        let plain = magnitude + 13;
        let plus = [plain / 9, plain / 3 % 3, plain % 3];
        let mut column = 0;
        while column < 3 {
            tables[0][magnitude as usize] |= plus[column] << (8 * at[column]);
            tables[1][magnitude as usize] |= (2 - plus[column]) << (8 * at[column]);
            column += 1;
        }
        magnitude += 1;
    }
    tables
}

/// For the first, second, third and fourth triple of a dword of indices.
const TRIPLES: [[[u32; 16]; 2]; 4] =
    [triples([0, 1, 2]), triples([3, 0, 1]), triples([2, 3, 0]), triples([1, 2, 3])];

/// For four rows, the first four of eight or the others, the byte that has the signs of the first or the last four triples,
/// four times.
const fn sign_bytes(others: u8, last: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut i = 0;
    while i < 16 {
        bytes[i] = 2 * (4 * others + i as u8 / 4) + (1 - last);
        i += 1;
    }
    bytes
}

const SIGN_BYTES: [[[u8; 16]; 2]; 2] =
    [[sign_bytes(0, 0), sign_bytes(0, 1)], [sign_bytes(1, 0), sign_bytes(1, 1)]];

/// The signs of four triples in such a byte: bit 7 - 2 g that of triple g, and bit 6 - 2 g that of row + 16.
const SIGN_BITS: [[u8; 4]; 2] = [[0x80, 0x20, 0x08, 0x02], [0x40, 0x10, 0x04, 0x01]];

/// Magnitudes and signs of a block in one unit.
type Unit<'a> = (&'a [u8; 128], &'a [u8; 32]);

/// Twice 32 rows of units of 24 columns, in the order of [`blocks_in_order`].
#[target_feature(enable = "avx512f,avx512bw")]
fn fill_triples<'a>(units: impl Iterator<Item = (Unit<'a>, Unit<'a>)>, panel: &mut [Quad]) {
    for ((first, second), quads) in units.zip(panel.as_chunks_mut::<{ TRIPLE_COLS / 4 }>().0) {
        let words = both(first.1, second.1);
        for (half, quads) in quads.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            // Of either of two bytes, the triples in order: high nibble, low nibble.
            let nibbles = |i: usize| {
                let bytes = both(&first.0.as_chunks().0[i], &second.0.as_chunks().0[i]);
                let fifteen = _mm512_set1_epi8(15);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), fifteen);
                let low = _mm512_and_si512(bytes, fifteen);
                [_mm512_unpacklo_epi8(high, low), _mm512_unpackhi_epi8(high, low)]
            };
            let (a, b) = (nibbles(2 * half), nibbles(2 * half + 1));
            for upper_rows in 0..2 {
                let magnitudes = [
                    _mm512_unpacklo_epi16(a[upper_rows], b[upper_rows]),
                    _mm512_unpackhi_epi16(a[upper_rows], b[upper_rows]),
                ];
                for (others, magnitudes) in magnitudes.into_iter().enumerate() {
                    let signs = _mm512_shuffle_epi8(words, four_times(&SIGN_BYTES[others][half]));
                    let indices = indices(magnitudes, signs, SIGN_BITS[upper_rows]);
                    for (quad, codes) in quads.iter_mut().zip(decode_four(indices)) {
                        store(&mut quad[2 * upper_rows + others], codes);
                    }
                }
            }
        }
    }
}

/// Magnitudes, with the signs that stand at `bits` of the bytes of a dword in bit 4.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn indices(magnitudes: __m512i, signs: __m512i, bits: [u8; 4]) -> __m512i {
    let negative = _mm512_test_epi8_mask(signs, _mm512_set1_epi32(i32::from_le_bytes(bits)));
    _mm512_mask_add_epi8(magnitudes, negative, magnitudes, _mm512_set1_epi8(16))
}

/// Twelve columns of four triples.
#[inline]
#[target_feature(enable = "avx512f")]
fn decode_four(indices: __m512i) -> [__m512i; 3] {
    let a = look_up(indices, &TRIPLES[0]);
    let b = look_up(_mm512_srli_epi32::<8>(indices), &TRIPLES[1]);
    let c = look_up(_mm512_srli_epi32::<16>(indices), &TRIPLES[2]);
    let d = look_up(_mm512_srli_epi32::<24>(indices), &TRIPLES[3]);
    let join = |bits: u32, low, high| {
        _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(bits.cast_signed()), low, high)
    };
    [join(0x00ff_ffff, a, b), join(0xffff, b, c), join(0xff, c, d)]
}

/// What stands in the tables of either sign at bits 0-3, for the sign in bit 4.
#[inline]
#[target_feature(enable = "avx512f")]
fn look_up(indices: __m512i, [plus, minus]: &[[u32; 16]; 2]) -> __m512i {
    // SAFETY: 64 bytes each; unaligned loads.
    let (plus, minus) =
        unsafe { (_mm512_loadu_si512(plus.as_ptr().cast()), _mm512_loadu_si512(minus.as_ptr().cast())) };
    _mm512_permutex2var_epi32(plus, indices, minus)
}

/// One vector of two.
#[inline]
#[target_feature(enable = "avx512f")]
fn both(first: &[u8; 32], second: &[u8; 32]) -> __m512i {
    // SAFETY: 32 bytes each; unaligned loads.
    let (first, second) =
        unsafe { (_mm256_loadu_si256(first.as_ptr().cast()), _mm256_loadu_si256(second.as_ptr().cast())) };
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
}

/// Sixteen bytes in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn four_times(bytes: &[u8; 16]) -> __m512i {
    // SAFETY: 16 bytes; an unaligned load.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Magnitude 9 a + 3 b + c, digits -1, 0, 1, for both signs and all four places.
    #[test]
    fn tables_hold_balanced_ternary() {
        for (tables, at) in TRIPLES.iter().zip([[0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3]]) {
            for (table, sign) in tables.iter().zip([1, -1]) {
                for (magnitude, dword) in table[..14].iter().enumerate() {
                    let [a, b, c] = at.map(|at: usize| i32::from(dword.to_le_bytes()[at]) - 1);
                    assert_eq!(sign * (9 * a + 3 * b + c), magnitude as i32);
                    let unused = dword.to_le_bytes()[6 - at.iter().sum::<usize>()];
                    assert_eq!(unused, 0);
                }
            }
        }
    }
}
