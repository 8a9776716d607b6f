//! TL1 and TL2 weights to and from ternary codes with AVX2 (`docs/FORMATS.md` 5 and 6).
//!
//! Both orders are made of columns of bytes: one byte per row, the rows of a block one after the other. So a
//! matrix is taken in bands of 32 rows, held as codes `[32, stride]` in a buffer that stays in L2:
//!
//! ```text
//! pack     16 columns (12 as triples) of each row -> 4 small numbers per row -> transposed: 4 columns of 32 bytes
//! unpack   a column of bytes -> 4 (3) columns of codes, by look-up -> transposed: 16 (12) codes of each row
//! ```
//!
//! A vector holds row i in its lower and row 16 + i in its upper lane, so that every shuffle stays within lanes
//! and rows come out in order; TL2's own order (0-7, 16-23, 8-15, 24-31) is one permutation of four quarters.
//!
//! Steps may reach beyond the columns that are theirs. What they write there is overwritten by the next step, to
//! the right, or stands in the padding of the band; what they read there is dropped.

use std::arch::x86_64::*;

use super::super::detect::Avx2;
use super::super::{BackendError, checks};
use super::codes::{self, PAIR_DIGITS, TRIPLE_DIGITS};
use super::quantize_avx2;
use super::ternary::Ternary;
use super::tl_avx2::{self, both_lanes, load, nibbles, store};
use crate::bitnet::formats::{Layout, Tile, WeightFormat, Weights};

/// Rows that are packed or unpacked together. Row blocks are 32 or 64 rows.
const ROWS: usize = 32;
/// Columns of one step: four quads, each a byte of two pairs.
const QUADS_COLS: usize = 16;
/// Columns of one step: four triples.
const TRIPLES_COLS: usize = 12;
/// Bytes of a column of 32 rows.
const COLUMN: usize = 32;
/// A cache line.
const LINE: usize = 64;

/// Codes `src` becomes, packed into the code bytes of `layout`. Whether any of them is not 0.
pub(super) fn pack(
    (token, backend): (Avx2, &str),
    layout: &Layout,
    ternary: Ternary,
    src: &[f32],
    bytes: &mut [u8],
) -> Result<bool, BackendError> {
    let tile = codes::tile_of(layout);
    let mut band = Band::new(backend, layout)?;
    let mut nonzero = false;
    for (index, rows) in src.chunks_exact(ROWS * layout.cols()).enumerate() {
        for (row, codes) in rows.chunks_exact(layout.cols()).zip(band.rows_mut()) {
            ternary.codes(token, row, &mut codes[..layout.cols()]);
        }
        nonzero = nonzero || band.codes.iter().any(|&code| code != 0);
        let at = Place { layout, tile, first_row: index * ROWS };
        // SAFETY: the token proves that this CPU runs AVX2.
        unsafe {
            if layout.format() == WeightFormat::Tl1 {
                band.pack_tl1(at, bytes)
            } else {
                band.pack_tl2(at, bytes)
            }
        }
    }
    Ok(nonzero)
}

/// `dst` `[rows, cols]` = code * scale. Nothing is written where a code is invalid.
pub(super) fn dequantize(
    (token, backend): (Avx2, &str),
    weights: &Weights<'_>,
    dst: &mut [f32],
) -> Result<(), BackendError> {
    let (layout, bytes) = (weights.layout(), weights.bytes());
    let tile = tl_avx2::check(token, weights)?;
    let mut band = Band::new(backend, layout)?;
    for (index, rows) in dst.chunks_exact_mut(ROWS * layout.cols()).enumerate() {
        let at = Place { layout, tile, first_row: index * ROWS };
        // SAFETY: the token proves that this CPU runs AVX2.
        unsafe {
            if layout.format() == WeightFormat::Tl1 {
                band.unpack_tl1(at, bytes)
            } else {
                band.unpack_tl2(at, bytes)
            }
        }
        for (row, codes) in rows.chunks_exact_mut(layout.cols()).zip(band.rows_mut()) {
            quantize_avx2::dequantize(token, &codes[..layout.cols()], weights.scale(), row);
        }
    }
    Ok(())
}

/// Where the sections of TL2 begin behind the magnitudes.
struct Sections {
    signs: usize,
    pairs: usize,
}

impl Sections {
    fn of(layout: &Layout) -> Self {
        let triples = layout.three_cols() * layout.rows();
        Self { signs: triples / 6, pairs: triples / 6 + triples / 24 }
    }
}

/// A band's place in the matrix.
#[derive(Clone, Copy)]
struct Place<'a> {
    layout: &'a Layout,
    tile: Tile,
    first_row: usize,
}

impl Place<'_> {
    /// How many (k-block, row block) cells precede the one of this band and k-block `block` of `blocks`.
    fn cells_before(self, block: usize, blocks: usize) -> usize {
        let Tile { bm, .. } = self.tile;
        let row_block = self.first_row % bm / self.tile.row_block();
        (self.first_row / bm * blocks + block) * (bm / self.tile.row_block()) + row_block
    }

    /// Where k-block `block` of this band stands. TL1.
    fn tl1_cell(self, block: usize) -> Tl1Cell {
        let (Tile { bk, by, .. }, row_block) = (self.tile, self.tile.row_block());
        let cell = self.cells_before(block, self.layout.cols() / bk) * (bk * row_block / 4);
        let log_quads = (by / 4).ilog2();
        Tl1Cell { first: cell + ((self.first_row % row_block) << log_quads), log_quads }
    }
}

/// The bytes of one k-block of a band: steps of one or two quads x all rows of the row block, 64 bytes each.
#[derive(Clone, Copy)]
struct Tl1Cell {
    first: usize,
    /// Of the quads of a step.
    log_quads: u32,
}

impl Tl1Cell {
    /// Offset of the 16 bytes of quad `quad` for the rows from `16 * half` of the band on.
    #[inline]
    fn half_column(self, quad: usize, half: usize) -> usize {
        let (step, within) = (quad >> self.log_quads, quad & ((1 << self.log_quads) - 1));
        self.first + step * LINE + ((half << self.log_quads) + within) * 16
    }
}

/// Codes of 32 rows; a row begins every `stride` bytes and has room for a whole step behind its end.
struct Band {
    stride: usize,
    codes: Vec<i8>,
}

impl Band {
    /// Zeros. An odd number of cache lines between rows keeps them from meeting in the same sets.
    fn new(backend: &str, layout: &Layout) -> Result<Self, BackendError> {
        let stride = ((layout.cols() + QUADS_COLS).div_ceil(LINE) | 1) * LINE;
        Ok(Self { stride, codes: checks::zeros(backend, ROWS, stride)? })
    }

    fn rows_mut(&mut self) -> std::slice::ChunksExactMut<'_, i8> {
        self.codes.chunks_exact_mut(self.stride)
    }

    #[target_feature(enable = "avx2")]
    fn pack_tl1(&self, at: Place<'_>, bytes: &mut [u8]) {
        let bk = at.tile.bk;
        for block in 0..at.layout.cols() / bk {
            let cell = at.tl1_cell(block);
            for first in (0..bk).step_by(QUADS_COLS) {
                let columns = self.step(block * bk + first).quads();
                for (quad, column) in (first / 4..bk / 4).zip(columns) {
                    for (half, rows) in tl_avx2::lanes(column).into_iter().enumerate() {
                        store_half(&mut bytes[cell.half_column(quad, half)..], rows);
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn unpack_tl1(&mut self, at: Place<'_>, bytes: &[u8]) {
        let bk = at.tile.bk;
        for block in 0..at.layout.cols() / bk {
            let cell = at.tl1_cell(block);
            for first in (0..bk).step_by(QUADS_COLS) {
                let mut columns = [_mm256_setzero_si256(); 4];
                // Always four, so that they stay in registers: two halves in memory are slow to read as one.
                for (i, column) in columns.iter_mut().enumerate() {
                    let quad = first / 4 + i;
                    if quad < bk / 4 {
                        let half = |half| load_half(&bytes[cell.half_column(quad, half)..]);
                        *column = _mm256_set_m128i(half(1), half(0));
                    }
                }
                self.store_quads(block * bk + first, columns);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn pack_tl2(&self, at: Place<'_>, bytes: &mut [u8]) {
        let (bk, three_cols) = (at.tile.bk, at.layout.three_cols());
        let sections = Sections::of(at.layout);
        let (magnitudes, rest) = bytes.split_at_mut(sections.signs);
        let (signs, pairs) = rest.split_at_mut(sections.pairs - sections.signs);
        for block in 0..three_cols / bk {
            let cell = at.cells_before(block, three_cols / bk);
            let magnitudes = columns_mut(magnitudes, cell, bk / 6).as_chunks_mut::<4>().0;
            let signs = columns_mut(signs, cell, bk / 24);
            for (i, (columns, words)) in magnitudes.iter_mut().zip(signs).enumerate() {
                let col = block * bk + 24 * i;
                let halves = [self.step(col).triples(), self.step(col + TRIPLES_COLS).triples()];
                for (columns, triples) in columns.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
                    store(&mut columns[0], in_quarters(magnitudes_of(triples[0], triples[1])));
                    store(&mut columns[1], in_quarters(magnitudes_of(triples[2], triples[3])));
                }
                store(words, sign_words(halves));
            }
        }
        let blocks = (at.layout.cols() - three_cols) / 32;
        for block in 0..blocks {
            let pairs = columns_mut(pairs, at.cells_before(block, blocks), 8).as_chunks_mut::<4>().0;
            for (i, columns) in pairs.iter_mut().enumerate() {
                let quads = self.step(three_cols + 32 * block + QUADS_COLS * i).quads();
                for (column, quads) in columns.iter_mut().zip(quads) {
                    store(column, in_quarters(quads));
                }
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn unpack_tl2(&mut self, at: Place<'_>, bytes: &[u8]) {
        let (bk, three_cols) = (at.tile.bk, at.layout.three_cols());
        let sections = Sections::of(at.layout);
        for block in 0..three_cols / bk {
            let cell = at.cells_before(block, three_cols / bk);
            let magnitudes = columns(bytes, cell, bk / 6).as_chunks::<4>().0;
            let signs = columns(&bytes[sections.signs..], cell, bk / 24);
            for (i, (columns, words)) in magnitudes.iter().zip(signs).enumerate() {
                let [a, b, c, d] = columns.each_ref().map(|column| in_quarters(load(column)));
                let signs = sign_bytes(load(words));
                self.store_triples(block * bk + 24 * i, [a, b], signs[0]);
                self.store_triples(block * bk + 24 * i + TRIPLES_COLS, [c, d], signs[1]);
            }
        }
        let blocks = (at.layout.cols() - three_cols) / 32;
        for block in 0..blocks {
            let pairs = columns(&bytes[sections.pairs..], at.cells_before(block, blocks), 8);
            for (i, columns) in pairs.as_chunks::<4>().0.iter().enumerate() {
                let quads = columns.each_ref().map(|column| in_quarters(load(column)));
                self.store_quads(three_cols + 32 * block + QUADS_COLS * i, quads);
            }
        }
    }

    /// The step that begins at column `col`.
    #[inline]
    fn step(&self, col: usize) -> Step<'_> {
        Step { codes: &self.codes[col..][..(ROWS - 1) * self.stride + QUADS_COLS], stride: self.stride }
    }

    /// The codes of four quads, whose bytes are rows in order, to the columns from `col` on.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn store_quads(&mut self, col: usize, quads: [__m256i; 4]) {
        let [w0, w1] = PAIR_DIGITS.each_ref().map(|digits| both_lanes(digits));
        let mut dwords = [[_mm256_setzero_si256(); 4]; 4];
        for (dwords, bytes) in dwords.iter_mut().zip(quads) {
            let [first, second] = nibbles(bytes);
            *dwords = zip_columns([
                _mm256_shuffle_epi8(w0, first),
                _mm256_shuffle_epi8(w1, first),
                _mm256_shuffle_epi8(w0, second),
                _mm256_shuffle_epi8(w1, second),
            ]);
        }
        self.store_rows(col, dwords);
    }

    /// The codes of four triples, from two columns of magnitudes and one of signs, to the columns from `col` on.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn store_triples(&mut self, col: usize, magnitudes: [__m256i; 2], signs: __m256i) {
        let digits = TRIPLE_DIGITS.each_ref().map(|digits| both_lanes(digits));
        let [[a, b], [c, d]] = magnitudes.map(|bytes| nibbles(bytes));
        let triple = |magnitude, bit| {
            // -1 where the sign is set, else +1.
            let sign =
                _mm256_or_si256(_mm256_cmpeq_epi8(_mm256_and_si256(signs, bit), bit), _mm256_set1_epi8(1));
            digits.map(|digits| _mm256_sign_epi8(_mm256_shuffle_epi8(digits, magnitude), sign))
        };
        let [a, b, c, d] =
            [triple(a, sign_bit(0)), triple(b, sign_bit(1)), triple(c, sign_bit(2)), triple(d, sign_bit(3))];
        self.store_rows(
            col,
            [
                zip_columns([a[0], a[1], a[2], b[0]]),
                zip_columns([b[1], b[2], c[0], c[1]]),
                zip_columns([c[2], d[0], d[1], d[2]]),
                [_mm256_setzero_si256(); 4],
            ],
        );
    }

    /// 16 codes of every row from column `col` on, from four dwords per row as [`zip_columns`] leaves them.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn store_rows(&mut self, col: usize, dwords: [[__m256i; 4]; 4]) {
        let codes = self.codes[col..][..(ROWS - 1) * self.stride + QUADS_COLS].as_mut_ptr();
        let [a, b, c, d] = dwords;
        for (four, (((a, b), c), d)) in a.into_iter().zip(b).zip(c).zip(d).enumerate() {
            let rows = transpose_dwords([a, b, c, d]);
            for (i, codes_of_rows) in rows.into_iter().enumerate() {
                let low = codes.wrapping_add((4 * four + i) * self.stride);
                // SAFETY: 4 * four + i is at most 15, and the slice ends 16 codes after the begin of row 16 + 15.
                unsafe {
                    _mm256_storeu2_m128i(
                        low.wrapping_add(16 * self.stride).cast(),
                        low.cast(),
                        codes_of_rows,
                    );
                }
            }
        }
    }
}

/// 16 columns of a band, of which row r begins at `codes[r * stride]`.
struct Step<'a> {
    /// (32 - 1) * stride + 16 of them.
    codes: &'a [i8],
    stride: usize,
}

impl Step<'_> {
    /// The bytes of the four quads, rows in order.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn quads(&self) -> [__m256i; 4] {
        let (threes, sixteens) = (_mm256_set1_epi16(0x0103), _mm256_set1_epi16(0x0110));
        self.columns_of(|row| {
            let pairs = |row| _mm256_maddubs_epi16(threes, self.load_rows(row));
            let indices = |pairs| _mm256_add_epi8(pairs, _mm256_set1_epi8(4));
            let first = indices(_mm256_packs_epi16(pairs(row), pairs(row + 1)));
            let second = indices(_mm256_packs_epi16(pairs(row + 2), pairs(row + 3)));
            _mm256_packus_epi16(_mm256_maddubs_epi16(first, sixteens), _mm256_maddubs_epi16(second, sixteens))
        })
    }

    /// The values 9 w0 + 3 w1 + w2 of the four triples in the first 12 columns, rows in order.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn triples(&self) -> [__m256i; 4] {
        let spread = lanes_of([0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1]);
        let (weights, ones) = (_mm256_set1_epi32(0x0001_0309), _mm256_set1_epi16(1));
        self.columns_of(|row| {
            let values = |row| {
                let codes = _mm256_shuffle_epi8(self.load_rows(row), spread);
                _mm256_madd_epi16(_mm256_maddubs_epi16(weights, codes), ones)
            };
            _mm256_packs_epi16(
                _mm256_packs_epi32(values(row), values(row + 1)),
                _mm256_packs_epi32(values(row + 2), values(row + 3)),
            )
        })
    }

    /// Four columns of bytes from `four_rows(row)`: four bytes of each of the rows `row`..`row + 4` and 16 further.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn columns_of(&self, four_rows: impl Fn(usize) -> __m256i) -> [__m256i; 4] {
        let transposed = lanes_of([0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]);
        let column = |row| _mm256_shuffle_epi8(four_rows(row), transposed);
        transpose_dwords([column(0), column(4), column(8), column(12)])
    }

    /// Row `row` and row 16 + `row`, for `row` below 16.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn load_rows(&self, row: usize) -> __m256i {
        assert!(row < 16);
        let low = self.codes.as_ptr().wrapping_add(row * self.stride);
        // SAFETY: the step holds 16 codes from row 16 + 15 on, and from every row before it.
        unsafe { _mm256_loadu2_m128i(low.wrapping_add(16 * self.stride).cast(), low.cast()) }
    }
}

/// The bit of triple `triple` (of four) in a byte of signs: rows 0-15 own the odd bits, rows 16-31 the even ones.
#[target_feature(enable = "avx2")]
#[inline]
fn sign_bit(triple: i8) -> __m256i {
    let bit = |at: i8| _mm_set1_epi8((1_u8 << at) as i8);
    _mm256_set_m128i(bit(6 - 2 * triple), bit(7 - 2 * triple))
}

/// The magnitudes of two triples, the first in the high nibble.
#[target_feature(enable = "avx2")]
#[inline]
fn magnitudes_of(first: __m256i, second: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi16::<4>(_mm256_abs_epi8(first)), _mm256_abs_epi8(second))
}

/// The sign words of twice four triples of 32 rows.
#[target_feature(enable = "avx2")]
#[inline]
fn sign_words([first, second]: [[__m256i; 4]; 2]) -> __m256i {
    let bits = |triples: [__m256i; 4]| {
        let mut all = _mm256_setzero_si256();
        for (triple, values) in (0..).zip(triples) {
            let negative = _mm256_cmpgt_epi8(_mm256_setzero_si256(), values);
            all = _mm256_or_si256(all, _mm256_and_si256(negative, sign_bit(triple)));
        }
        let [low, high] = tl_avx2::lanes(all);
        _mm_or_si128(low, high)
    };
    let (high, low) = (bits(first), bits(second));
    _mm256_set_m128i(_mm_unpackhi_epi8(low, high), _mm_unpacklo_epi8(low, high))
}

/// The bytes of sign words that hold triples 0-3 and 4-7, one per row, for rows i and 16 + i alike.
#[target_feature(enable = "avx2")]
#[inline]
fn sign_bytes(words: __m256i) -> [__m256i; 2] {
    let halves = _mm256_shuffle_epi8(words, lanes_of([0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15]));
    [_mm256_permute4x64_epi64::<0b11_01_11_01>(halves), _mm256_permute4x64_epi64::<0b10_00_10_00>(halves)]
}

/// 32 rows in order to the order 0-7, 16-23, 8-15, 24-31, and back.
#[target_feature(enable = "avx2")]
#[inline]
fn in_quarters(rows: __m256i) -> __m256i {
    _mm256_permute4x64_epi64::<0b11_01_10_00>(rows)
}

/// Four columns of bytes to dwords of four columns: rows 0-3, 4-7, 8-11, 12-15, and 16 further in the upper lane.
#[target_feature(enable = "avx2")]
#[inline]
fn zip_columns([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
    [
        _mm256_unpacklo_epi16(ab, cd),
        _mm256_unpackhi_epi16(ab, cd),
        _mm256_unpacklo_epi16(ab_high, cd_high),
        _mm256_unpackhi_epi16(ab_high, cd_high),
    ]
}

/// In each lane, dword j of vector i to dword i of vector j.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose_dwords([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The same 16 bytes in both lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn lanes_of(bytes: [i8; 16]) -> __m256i {
    both_lanes(&bytes.map(|byte| byte as u8))
}

/// The first 16 bytes.
#[target_feature(enable = "avx2")]
#[inline]
fn load_half(bytes: &[u8]) -> __m128i {
    let bytes = &bytes[..16];
    // SAFETY: 16 bytes are readable; loadu needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Over the first 16 bytes.
#[target_feature(enable = "avx2")]
#[inline]
fn store_half(bytes: &mut [u8], value: __m128i) {
    let bytes = &mut bytes[..16];
    // SAFETY: 16 bytes are writable; storeu needs no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) };
}

/// The columns of cell `cell`, each cell being `count` columns.
fn columns(bytes: &[u8], cell: usize, count: usize) -> &[[u8; COLUMN]] {
    &bytes.as_chunks().0[cell * count..][..count]
}

/// The same, to be written.
fn columns_mut(bytes: &mut [u8], cell: usize, count: usize) -> &mut [[u8; COLUMN]] {
    &mut bytes.as_chunks_mut().0[cell * count..][..count]
}
