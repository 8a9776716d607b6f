//! I2_S on AVX-VNNI, straight on the original bytes: as `i2s_avx2`, with `vpdpbusd` instead of a multiplication and two
//! additions, in int32 from the start. sum(q) is taken off once per activation row; sums may wrap on the way.
//!
//! One activation row (`gemv`): of v and v >> 4, `& 3` gives two groups as they are, `& 12` the other two times 4, which
//! are summed apart (at most 2^24 columns / 128 * 8192 = 2^30) and joined as low + high / 4, without a remainder. Four far
//! weight rows, two sums each: more would not fit the registers.
//!
//! More (`gemm`): a tile of two to four weight rows and up to six activation rows keeps its sums in registers and passes
//! along the rows four times, one group of columns each. Codes are cut out where they stand in their byte, 64, 16, 4 and
//! 1 times what they are: the group of the largest goes first, and what it left is divided by 4 before the next, without
//! a remainder. So a vector of codes costs one `vpand` for all its products.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::detect::AvxVnni;
use super::i2s_avx2::{
    self, BLOCK, Groups, Lane, add_lanes, groups, lanes_of, load, load_i8, prefetch, reload, sum_lanes,
};
use super::{Product, shares};
use crate::bitnet::formats::Weights;
use crate::team::Outputs;

/// Activation rows of a tile.
const COLUMNS: usize = 6;
/// Sums of a tile: more would not fit the registers.
const MAX_SUMS: usize = 12;
/// Blocks times activation rows of a strip: their activations fill half of L1. What a block adds to a lane in a pass is
/// at most 4 * 128 * 128, so sums stay below 2^24.
const STRIP_BLOCKS: usize = 192;
/// Bytes of weights that stay in L2 while further activation rows meet them.
const CHUNK_BYTES: usize = 512 << 10;
/// Weight rows of a chunk are a multiple of those of every tile.
const CHUNK_STEP: usize = 12;
/// The codes of each group where they stand.
const MASKS: [Lane; 4] = [[0b1100_0000; 32], [0b0011_0000; 32], [0b0000_1100; 32], [0b0000_0011; 32]];

/// I2_S weights, read in place.
struct I2s<'a> {
    /// The proof that [`Product::run`] needs.
    _token: AvxVnni,
    /// `[rows, cols / 128]`
    codes: &'a [Lane],
    rows: usize,
    blocks: usize,
}

/// For some of the rows of weights whose codes were found valid; they are used where they are.
pub(super) fn part<'a>(token: AvxVnni, weights: &Weights<'a>, rows: Range<usize>) -> Box<dyn Product + 'a> {
    let blocks = weights.layout().cols() / BLOCK;
    Box::new(I2s {
        _token: token,
        codes: &i2s_avx2::lanes_of_codes(weights)[rows.start * blocks..rows.end * blocks],
        rows: rows.len(),
        blocks,
    })
}

impl Product for I2s<'_> {
    fn run(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        // SAFETY: the token proves that this CPU runs AVX2, FMA and AVX-VNNI.
        unsafe {
            if n == 1 {
                gemv(self, q, out.of(0));
            } else {
                gemm(self, q, n, out);
            }
        }
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// `out` `[rows]` for one activation row.
#[inline(never)]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn gemv(weights: &I2s<'_>, q: &[i8], out: &mut [i32]) {
    let I2s { codes, rows, blocks, .. } = *weights;
    let q_sum = i2s_avx2::sum(q);
    let q = groups(q);
    let quarter = rows / 4;
    for i in 0..quarter {
        let four = [0, 1, 2, 3].map(|stream| &codes[(stream * quarter + i) * blocks..][..blocks]);
        let dots = gemv_rows(four, q);
        for (stream, dot) in lanes_of(add_lanes(dots)).into_iter().enumerate() {
            out[stream * quarter + i] = dot.wrapping_sub(q_sum);
        }
    }
    for row in 4 * quarter..rows {
        let [dot] = gemv_rows([&codes[row * blocks..][..blocks]], q);
        out[row] = sum_lanes(dot).wrapping_sub(q_sum);
    }
}

/// For each of `R` weight rows, eight int32 that add up to its product with `q`.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn gemv_rows<const R: usize>(rows: [&[Lane]; R], q: &[Groups]) -> [__m256i; R] {
    assert!(rows.iter().all(|row| row.len() == q.len()));
    let (mask_low, mask_high) = (_mm256_set1_epi8(0b0011), _mm256_set1_epi8(0b1100));
    let (mut low, mut high) = ([_mm256_setzero_si256(); R], [_mm256_setzero_si256(); R]);
    for block in 0..q.len() {
        // SAFETY: `block` is below the length of `q`.
        let mut q = unsafe { q.get_unchecked(block) };
        for r in 0..R {
            // SAFETY: every row is as long as `q`; the compiler does not see it and would compare every time.
            let codes = unsafe { rows[r].get_unchecked(block) };
            prefetch(codes);
            let v = load(codes);
            let w = _mm256_srli_epi16::<4>(v);
            q = reload(q);
            low[r] = _mm256_dpbusd_avx_epi32(low[r], _mm256_and_si256(v, mask_low), load_i8(&q[3]));
            high[r] = _mm256_dpbusd_avx_epi32(high[r], _mm256_and_si256(v, mask_high), load_i8(&q[2]));
            low[r] = _mm256_dpbusd_avx_epi32(low[r], _mm256_and_si256(w, mask_low), load_i8(&q[1]));
            high[r] = _mm256_dpbusd_avx_epi32(high[r], _mm256_and_si256(w, mask_high), load_i8(&q[0]));
        }
    }
    for r in 0..R {
        low[r] = _mm256_add_epi32(low[r], _mm256_srai_epi32::<2>(high[r]));
    }
    low
}

/// `out` `[n, rows]`.
#[target_feature(enable = "avx2,fma,avxvnni")]
fn gemm(weights: &I2s<'_>, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
    let I2s { codes, rows, blocks, .. } = *weights;
    let cols = blocks * BLOCK;
    for (i, q) in q.chunks_exact(cols).enumerate() {
        out.of(i).fill(i2s_avx2::sum(q).wrapping_neg());
    }
    let chunk = (CHUNK_BYTES / (blocks * size_of::<Lane>())).next_multiple_of(CHUNK_STEP).max(CHUNK_STEP);
    for row in (0..rows).step_by(chunk) {
        let codes = &codes[row * blocks..][..chunk.min(rows - row) * blocks];
        for tile in shares(n, COLUMNS) {
            let q = groups(&q[tile.start * cols..tile.end * cols]);
            let out = (&mut *out, tile.start, row);
            match tile.len() {
                1 => columns::<2, 1>(codes, blocks, q, out),
                2 => columns::<4, 2>(codes, blocks, q, out),
                3 => columns::<3, 3>(codes, blocks, q, out),
                4 => columns::<3, 4>(codes, blocks, q, out),
                5 => columns::<2, 5>(codes, blocks, q, out),
                _ => columns::<2, COLUMNS>(codes, blocks, q, out),
            }
        }
    }
}

/// Adds the products of `codes` `[rows, blocks]` with `C` activation rows `q` `[C, blocks]` to the results of rows `row`..
/// for activation rows `first`.., `R` weight rows at a time.
#[target_feature(enable = "avx2,fma,avxvnni")]
fn columns<const R: usize, const C: usize>(
    codes: &[Lane],
    blocks: usize,
    q: &[Groups],
    (out, first, row): (&mut Outputs<'_, i32>, usize, usize),
) {
    let length = STRIP_BLOCKS / C;
    for start in (0..blocks).step_by(length) {
        let strip = start..(start + length).min(blocks);
        let mut columns = [&q[..0]; C];
        for (column, q) in columns.iter_mut().zip(q.chunks_exact(blocks)) {
            *column = &q[strip.clone()];
        }
        let tiles = codes.chunks_exact(R * blocks);
        let rest = tiles.remainder();
        for (i, codes) in tiles.enumerate() {
            tile::<R, C>(codes, (blocks, strip.clone()), columns, (&mut *out, first, row + i * R));
        }
        let row = row + (codes.len() - rest.len()) / blocks;
        for (i, codes) in rest.chunks_exact(blocks).enumerate() {
            tile::<1, C>(codes, (blocks, strip.clone()), columns, (&mut *out, first, row + i));
        }
    }
}

/// Adds the products of a strip of `R` weight rows with `C` activation rows.
#[inline(never)]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn tile<const R: usize, const C: usize>(
    codes: &[Lane],
    (blocks, strip): (usize, Range<usize>),
    q: [&[Groups]; C],
    (out, first, row): (&mut Outputs<'_, i32>, usize, usize),
) {
    let mut rows = [&codes[..0]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &codes[r * blocks..][strip.clone()];
    }
    assert!(q.iter().all(|q| q.len() == strip.len()));
    let mut sums = [[_mm256_setzero_si256(); C]; R];
    for (group, mask) in MASKS.iter().enumerate() {
        // One of the rows of the next tile is fetched in each pass.
        let ahead = rows[group % R].as_ptr().wrapping_add(R * blocks);
        for block in 0..strip.len() {
            prefetch_line(ahead.wrapping_add(block));
            // Sums, codes and activations leave no register for the mask.
            let mask = load(reload(mask));
            let mut u = [mask; R];
            for r in 0..R {
                // SAFETY: every row is as long as the strip; the compiler would compare every time.
                u[r] = _mm256_and_si256(mask, load(unsafe { rows[r].get_unchecked(block) }));
            }
            for c in 0..C {
                // SAFETY: every activation row is as long as the strip, likewise.
                let q = load_i8(unsafe { &q[c].get_unchecked(block)[group] });
                for r in 0..R {
                    sums[r][c] = _mm256_dpbusd_avx_epi32(sums[r][c], u[r], q);
                }
            }
        }
        if group < 3 {
            for sum in sums.as_flattened_mut() {
                *sum = _mm256_srai_epi32::<2>(*sum);
            }
        }
    }
    let mut dots = [[0; 4]; MAX_SUMS / 4];
    for (dots, sums) in dots.iter_mut().zip(sums.as_flattened().chunks(4)) {
        let mut four = [_mm256_setzero_si256(); 4];
        four[..sums.len()].copy_from_slice(sums);
        *dots = lanes_of(add_lanes(four));
    }
    for (i, dot) in dots.as_flattened()[..R * C].iter().enumerate() {
        let out = &mut out.of(first + i % C)[row + i / C];
        *out = out.wrapping_add(*dot);
    }
}

/// Asks for a cache line.
#[inline]
#[allow(unused_unsafe, reason = "whether it is unsafe depends on the version of std::arch")]
fn prefetch_line(at: *const Lane) {
    // SAFETY: a prefetch never faults; the address need not be mapped, and nothing is read through it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}
