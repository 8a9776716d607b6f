//! TL2 products with NEON, on the packed bytes as they stand (`docs/FORMATS.md`, TL2). `tl_neon` says how they are looked up.
//!
//! **Signs.** 32 rows stand in the order 0-7, 16-23, 8-15, 24-31, so a vector of magnitudes holds eight rows and the eight rows
//! 16 further. Word i of the 16 of an octet of triples holds row i in its odd bits and row 16 + i in its even ones: the upper
//! bytes of eight words, and the same shifted left by one, have the signs of four triples of one vector in bits 7, 5, 3, 1;
//! the lower bytes those of the other four.
//!
//! With m = -1 where a sign is negative and else 0, an answer with its sign is (a ^ m) - m. The subtractions are put off and
//! counted once for all activation rows, h and l alike: until then a byte is -15 at least, and eight are -120.

use std::arch::aarch64::*;
use std::ops::Range;

use super::super::BackendError;
use super::super::detect::Neon;
use super::codes::{PAIR_DIGITS, Sections, TRIPLE_DIGITS, tile_of};
use super::tl_neon::{self, PAIR_UNITS, Run, Sums, TRIPLE_UNITS, Table, Tiles};
use super::tl_region::{Piece, Region};
use super::{Outputs, Product};
use crate::bitnet::formats::Weights;

/// Columns of eight triples.
const TRIPLE_COLS: usize = 24;

/// Columns of eight pairs.
const PAIR_COLS: usize = 16;

/// Makes some of the rows, whole tiles of checked weights, ready.
pub(super) fn part<'a>(
    token: (Neon, &str),
    weights: &Weights<'a>,
    rows: Range<usize>,
    n_max: usize,
) -> Result<Box<dyn Product + 'a>, BackendError> {
    let layout = weights.layout();
    let (three_cols, tile) = (layout.three_cols(), tile_of(layout));
    let row_blocks = tile.bm / 32;
    let tiles = Tl2 {
        rows: rows.len(),
        cols: layout.cols(),
        three_cols,
        row_blocks,
        codes: Sections::of(weights, rows),
        triples: Region::new(three_cols / tile.bk, tile.bk / TRIPLE_COLS, row_blocks, TRIPLE_UNITS),
        pairs: Region::new((layout.cols() - three_cols) / 32, 32 / PAIR_COLS, row_blocks, PAIR_UNITS),
    };
    tl_neon::ready(token, tiles, n_max)
}

struct Tl2<'a> {
    rows: usize,
    cols: usize,
    /// Columns in triples; the others are in pairs.
    three_cols: usize,
    /// Of a tile.
    row_blocks: usize,
    codes: Sections<'a>,
    /// Units of eight triples.
    triples: Region,
    /// Units of eight pairs.
    pairs: Region,
}

impl Tiles for Tl2<'_> {
    fn tile_rows(&self) -> usize {
        self.row_blocks * 32
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn n_tables(&self) -> usize {
        self.three_cols / 3 + (self.cols - self.three_cols) / 2
    }

    fn blocks(&self) -> usize {
        self.triples.pieces.len() + self.pairs.pieces.len()
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.triples.pieces) + size_of_val(&*self.pairs.pieces)
    }

    fn build<'t>(&self, _: Neon, q: &[i8], mut tables: impl Iterator<Item = &'t mut Table>) {
        let (three, two) = q.split_at(self.three_cols);
        for (&triple, table) in three.as_chunks().0.iter().zip(tables.by_ref()) {
            // SAFETY: the token proves that this CPU runs NEON.
            *table = unsafe { Table::of(&TRIPLE_DIGITS, triple) };
        }
        for (&pair, table) in two.as_chunks().0.iter().zip(tables) {
            // SAFETY: as above.
            *table = unsafe { Table::of(&PAIR_DIGITS, pair) };
        }
    }

    fn look_up<const N: usize>(
        &self,
        _: Neon,
        (tile, block): (usize, usize),
        tables: &[[Table; N]],
        (out, first): (&mut Outputs<'_, i32>, usize),
    ) {
        for row_block in 0..self.row_blocks {
            let place = (tile, row_block);
            // SAFETY: the token proves that this CPU runs NEON.
            unsafe {
                let mut sums = [[Sums::zero(); N]; 2];
                match block.checked_sub(self.triples.pieces.len()) {
                    None => self.triples_of(place, self.triples.pieces[block], tables, &mut sums),
                    Some(block) => self.pairs_of(place, self.pairs.pieces[block], tables, &mut sums),
                }
                self.add_sums(place, &sums, (&mut *out, first));
            }
        }
    }
}

impl Tl2<'_> {
    /// A piece of triples of 32 rows.
    #[target_feature(enable = "neon")]
    fn triples_of<const N: usize>(
        &self,
        place: (usize, usize),
        piece: Piece,
        tables: &[[Table; N]],
        sums: &mut [[Sums; N]; 2],
    ) {
        let codes: &[[u8; 128]] = self.triples.units(self.codes.magnitudes, place, piece);
        let signs: &[[u8; 32]] = self.triples.units(self.codes.signs, place, piece);
        let tables = tables.as_chunks().0[piece.first..].iter();
        for (tables, (codes, words)) in tables.zip(codes.iter().zip(signs)) {
            add_triples(codes, words, tables, sums);
        }
    }

    /// A piece of pairs of 32 rows.
    #[target_feature(enable = "neon")]
    fn pairs_of<const N: usize>(
        &self,
        place: (usize, usize),
        piece: Piece,
        tables: &[[Table; N]],
        sums: &mut [[Sums; N]; 2],
    ) {
        let codes: &[[u8; 128]] = self.pairs.units(self.codes.indices, place, piece);
        let tables = tables[self.three_cols / 3..].as_chunks().0[piece.first..].iter();
        for (tables, codes) in tables.zip(codes) {
            add_pairs(codes, tables, sums);
        }
    }

    /// Adds the sums of 32 rows to results `first`...: rows 0-7 and 16-23, then 8-15 and 24-31.
    #[target_feature(enable = "neon")]
    #[inline]
    fn add_sums<const N: usize>(
        &self,
        (tile, row_block): (usize, usize),
        sums: &[[Sums; N]; 2],
        (out, first): (&mut Outputs<'_, i32>, usize),
    ) {
        let row = 32 * (tile * self.row_blocks + row_block);
        let [near, far] = sums;
        for (i, (near, far)) in near.iter().zip(far).enumerate() {
            let [a, b, c, d] = out.of(first + i)[row..row + 32].as_chunks_mut().0 else {
                unreachable!("32 rows")
            };
            near.add_to(a, c);
            far.add_to(b, d);
        }
    }
}

/// The signs of eight triples in the row order of a vector of magnitudes, four by four in bits 7, 5, 3, 1 of its bytes.
#[target_feature(enable = "neon")]
#[inline]
fn signs(words: &[u8; 16]) -> [uint8x16_t; 2] {
    // SAFETY: sixteen bytes are readable; no alignment is needed.
    let uint8x8x2_t(lower, upper) = unsafe { vld2_u8(words.as_ptr()) };
    [vcombine_u8(upper, vshl_n_u8::<1>(upper)), vcombine_u8(lower, vshl_n_u8::<1>(lower))]
}

/// The first nibbles of both vectors of 32 rows, then the second ones.
#[target_feature(enable = "neon")]
#[inline]
fn nibbles_of_both(codes: &[u8; 32]) -> [[uint8x16_t; 2]; 2] {
    let [near, far] = codes.as_chunks().0 else { unreachable!("32 bytes") };
    let [near, far] = [tl_neon::nibbles(tl_neon::load(near)), tl_neon::nibbles(tl_neon::load(far))];
    [[near[0], far[0]], [near[1], far[1]]]
}

/// Adds eight triples of 32 rows. A table serves both vectors at once, or the compiler would keep copies of all on the stack
/// for the second one.
#[target_feature(enable = "neon")]
#[inline]
fn add_triples<const N: usize>(
    codes: &[u8; 128],
    words: &[u8; 32],
    tables: &[[Table; N]; 8],
    sums: &mut [[Sums; N]; 2],
) {
    let [near, far] = words.as_chunks().0 else { unreachable!("32 bytes") };
    let signs = [signs(near), signs(far)];
    let mut runs = [[Run::zero(); 2]; N];
    let mut negative = [vdupq_n_s8(0); 2];
    for (two, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        for (which, magnitudes) in nibbles_of_both(codes).into_iter().enumerate() {
            let triple = 2 * two + which;
            let bit = vdupq_n_u8(128 >> (2 * (triple % 4)));
            let mut minus = [vdupq_n_s8(0); 2];
            for vector in 0..2 {
                minus[vector] = vreinterpretq_s8_u8(vtstq_u8(signs[vector][triple / 4], bit));
                negative[vector] = vsubq_s8(negative[vector], minus[vector]);
            }
            for (runs, table) in runs.iter_mut().zip(&tables[triple]) {
                let table = table.load();
                for (vector, Run { high, low }) in runs.iter_mut().enumerate() {
                    let answers = table.of_rows(magnitudes[vector]);
                    *high = vaddq_s8(*high, veorq_s8(answers.high, minus[vector]));
                    *low = vaddq_s8(*low, veorq_s8(answers.low, minus[vector]));
                }
            }
        }
    }
    for (vector, sums) in sums.iter_mut().enumerate() {
        for (sums, runs) in sums.iter_mut().zip(&runs) {
            let Run { high, low } = runs[vector];
            let negative = negative[vector];
            sums.add(Run { high: vaddq_s8(high, negative), low: vaddq_s8(low, negative) });
        }
    }
}

/// Adds eight pairs of 32 rows.
#[target_feature(enable = "neon")]
#[inline]
fn add_pairs<const N: usize>(codes: &[u8; 128], tables: &[[Table; N]; 8], sums: &mut [[Sums; N]; 2]) {
    let mut runs = [[Run::zero(); 2]; N];
    for (two, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        for (which, indices) in nibbles_of_both(codes).into_iter().enumerate() {
            for (runs, table) in runs.iter_mut().zip(&tables[2 * two + which]) {
                let table = table.load();
                for (run, indices) in runs.iter_mut().zip(indices) {
                    run.add(table.of_rows(indices));
                }
            }
        }
    }
    for (vector, sums) in sums.iter_mut().enumerate() {
        for (sums, runs) in sums.iter_mut().zip(&runs) {
            sums.add(runs[vector]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::product_tests::Prepare;
    use super::super::tl2_tests;
    use super::*;

    const PREPARES: [Prepare; 1] = [|weights, n_max| {
        tl_neon::check(&weights)?;
        let rows = 0..weights.layout().rows();
        Ok(part((Neon::implied(), "rust-neon"), &weights, rows, n_max).expect("memory for tables"))
    }];

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
