//! TL1 products with AVX2, on the packed bytes as they stand (`docs/FORMATS.md`, TL1).
//!
//! A step takes the 64 bytes of one column block of one row block, two vectors of pair indices:
//!
//! ```text
//! BY = 4    rows 0-15, quad 0 | rows 16-31, quad 0      rows 32-47, quad 0 | rows 48-63, quad 0
//! BY = 8    rows 0-15, quad 0 | rows  0-15, quad 1      rows 16-31, quad 0 | rows 16-31, quad 1
//! ```
//!
//! so both inner blocks use the same loop: the two lanes of a table serve the quads of the two lanes of the
//! bytes, and only where a lane's sums belong differs. A few activation rows are looked up, more are
//! multiplied with decoded panels; `tl_avx2` says how.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::detect::Avx2;
use super::codes;
use super::tl_avx2::{
    self, Decoded, LOOKUP_ROWS, Multiplier, PAIR_UNITS, Panel, Quad, Table, add_words, join, lanes, load,
    nibbles,
};
use super::tl_avx512;
use super::tl_panel_avx512::Tl1Rows;
use super::tl_region::{Piece, Region, columns};
use super::{Product, panel_avx512vnni, panel_avxvnni};
use crate::bitnet::formats::{WeightFormat, Weights};
use crate::team::Outputs;

/// Tables of one step: for the first and the second pair of the quads h and l, each for both lanes.
type Tables = [[Table; 2]; 2];

/// Steps that add eight pairs to a byte sum.
const UNIT_STEPS: usize = 4;

/// Makes some of the rows, whole tiles of checked weights, ready: allocates the tables.
pub(super) fn part<'a>(
    (token, multiplier): (Avx2, Multiplier),
    weights: &Weights<'a>,
    rows: Range<usize>,
    n_max: usize,
) -> Box<dyn Product + 'a> {
    let (cols, tile) = (weights.layout().cols(), codes::tile_of(weights.layout()));
    let row_blocks = tile.bm / tile.row_block();
    let panel_steps = 64 * 4 / tile.by;
    let most = panel_steps.min(PAIR_UNITS * UNIT_STEPS);
    let steps = Region::new(cols / tile.bk, tile.bk / tile.by, row_blocks, most);
    Box::new(Tl1 {
        _token: token,
        multiplier,
        panels: steps.groups(panel_steps),
        tables: vec![
            [[Table::ZERO; 2]; 2];
            cols / tile.by * n_max.min(multiplier.max_lookup_rows(WeightFormat::Tl1))
        ],
        weights: Tl1Rows {
            codes: &weights.bytes()[rows.start * cols / 4..rows.end * cols / 4],
            rows: rows.len(),
            cols,
            step_cols: tile.by,
            row_blocks,
            steps,
        },
        panel: Decoded::of(multiplier, weights.layout(), n_max),
    })
}

struct Tl1<'a> {
    _token: Avx2,
    multiplier: Multiplier,
    weights: Tl1Rows<'a>,
    panels: Vec<Vec<Piece>>,
    /// `[cols / step_cols, n]`
    tables: Vec<Tables>,
    panel: Decoded,
}

impl Product for Tl1<'_> {
    fn run(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        // SAFETY: `_token` proves that this CPU has AVX2; there is a wide panel where it has AVX-512 VNNI.
        unsafe {
            match &mut self.panel {
                _ if n <= self.multiplier.max_lookup_rows(WeightFormat::Tl1) => self.look_up(q, n, out),
                Decoded::Wide(panel) => panel_avx512vnni::multiply(&self.weights, q, panel, out),
                Decoded::Pairs(panel, multiplicand) => {
                    multiplicand
                        .spread(q, self.panels.iter().map(|panel| columns(panel, self.weights.step_cols)));
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
        let pieces = self.weights.steps.pieces.len() + self.panels.iter().map(Vec::len).sum::<usize>();
        size_of_val(&*self.tables) + self.panel.bytes() + pieces * size_of::<Piece>()
    }
}

impl Tl1<'_> {
    /// The tiles one after the other, each for all activation rows, four at a time.
    #[target_feature(enable = "avx2")]
    fn look_up(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        let cols = self.weights.cols;
        let group_tables = LOOKUP_ROWS * cols / self.weights.step_cols;
        for (q, tables) in q.chunks(LOOKUP_ROWS * cols).zip(self.tables.chunks_mut(group_tables)) {
            match q.len() / cols {
                1 => build_tables::<1>(q, cols, self.weights.step_cols, tables),
                2 => build_tables::<2>(q, cols, self.weights.step_cols, tables),
                3 => build_tables::<3>(q, cols, self.weights.step_cols, tables),
                _ => build_tables::<4>(q, cols, self.weights.step_cols, tables),
            }
        }
        (0..n).for_each(|i| out.of(i).fill(0));
        let block_rows = 256 / self.weights.step_cols;
        for tile in 0..self.weights.rows / block_rows / self.weights.row_blocks {
            for (first, tables) in (0..n).step_by(LOOKUP_ROWS).zip(self.tables.chunks(group_tables)) {
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
        tables: &[Tables],
        (out, first): (&mut Outputs<'_, i32>, usize),
    ) {
        for &piece in &self.weights.steps.pieces {
            for row_block in 0..self.weights.row_blocks {
                let mut sums = [[_mm256_setzero_si256(); 4]; N];
                let codes = self.weights.steps.units(self.weights.codes, (tile, row_block), piece);
                let tables = tables[piece.first * N..].as_chunks().0;
                match self.multiplier {
                    // SAFETY: the token proves that this CPU has AVX-512 BW.
                    Multiplier::Avx512Vnni { wide_pairs: true, .. } => unsafe {
                        tl_avx512::add_steps(codes, tables, &mut sums)
                    },
                    _ => add_steps(codes, tables, &mut sums),
                }
                self.add_sums(tile, row_block, &sums, (&mut *out, first));
            }
        }
    }

    /// Adds the int16 sums of a row block to results `first`...
    #[target_feature(enable = "avx2")]
    #[inline]
    fn add_sums<const N: usize>(
        &self,
        tile: usize,
        row_block: usize,
        sums: &[[__m256i; 4]; N],
        (out, first): (&mut Outputs<'_, i32>, usize),
    ) {
        let block_rows = 256 / self.weights.step_cols;
        let row = block_rows * (tile * self.weights.row_blocks + row_block);
        for (n, sums) in sums.iter().enumerate() {
            let out = out.of(first + n)[row..row + block_rows].as_chunks_mut().0;
            for (i, &sums) in sums.iter().enumerate() {
                let (vector, half) = (i / 2, i % 2);
                let [low, high] = lanes(sums);
                let eight = if self.weights.step_cols == 4 { 4 * vector + half } else { i };
                let other = if self.weights.step_cols == 4 { eight + 2 } else { i };
                add_words(&mut out[eight], low);
                add_words(&mut out[other], high);
            }
        }
    }
}

/// Decoded weights, 32 rows and up to 256 columns at a time, times all activation rows.
#[target_feature(enable = "avx2")]
fn decode<const PAIRS: bool>(
    (weights, panels): (&Tl1Rows<'_>, &[Vec<Piece>]),
    q: &[i8],
    (Panel(decoded), out): (&mut Panel, &mut Outputs<'_, i32>),
    mut add_panel: impl FnMut(&[Quad], usize, (&mut Outputs<'_, i32>, usize)),
) {
    let block_rows = 256 / weights.step_cols;
    let step_quads = weights.step_cols / 4;
    tl_avx2::start_with_offset(q, weights.cols, out);
    for row in (0..weights.rows).step_by(32) {
        let (block, half) = (row / block_rows, row % block_rows / 32);
        let block = (block / weights.row_blocks, block % weights.row_blocks);
        let mut col = 0;
        for panel in panels {
            let mut quads = 0;
            for &piece in panel {
                let codes = weights.steps.units(weights.codes, block, piece);
                for (codes, quads) in codes.iter().zip(decoded[quads..].chunks_exact_mut(step_quads)) {
                    tl_avx2::prefetch_ahead(codes, size_of_val(codes) * weights.steps.block_units);
                    decode_step::<PAIRS>(codes, half, quads);
                }
                quads += step_quads * piece.units;
            }
            add_panel(&decoded[..quads], col, (out, row));
            col += 4 * quads;
        }
    }
}

/// Fills the tables of the steps of `N` activation rows `q` `[N, cols]`.
#[target_feature(enable = "avx2")]
fn build_tables<const N: usize>(q: &[i8], cols: usize, step_cols: usize, tables: &mut [Tables]) {
    for (i, q) in q.chunks_exact(cols).enumerate() {
        let tables = tables.as_chunks_mut::<N>().0;
        for (tables, q) in tables.chunks_mut(16 / step_cols).zip(q.chunks(16)) {
            let mut sixteen = [0; 16];
            sixteen[..q.len()].copy_from_slice(q);
            let q = tl_avx2::offset_activations(&sixteen);
            for (step, tables) in tables.iter_mut().enumerate() {
                for (which, [high, low]) in tables[i].iter_mut().enumerate() {
                    let first = step * step_cols + 2 * which;
                    let a = tl_avx2::pair_answers(q, first);
                    let b = tl_avx2::pair_answers(q, first + step_cols - 4);
                    high.store(_mm256_permute2x128_si256::<0x20>(a, b));
                    low.store(_mm256_permute2x128_si256::<0x31>(a, b));
                }
            }
        }
    }
}

/// Adds to `sums` (for either vector of a step, the low and the high half of each lane) as many steps as there are
/// codes.
#[target_feature(enable = "avx2")]
#[inline]
fn add_steps<const N: usize>(codes: &[[u8; 64]], tables: &[[Tables; N]], sums: &mut [[__m256i; 4]; N]) {
    for (tables, codes) in tables.chunks(UNIT_STEPS).zip(codes.chunks(UNIT_STEPS)) {
        let mut parts = [[[_mm256_setzero_si256(); 2]; 2]; N];
        for (tables, codes) in tables.iter().zip(codes) {
            tl_avx2::prefetch(codes);
            for (vector, codes) in codes.as_chunks().0.iter().enumerate() {
                for (which, indices) in nibbles(load(codes)).into_iter().enumerate() {
                    for i in 0..N {
                        for (part, table) in parts[i][vector].iter_mut().zip(&tables[i][which]) {
                            *part = _mm256_add_epi8(*part, _mm256_shuffle_epi8(table.load_wide(), indices));
                        }
                    }
                }
            }
        }
        for i in 0..N {
            for vector in 0..2 {
                let [high, low] = parts[i][vector];
                for (sum, part) in sums[i][2 * vector..].iter_mut().zip(join(high, low)) {
                    *sum = _mm256_add_epi16(*sum, part);
                }
            }
        }
    }
}

/// Code + 1 of 32 rows of one step: rows 32 * half.. of its quad (BY = 4), or all rows of its two quads (BY = 8).
#[target_feature(enable = "avx2")]
#[inline]
fn decode_step<const PAIRS: bool>(codes: &[u8; 64], half: usize, quads: &mut [Quad]) {
    let [a, b] = codes.as_chunks().0 else { return };
    let (a, b) = (load(a), load(b));
    let in_row_order = match quads.len() {
        1 => [if half == 0 { a } else { b }; 2],
        _ => [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)],
    };
    for (quad, bytes) in quads.iter_mut().zip(in_row_order) {
        let bytes = if PAIRS { bytes } else { _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes) };
        tl_avx2::store_pairs::<PAIRS>(quad, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::product_tests::Prepare;
    use super::super::tl_avx2::{self, tests::token};
    use super::super::tl1_tests;
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
