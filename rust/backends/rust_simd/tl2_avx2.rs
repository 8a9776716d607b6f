//! TL2 products with AVX2, on the packed bytes as they stand (`docs/FORMATS.md`, TL2).
//!
//! ```text
//! few activation rows, up to four at a time          more
//! tables of h and l for every triple and pair        out = -sum of q
//! for tile, k-block, 32 rows:                        for tile, 32 rows, up to 240 columns:
//!   for 8 triples:                                     decode code + 1 to a panel
//!     byte sums of sign * h, sign * l                  for every activation row: add panel * q
//!     int16 sums += 27 h + l
//!   out += int16 sums, even and odd rows apart
//! the same for the columns in pairs, without signs
//! of each tile: rows in order
//! ```
//!
//! **Signs.** Word i of the 16 of an octet of triples holds row i in its odd bits and row 16 + i in its even
//! ones, and bytes stand in the row order 0-7, 16-23 | 8-15, 24-31. So one `pshufb` copies the high bytes of the
//! words to the bytes of both rows; shifting the second half of each lane left by one, and everything left by two per
//! triple, brings each row's sign to the top bit of its own byte, which is what `psignb` looks at. A 1 in
//! the lowest bit keeps `psignb` from seeing a zero. The low bytes give the other four triples.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::detect::Avx2;
use super::codes::{self, Sections, TRIPLE_DIGITS};
use super::tl_avx2::{
    self, Decoded, LOOKUP_ROWS, Multiplier, PAIR_UNITS, Panel, Quad, TRIPLE_UNITS, Table, both_lanes, join,
    load, nibbles,
};
use super::tl_avx512::{self, SignedTable};
use super::tl_panel_avx512::Tl2Rows;
use super::tl_region::{Piece, Region, columns};
use super::{Product, panel_avx512vnni, panel_avxvnni};
use crate::bitnet::formats::{WeightFormat, Weights};
use crate::team::Outputs;

/// Tables of the eight triples or pairs that one unit takes.
type Tables = [Table; 8];

/// Columns of eight triples.
const TRIPLE_COLS: usize = 24;

/// Columns of eight pairs.
const PAIR_COLS: usize = 16;

/// Makes some of the rows, whole tiles of checked weights, ready: allocates the tables.
pub(super) fn part<'a>(
    (token, multiplier): (Avx2, Multiplier),
    weights: &Weights<'a>,
    rows: Range<usize>,
    n_max: usize,
) -> Box<dyn Product + 'a> {
    let layout = *weights.layout();
    let (three_cols, tile) = (layout.three_cols(), codes::tile_of(&layout));
    let two_cols = layout.cols() - three_cols;
    let row_blocks = tile.bm / 32;
    let lookup_rows = n_max.min(multiplier.max_lookup_rows(WeightFormat::Tl2));
    let triples = Region::new(three_cols / tile.bk, tile.bk / TRIPLE_COLS, row_blocks, TRIPLE_UNITS);
    let pairs = Region::new(two_cols / 32, 32 / PAIR_COLS, row_blocks, PAIR_UNITS);
    let n_tables = three_cols / TRIPLE_COLS * lookup_rows;
    Box::new(Tl2 {
        _token: token,
        multiplier,
        panels: [triples.groups(TRIPLE_UNITS), pairs.groups(PAIR_UNITS)],
        triple_tables: match multiplier {
            Multiplier::Avx512Vnni { wide_triples: Some(_), .. } if row_blocks.is_multiple_of(2) => {
                TripleTables::Wide(vec![[SignedTable::ZERO; 8]; n_tables])
            }
            _ => TripleTables::Narrow(vec![[Table::ZERO; 8]; n_tables]),
        },
        pair_tables: vec![[Table::ZERO; 8]; two_cols / PAIR_COLS * lookup_rows],
        weights: Tl2Rows {
            rows: rows.len(),
            cols: layout.cols(),
            three_cols,
            row_blocks,
            codes: Sections::of(weights, rows),
            triples,
            pairs,
        },
        panel: Decoded::of(multiplier, &layout, n_max),
    })
}

/// Tables of triples, eight for a unit.
enum TripleTables {
    /// For 32 rows at a time.
    Narrow(Vec<Tables>),
    /// For 64 rows at a time, with AVX-512 and VBMI.
    Wide(Vec<[SignedTable; 8]>),
}

struct Tl2<'a> {
    _token: Avx2,
    multiplier: Multiplier,
    /// Units of eight triples, and of eight pairs.
    weights: Tl2Rows<'a>,
    /// Pieces decoded together, of triples and of pairs.
    panels: [Vec<Vec<Piece>>; 2],
    /// `[three_cols / 24, n]`
    triple_tables: TripleTables,
    /// `[two_cols / 16, n]`
    pair_tables: Vec<Tables>,
    panel: Decoded,
}

impl Product for Tl2<'_> {
    fn run(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        // SAFETY: `_token` proves that this CPU has AVX2; there is a wide panel where it has AVX-512 VNNI.
        unsafe {
            match &mut self.panel {
                _ if n <= self.multiplier.max_lookup_rows(WeightFormat::Tl2) => self.look_up(q, n, out),
                Decoded::Wide(panel) => panel_avx512vnni::multiply(&self.weights, q, panel, out),
                Decoded::Pairs(panel, multiplicand) => {
                    let [triples, pairs] = &self.panels;
                    let triples = triples.iter().map(|panel| columns(panel, TRIPLE_COLS));
                    let pairs = pairs.iter().map(|panel| columns(panel, PAIR_COLS));
                    multiplicand.spread(q, triples.chain(pairs));
                    decode::<true>((&self.weights, &self.panels), q, (panel, out), |quads, col, out| {
                        multiplicand.add_panel(quads, col, out);
                    });
                }
                Decoded::Quads(panel, _) => {
                    decode::<false>((&self.weights, &self.panels), q, (panel, out), |quads, col, out| {
                        panel_avxvnni::add_panel(quads, (q, self.weights.cols, col), out);
                    });
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        let panels = self.panels.iter().flatten();
        let pieces = self.weights.triples.pieces.len() + self.weights.pairs.pieces.len();
        let triple_tables = match &self.triple_tables {
            TripleTables::Narrow(tables) => size_of_val(&**tables),
            TripleTables::Wide(tables) => size_of_val(&**tables),
        };
        triple_tables
            + size_of_val(&*self.pair_tables)
            + self.panel.bytes()
            + (pieces + panels.map(Vec::len).sum::<usize>()) * size_of::<Piece>()
    }
}

impl Tl2<'_> {
    /// The tiles one after the other, each for all activation rows, four at a time.
    #[target_feature(enable = "avx2")]
    fn look_up(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        let cols = self.weights.cols;
        let three_cols = self.weights.three_cols;
        let triple_units = three_cols / TRIPLE_COLS;
        let pair_units = (cols - three_cols) / PAIR_COLS;
        for (i, q) in q.chunks(LOOKUP_ROWS * cols).enumerate() {
            let first = i * LOOKUP_ROWS;
            let pairs = &mut self.pair_tables[first * pair_units..];
            match &mut self.triple_tables {
                TripleTables::Narrow(tables) => {
                    let tables = (&mut tables[first * triple_units..], pairs);
                    build_all(q, (cols, three_cols), tables, |table, answers| table.store(answers));
                }
                TripleTables::Wide(tables) => {
                    let tables = (&mut tables[first * triple_units..], pairs);
                    build_all(q, (cols, three_cols), tables, |table, answers| table.store(answers));
                }
            }
        }
        (0..n).for_each(|i| out.of(i).fill(0));
        for tile in 0..self.weights.rows / 32 / self.weights.row_blocks {
            for first in (0..n).step_by(LOOKUP_ROWS) {
                let tables = (first * triple_units, &self.pair_tables[first * pair_units..]);
                let out = (&mut *out, first);
                match n - first {
                    1 => self.look_up_tile::<1>(tile, tables, out),
                    2 => self.look_up_tile::<2>(tile, tables, out),
                    3 => self.look_up_tile::<3>(tile, tables, out),
                    _ => self.look_up_tile::<4>(tile, tables, out),
                }
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn look_up_tile<const N: usize>(
        &self,
        tile: usize,
        (first_table, pair_tables): (usize, &[Tables]),
        (out, first): (&mut Outputs<'_, i32>, usize),
    ) {
        for &piece in &self.weights.triples.pieces {
            let at = |row_block: usize| {
                let codes: &[[u8; 128]] =
                    self.weights.triples.units(self.weights.codes.magnitudes, (tile, row_block), piece);
                let signs: &[[u8; 32]] =
                    self.weights.triples.units(self.weights.codes.signs, (tile, row_block), piece);
                (codes, signs)
            };
            let first_table = first_table + piece.first * N;
            match &self.triple_tables {
                TripleTables::Narrow(tables) => {
                    for row_block in 0..self.weights.row_blocks {
                        let mut sums = [[_mm256_setzero_si256(); 2]; N];
                        let (codes, signs) = at(row_block);
                        add_triples(codes, signs, tables[first_table..].as_chunks().0, &mut sums);
                        self.add_sums(tile, row_block, &sums, (&mut *out, first));
                    }
                }
                TripleTables::Wide(tables) => {
                    for row_block in (0..self.weights.row_blocks).step_by(2) {
                        let mut sums = [[[_mm256_setzero_si256(); 2]; N]; 2];
                        let ((codes, signs), next) = (at(row_block), at(row_block + 1));
                        let tables = tables[first_table..].as_chunks().0;
                        // SAFETY: tables are wide only with the token that proves AVX-512 BW and VBMI.
                        unsafe {
                            tl_avx512::add_triples([codes, next.0], [signs, next.1], tables, &mut sums);
                        }
                        for (half, sums) in sums.iter().enumerate() {
                            self.add_sums(tile, row_block + half, sums, (&mut *out, first));
                        }
                    }
                }
            }
        }
        for &piece in &self.weights.pairs.pieces {
            for row_block in 0..self.weights.row_blocks {
                let mut sums = [[_mm256_setzero_si256(); 2]; N];
                let codes = self.weights.pairs.units(self.weights.codes.indices, (tile, row_block), piece);
                add_pairs(codes, pair_tables[piece.first * N..].as_chunks().0, &mut sums);
                self.add_sums(tile, row_block, &sums, (&mut *out, first));
            }
        }
        // Every sum is there: rows in order again.
        let tile_rows = 32 * self.weights.row_blocks;
        for i in first..first + N {
            let out = &mut out.of(i)[tile * tile_rows..][..tile_rows];
            for out in out.as_chunks_mut().0 {
                tl_avx2::in_row_order(out);
            }
        }
    }

    /// Adds the int16 sums of 32 rows to results `first`..., even and odd rows apart.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn add_sums<const N: usize>(
        &self,
        tile: usize,
        row_block: usize,
        sums: &[[__m256i; 2]; N],
        (out, first): (&mut Outputs<'_, i32>, usize),
    ) {
        let row = 32 * (tile * self.weights.row_blocks + row_block);
        for (i, sums) in sums.iter().enumerate() {
            let out = out.of(first + i)[row..row + 32].as_chunks_mut().0;
            for (out, &sums) in out.iter_mut().zip(sums) {
                tl_avx2::add_words_apart(out, sums);
            }
        }
    }
}

/// Decoded weights, 32 rows and up to 240 columns at a time, times all activation rows.
#[target_feature(enable = "avx2")]
fn decode<const PAIRS: bool>(
    (weights, [triple_panels, pair_panels]): (&Tl2Rows<'_>, &[Vec<Vec<Piece>>; 2]),
    q: &[i8],
    (Panel(decoded), out): (&mut Panel, &mut Outputs<'_, i32>),
    mut add_panel: impl FnMut(&[Quad], usize, (&mut Outputs<'_, i32>, usize)),
) {
    tl_avx2::start_with_offset(q, weights.cols, out);
    for row in (0..weights.rows).step_by(32) {
        let block = (row / 32 / weights.row_blocks, row / 32 % weights.row_blocks);
        let mut col = 0;
        for panel in triple_panels {
            let mut quads = 0;
            for &piece in panel {
                let codes = weights.triples.units(weights.codes.magnitudes, block, piece);
                let signs = weights.triples.units(weights.codes.signs, block, piece);
                let into = decoded[quads..].as_chunks_mut().0;
                for (quads, (codes, signs)) in into.iter_mut().zip(codes.iter().zip(signs)) {
                    tl_avx2::prefetch_ahead(codes, size_of_val(codes) * weights.triples.block_units);
                    decode_triples::<PAIRS>(codes, signs, quads);
                }
                quads += TRIPLE_COLS / 4 * piece.units;
            }
            add_panel(&decoded[..quads], col, (out, row));
            col += 4 * quads;
        }
        for panel in pair_panels {
            let mut quads = 0;
            for &piece in panel {
                let codes = weights.pairs.units::<128>(weights.codes.indices, block, piece);
                for (quad, codes) in decoded[quads..].iter_mut().zip(codes.as_flattened().as_chunks().0) {
                    tl_avx2::store_pairs::<PAIRS>(quad, load(codes));
                }
                quads += PAIR_COLS / 4 * piece.units;
            }
            add_panel(&decoded[..quads], col, (out, row));
            col += 4 * quads;
        }
    }
}

/// Fills the tables of the units of up to four activation rows `q` `[n, cols]`.
#[target_feature(enable = "avx2")]
fn build_all<T>(
    q: &[i8],
    (cols, three_cols): (usize, usize),
    tables: (&mut [[T; 8]], &mut [Tables]),
    store: impl Fn(&mut T, __m256i),
) {
    match q.len() / cols {
        1 => build_tables::<T, 1>(q, (cols, three_cols), tables, store),
        2 => build_tables::<T, 2>(q, (cols, three_cols), tables, store),
        3 => build_tables::<T, 3>(q, (cols, three_cols), tables, store),
        _ => build_tables::<T, 4>(q, (cols, three_cols), tables, store),
    }
}

/// [`build_all`] for exactly `N` activation rows.
#[target_feature(enable = "avx2")]
fn build_tables<T, const N: usize>(
    q: &[i8],
    (cols, three_cols): (usize, usize),
    (triple_tables, pair_tables): (&mut [[T; 8]], &mut [Tables]),
    store: impl Fn(&mut T, __m256i),
) {
    for (i, q) in q.chunks_exact(cols).enumerate() {
        let (three, two) = q.split_at(three_cols);
        for (tables, q) in triple_tables.as_chunks_mut::<N>().0.iter_mut().zip(three.as_chunks().0) {
            build_triple_tables(&mut tables[i], q, &store);
        }
        for (tables, q) in pair_tables.as_chunks_mut::<N>().0.iter_mut().zip(two.as_chunks().0) {
            let q = tl_avx2::offset_activations(q);
            for (pair, table) in tables[i].iter_mut().enumerate() {
                table.store(tl_avx2::pair_answers(q, 2 * pair));
            }
        }
    }
}

/// Activations 0..16 serve triples 0..=4, activations 8..24 triples 5..=7, which begin at column 15.
#[target_feature(enable = "avx2")]
#[inline]
fn build_triple_tables<T>(tables: &mut [T; 8], q: &[i8; TRIPLE_COLS], store: &impl Fn(&mut T, __m256i)) {
    let (Some(first), Some(last)) = (q.first_chunk(), q.last_chunk()) else { return };
    let (first, last) = (tl_avx2::offset_activations(first), tl_avx2::offset_activations(last));
    for (triple, table) in tables.iter_mut().enumerate() {
        let (q, at) = if triple < 5 { (first, 3 * triple) } else { (last, 3 * triple - 8) };
        store(table, tl_avx2::triple_answers(q, at));
    }
}

/// The signs of eight triples of 32 rows: the top bits of the bytes of two vectors, after shifting them left by two
/// per triple; no byte becomes zero.
#[target_feature(enable = "avx2")]
#[inline]
fn spread_signs(words: &[u8; 32]) -> [__m256i; 2] {
    let words = load(words);
    let high = _mm256_shuffle_epi8(words, _mm256_set1_epi64x(0x0f0d_0b09_0705_0301));
    let low = _mm256_shuffle_epi8(words, _mm256_set1_epi64x(0x0e0c_0a08_0604_0200));
    let one_more = _mm256_setr_epi32(0, 0, 1, 1, 0, 0, 1, 1);
    let not_zero = _mm256_set1_epi8(1);
    [
        _mm256_or_si256(_mm256_sllv_epi32(high, one_more), not_zero),
        _mm256_or_si256(_mm256_sllv_epi32(low, one_more), not_zero),
    ]
}

/// Shifts the sign of triple 0, 1, 2 or 3 to the top bits.
#[target_feature(enable = "avx2")]
#[inline]
fn sign_of_triple(signs: __m256i, triple: usize) -> __m256i {
    match triple {
        0 => signs,
        1 => _mm256_slli_epi16::<2>(signs),
        2 => _mm256_slli_epi16::<4>(signs),
        _ => _mm256_slli_epi16::<6>(signs),
    }
}

/// Adds to `sums` the triples of 32 rows in as many units as there are codes.
#[target_feature(enable = "avx2")]
#[inline]
fn add_triples<const N: usize>(
    codes: &[[u8; 128]],
    signs: &[[u8; 32]],
    tables: &[[Tables; N]],
    sums: &mut [[__m256i; 2]; N],
) {
    for (tables, (codes, signs)) in tables.iter().zip(codes.iter().zip(signs)) {
        tl_avx2::prefetch(codes);
        tl_avx2::prefetch_ahead(signs, tl_avx2::PREFETCH_BYTES * size_of_val(signs) / size_of_val(codes));
        let signs = spread_signs(signs);
        let mut high = [_mm256_setzero_si256(); N];
        let mut low = [_mm256_setzero_si256(); N];
        for (two, codes) in codes.as_chunks().0.iter().enumerate() {
            for (which, magnitudes) in nibbles(load(codes)).into_iter().enumerate() {
                let triple = 2 * two + which;
                let sign = sign_of_triple(signs[triple / 4], triple % 4);
                for i in 0..N {
                    let [h, l] = tables[i][triple].load();
                    let h = _mm256_sign_epi8(_mm256_shuffle_epi8(h, magnitudes), sign);
                    let l = _mm256_sign_epi8(_mm256_shuffle_epi8(l, magnitudes), sign);
                    high[i] = _mm256_add_epi8(high[i], h);
                    low[i] = _mm256_add_epi8(low[i], l);
                }
            }
        }
        for i in 0..N {
            for (sum, part) in sums[i].iter_mut().zip(join(high[i], low[i])) {
                *sum = _mm256_add_epi16(*sum, part);
            }
        }
    }
}

/// Adds to `sums` the pairs of 32 rows in as many units as there are codes.
#[target_feature(enable = "avx2")]
#[inline]
fn add_pairs<const N: usize>(codes: &[[u8; 128]], tables: &[[Tables; N]], sums: &mut [[__m256i; 2]; N]) {
    for (tables, codes) in tables.iter().zip(codes) {
        tl_avx2::prefetch(codes);
        let mut high = [_mm256_setzero_si256(); N];
        let mut low = [_mm256_setzero_si256(); N];
        for (two, codes) in codes.as_chunks().0.iter().enumerate() {
            for (which, indices) in nibbles(load(codes)).into_iter().enumerate() {
                for i in 0..N {
                    let [h, l] = tables[i][2 * two + which].load();
                    high[i] = _mm256_add_epi8(high[i], _mm256_shuffle_epi8(h, indices));
                    low[i] = _mm256_add_epi8(low[i], _mm256_shuffle_epi8(l, indices));
                }
            }
        }
        for i in 0..N {
            for (sum, part) in sums[i].iter_mut().zip(join(high[i], low[i])) {
                *sum = _mm256_add_epi16(*sum, part);
            }
        }
    }
}

/// Code + 1 of eight triples of 32 rows.
#[target_feature(enable = "avx2")]
#[inline]
fn decode_triples<const PAIRS: bool>(
    codes: &[u8; 128],
    signs: &[u8; 32],
    quads: &mut [Quad; TRIPLE_COLS / 4],
) {
    let [w0, w1, w2] = &TRIPLE_DIGITS;
    let digits = [both_lanes(w0), both_lanes(w1), both_lanes(w2)];
    let signs = spread_signs(signs);
    // Half a unit at a time: twelve columns fit the registers.
    let halves = codes.as_chunks::<64>().0.iter().zip(signs).zip(quads.chunks_exact_mut(3));
    for ((codes, signs), quads) in halves {
        let mut columns = [_mm256_setzero_si256(); TRIPLE_COLS / 2];
        for (two, codes) in codes.as_chunks().0.iter().enumerate() {
            for (which, magnitudes) in nibbles(load(codes)).into_iter().enumerate() {
                let triple = 2 * two + which;
                let sign = sign_of_triple(signs, triple);
                for (column, digits) in columns[3 * triple..][..3].iter_mut().zip(digits) {
                    let code = _mm256_sign_epi8(_mm256_shuffle_epi8(digits, magnitudes), sign);
                    *column = _mm256_add_epi8(code, _mm256_set1_epi8(1));
                }
            }
        }
        for (quad, columns) in quads.iter_mut().zip(columns.as_chunks().0) {
            tl_avx2::store_quad::<PAIRS>(quad, *columns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::product_tests::Prepare;
    use super::super::tl_avx2::{self, tests::token};
    use super::super::tl2_tests;
    use super::*;
    use crate::bitnet::formats::FormatError;

    fn prepare_with<'a>(
        multiplier: Multiplier,
        weights: Weights<'a>,
        n_max: usize,
    ) -> Result<Box<dyn Product + 'a>, FormatError> {
        tl_avx2::check(token(), &weights)?;
        Ok(part((token(), multiplier), &weights, 0..weights.layout().rows(), n_max))
    }

    /// With AVX2; on the widest instructions that this CPU has; the same with look-ups of 32 rows.
    const PREPARES: [Prepare; 3] = [
        |weights, n_max| prepare_with(Multiplier::Avx2, weights, n_max),
        |weights, n_max| prepare_with(Multiplier::widest(true), weights, n_max),
        |weights, n_max| prepare_with(Multiplier::widest(false), weights, n_max),
    ];

    #[test]
    fn every_shape_and_batch_is_exact() {
        tl2_tests::every_shape_and_batch_is_exact(&PREPARES);
    }

    #[test]
    fn extremes_are_exact() {
        tl2_tests::extremes_are_exact(&PREPARES);
    }

    #[test]
    fn products_are_those_of_bitnet_cpp() {
        tl2_tests::products_are_those_of_bitnet_cpp(&PREPARES);
    }

    #[test]
    fn signs_of_zeros_and_padding_mean_nothing() {
        tl2_tests::signs_of_zeros_and_padding_mean_nothing(&PREPARES);
    }

    #[test]
    fn codes_that_no_packer_makes_are_refused() {
        tl2_tests::codes_that_no_packer_makes_are_refused(&PREPARES);
    }
}
