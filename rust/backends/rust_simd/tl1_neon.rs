//! TL1 products with NEON, on the packed bytes as they stand (`docs/FORMATS.md`, TL1): the format that bitnet.cpp made for ARM.
//!
//! A step takes the 64 bytes of one column block of one row block, four vectors of pair indices of four columns, a quad:
//!
//! ```text
//! BY = 4    rows 0-15 | rows 16-31 | rows 32-47 | rows 48-63                    of one quad
//! BY = 8    rows 0-15, quad 0 | rows 0-15, quad 1 | rows 16-31, quad 0 | rows 16-31, quad 1
//! ```
//!
//! Either way the vectors of sixteen rows follow each other, one for each quad, and differ only in their number. `tl_neon`
//! says how they are looked up.

use std::ops::Range;

use super::super::BackendError;
use super::super::detect::Neon;
use super::codes::{PAIR_DIGITS, tile_of};
use super::tl_neon::{self, PAIR_UNITS, RUN, Run, Sums, Table, Tiles};
use super::tl_region::{Piece, Region};
use super::{Outputs, Product};
use crate::bitnet::formats::Weights;

/// Quads of a run: two pairs each.
const RUN_QUADS: usize = RUN / 2;

/// Makes some of the rows, whole tiles of checked weights, ready.
pub(super) fn part<'a>(
    token: (Neon, &str),
    weights: &Weights<'a>,
    rows: Range<usize>,
    n_max: usize,
) -> Result<Box<dyn Product + 'a>, BackendError> {
    let (cols, tile) = (weights.layout().cols(), tile_of(weights.layout()));
    let row_blocks = tile.bm / tile.row_block();
    let most = PAIR_UNITS * RUN_QUADS * 4 / tile.by;
    let tiles = Tl1 {
        codes: &weights.bytes()[rows.start * cols / 4..rows.end * cols / 4],
        rows: rows.len(),
        cols,
        step_cols: tile.by,
        row_blocks,
        steps: Region::new(cols / tile.bk, tile.bk / tile.by, row_blocks, most),
    };
    tl_neon::ready(token, tiles, n_max)
}

struct Tl1<'a> {
    codes: &'a [u8],
    rows: usize,
    cols: usize,
    /// BY.
    step_cols: usize,
    /// Of a tile.
    row_blocks: usize,
    /// Units are steps.
    steps: Region,
}

impl Tiles for Tl1<'_> {
    fn tile_rows(&self) -> usize {
        self.row_blocks * 256 / self.step_cols
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn n_tables(&self) -> usize {
        self.cols / 2
    }

    fn blocks(&self) -> usize {
        self.steps.pieces.len()
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.steps.pieces)
    }

    fn build<'t>(&self, _: Neon, q: &[i8], tables: impl Iterator<Item = &'t mut Table>) {
        for (table, &pair) in tables.zip(q.as_chunks().0) {
            // SAFETY: the token proves that this CPU runs NEON.
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
        let piece = self.steps.pieces[block];
        let tables = &tables[piece.first * self.step_cols / 2..][..piece.units * self.step_cols / 2];
        for row_block in 0..self.row_blocks {
            let (place, out) = ((tile, row_block), (&mut *out, first));
            // SAFETY: the token proves that this CPU runs NEON.
            unsafe {
                match self.step_cols {
                    4 => self.row_block::<N, 4, 1>(place, piece, tables, out),
                    _ => self.row_block::<N, 2, 2>(place, piece, tables, out),
                }
            }
        }
    }
}

impl Tl1<'_> {
    /// A row block of `GROUPS` times sixteen rows, whose steps have `QUADS` quads.
    #[target_feature(enable = "neon")]
    fn row_block<const N: usize, const GROUPS: usize, const QUADS: usize>(
        &self,
        (tile, row_block): (usize, usize),
        piece: Piece,
        tables: &[[Table; N]],
        (out, first): (&mut Outputs<'_, i32>, usize),
    ) {
        let codes: &[[u8; 64]] = self.steps.units(self.codes, (tile, row_block), piece);
        let mut sums = [[Sums::zero(); N]; GROUPS];
        add_steps::<N, GROUPS, QUADS>(codes, tables, &mut sums);
        let row = 16 * GROUPS * (tile * self.row_blocks + row_block);
        for i in 0..N {
            let out = out.of(first + i)[row..row + 16 * GROUPS].as_chunks_mut().0.as_chunks_mut::<2>().0;
            for (sums, [low, high]) in sums.iter().zip(out) {
                sums[i].add_to(low, high);
            }
        }
    }
}

/// Adds as many steps as there are codes to the sums of the row block.
#[target_feature(enable = "neon")]
#[inline]
fn add_steps<const N: usize, const GROUPS: usize, const QUADS: usize>(
    codes: &[[u8; 64]],
    tables: &[[Table; N]],
    sums: &mut [[Sums; N]; GROUPS],
) {
    let quads = tables.as_chunks::<2>().0;
    for (codes, quads) in codes.chunks(RUN_QUADS / QUADS).zip(quads.chunks(RUN_QUADS)) {
        for (group, sums) in sums.iter_mut().enumerate() {
            let mut runs = [Run::zero(); N];
            for (step, quads) in codes.iter().zip(quads.as_chunks::<QUADS>().0) {
                let vectors = &step.as_chunks().0[group * QUADS..][..QUADS];
                for (vector, [first, second]) in vectors.iter().zip(quads) {
                    let [high, low] = tl_neon::nibbles(tl_neon::load(vector));
                    for i in 0..N {
                        runs[i].add(first[i].load().of_rows(high));
                        runs[i].add(second[i].load().of_rows(low));
                    }
                }
            }
            for i in 0..N {
                sums[i].add(runs[i]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::product_tests::Prepare;
    use super::super::tl1_tests;
    use super::*;

    const PREPARES: [Prepare; 1] = [|weights, n_max| {
        tl_neon::check(&weights)?;
        let rows = 0..weights.layout().rows();
        Ok(part((Neon::implied(), "rust-neon"), &weights, rows, n_max).expect("memory for tables"))
    }];

    #[test]
    fn every_shape_and_batch_is_exact() {
        tl1_tests::every_shape_and_batch_is_exact(&PREPARES);
    }

    #[test]
    fn extremes_are_exact() {
        tl1_tests::extremes_are_exact(&PREPARES);
    }

    #[test]
    fn packed_bytes_of_bitnet_cpp_are_understood() {
        tl1_tests::packed_bytes_of_bitnet_cpp_are_understood(&PREPARES);
    }

    #[test]
    fn codes_that_no_packer_makes_are_refused() {
        tl1_tests::codes_that_no_packer_makes_are_refused(&PREPARES);
    }
}
