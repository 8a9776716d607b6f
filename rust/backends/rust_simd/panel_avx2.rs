//! Products of decoded weights with many activation rows on AVX2, for TL1 and TL2.
//!
//! `pmaddubsw` adds two products, so here a panel holds pairs of columns: one pair of 16 rows is a vector, whose 16 sums
//! stay in int16 for as long as they cannot leave it. A pair of one activation row meets it in every lane; activations
//! are spread to that once for all weight rows. Two vectors of codes (32 rows) meet up to six activation rows: 12 sums,
//! 2 vectors of codes, one of activations and one product are the 16 registers.
//!
//! Activations stand in the order of their use, and the sums of 32 rows side by side until the last panel is through: at
//! the distance that rows have in memory they would meet in a few sets of the cache.
//!
//! A pair of products is at most 2 * 2 * 128 = 512 in magnitude; 64 pairs reach 32768 on the negative side only.

use std::arch::x86_64::*;

use super::shares;
use super::tl_avx2::{Quad, add_dwords, load};
use crate::team::Outputs;

/// Activation rows of a tile.
const TILE: usize = 6;

/// Quads of columns whose sums fit int16.
const MAX_QUADS: usize = 32;

/// Two activations, twice.
type Spread = [i8; 4];

/// Sums of the 32 rows of a panel: those of the even lanes of the first vector of a pair, of its odd ones, and likewise.
type Sums = [[i32; 8]; 4];

/// Activations as panels are multiplied with them, and sums.
pub(super) struct Multiplicand {
    cols: usize,
    /// The eight rows in each half of the two vectors of a pair.
    eights: [usize; 4],
    /// Parts of up to 128 columns one after the other, each in tiles of rows, a tile `[columns / 2, rows]`.
    spread: Vec<Spread>,
    /// `[n]`
    sums: Vec<Sums>,
    n: usize,
}

impl Multiplicand {
    /// Room for up to `n_max` activation rows. `eights`: the eight rows in each half of the two vectors of a pair.
    pub fn new(n_max: usize, cols: usize, eights: [usize; 4]) -> Self {
        let spread = vec![[0; 4]; n_max * cols / 2];
        Self { cols, eights, spread, sums: vec![[[0; 8]; 4]; n_max], n: 0 }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.spread) + size_of_val(&*self.sums)
    }

    /// Takes `q` `[n, cols]`, for panels of so many columns.
    #[target_feature(enable = "avx2")]
    pub fn spread(&mut self, q: &[i8], panels: impl Iterator<Item = usize>) {
        self.n = q.len() / self.cols;
        let (mut col, mut spread) = (0, self.spread.iter_mut());
        for panel in panels {
            let end = col + panel;
            while col < end {
                let columns = (end - col).min(4 * MAX_QUADS);
                for rows in shares(self.n, TILE) {
                    let q = &q[rows.start * self.cols..rows.end * self.cols];
                    for col in (col..col + columns).step_by(2) {
                        for (q, spread) in q.chunks_exact(self.cols).zip(&mut spread) {
                            *spread = [q[col], q[col + 1], q[col], q[col + 1]];
                        }
                    }
                }
                col += columns;
            }
        }
    }

    /// Adds a panel's product, its columns from column `col` on; with the last one, that of its rows from row `row` on to
    /// results `[n, rows]`.
    #[target_feature(enable = "avx2")]
    pub fn add_panel(&mut self, panel: &[Quad], col: usize, (out, row): (&mut Outputs<'_, i32>, usize)) {
        let n = self.n;
        let sums = &mut self.sums[..n];
        if col == 0 {
            sums.fill([[0; 8]; 4]);
        }
        let mut spread = &self.spread[n * col / 2..];
        for panel in panel.chunks(MAX_QUADS) {
            for rows in shares(n, TILE) {
                let (q, rest) = spread.split_at(2 * panel.len() * rows.len());
                spread = rest;
                let sums = &mut sums[rows];
                match sums.len() {
                    1 => add_tile::<1>(panel, q, sums),
                    2 => add_tile::<2>(panel, q, sums),
                    3 => add_tile::<3>(panel, q, sums),
                    4 => add_tile::<4>(panel, q, sums),
                    5 => add_tile::<5>(panel, q, sums),
                    _ => add_tile::<TILE>(panel, q, sums),
                }
            }
        }
        if col + 4 * panel.len() == self.cols {
            for (i, sums) in sums.iter().enumerate() {
                let out = out.of(i)[row..][..32].as_chunks_mut().0;
                for (eights, sums) in self.eights.chunks_exact(2).zip(sums.chunks_exact(2)) {
                    for (&eight, sums) in eights.iter().zip(in_row_order(&sums[0], &sums[1])) {
                        add_dwords(&mut out[eight], sums);
                    }
                }
            }
        }
    }
}

/// Sums of 16 rows, of the even and of the odd ones.
#[inline]
#[target_feature(enable = "avx2")]
fn in_row_order(even: &[i32; 8], odd: &[i32; 8]) -> [__m256i; 2] {
    // SAFETY: both arrays are 32 bytes; unaligned loads.
    let (even, odd) =
        unsafe { (_mm256_loadu_si256(even.as_ptr().cast()), _mm256_loadu_si256(odd.as_ptr().cast())) };
    let (low, high) = (_mm256_unpacklo_epi32(even, odd), _mm256_unpackhi_epi32(even, odd));
    [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)]
}

/// Adds the product of at most [`MAX_QUADS`] quads with exactly `C` activation rows.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn add_tile<const C: usize>(panel: &[Quad], q: &[Spread], into: &mut [Sums]) {
    let codes: &[[[u8; 32]; 2]] = panel.as_flattened().as_chunks().0;
    assert!(codes.len() <= 2 * MAX_QUADS && q.len() == C * codes.len() && into.len() == C);
    let mut sums = [[_mm256_setzero_si256(); 2]; C];
    for (codes, q) in codes.iter().zip(q.as_chunks::<C>().0) {
        let codes = [load(&codes[0]), load(&codes[1])];
        for c in 0..C {
            let pair = _mm256_set1_epi32(i32::from_le_bytes(q[c].map(|q| q as u8)));
            let products = [_mm256_maddubs_epi16(codes[0], pair), _mm256_maddubs_epi16(codes[1], pair)];
            for i in 0..2 {
                sums[c][i] = _mm256_add_epi16(sums[c][i], products[i]);
            }
        }
    }
    let (even, odd) = (_mm256_set1_epi32(1), _mm256_set1_epi32(1 << 16));
    for (into, sums) in into.iter_mut().zip(sums) {
        for (into, sums) in into.chunks_exact_mut(2).zip(sums) {
            add_dwords(&mut into[0], _mm256_madd_epi16(sums, even));
            add_dwords(&mut into[1], _mm256_madd_epi16(sums, odd));
        }
    }
}
