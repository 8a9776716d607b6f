//! I2_S on AVX-512 VNNI for some activation rows, two to [`MAX_ROWS`], in place.
//!
//! Four weight rows meet up to six activation rows: 24 sums stay in registers, and each vector of codes is loaded and cut
//! out for six products. Codes are cut out where they stand in their byte, and so are 64, 16, 4 or 1 times what they are:
//! four passes along the rows, from the largest to the smallest, and between two of them the sums are divided by four.
//!
//! ```text
//! for each strip of columns:                      laid out; activations of a tile stay in L1
//!   for each chunk of weight rows:                so does it, while all activation rows meet it
//!     for each tile of up to six activation rows:
//!       for each four weight rows:
//!         for each mask in c0, 30, 0c, 03:        sum /= 4, exactly
//!           for each two blocks, 64 bytes:        u[r] = bytes[r] & mask
//!                                                 sum[c][r] += u[r] . q[c]
//! ```
//!
//! Cutting out to the bottom of the byte takes a shift beside the AND. GFNI does both at once, but on Zen 4 in the ports
//! that multiply: nearly a fifth of the time at four activation rows.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::detect::{Avx512Vbmi, Avx512Vnni};
use super::i2s_avx2::{BLOCK, Lane};
use super::i2s_avx512vnni::{Groups, add_lanes, lay_out, load_block};
use super::panel_avx512vnni::{self as panel, load, load_i8, prefetch_line};
use super::shares;
use crate::team::Outputs;

/// Activation rows that this is for at most.
pub(super) const MAX_ROWS: usize = 32;

/// Activation rows up to which this is faster than panels, of rows of so many columns: on Zen 4 all of these (measured). On
/// Cascade Lake, the CPU without GFNI that it was measured on, two tiles, but no second tile of short rows, for adding up
/// lanes takes as long as they do. Elsewhere this kernel was not measured: twelve was the bound of the one before it, which cut
/// codes out by GFNI, on Sapphire Rapids.
pub(super) fn most_rows((token, gfni): (Avx512Vnni, Option<Avx512Vbmi>), cols: usize) -> usize {
    match gfni {
        _ if token.in_halves() => MAX_ROWS,
        None if cols < SHORT_COLS => TILE,
        None => 2 * TILE,
        Some(_) => 12,
    }
}

/// Columns of a row that is not short (measured: 1024 are short, 1536 are not).
const SHORT_COLS: usize = 1536;

/// Weight rows of a tile ...
const ROWS: usize = 4;
/// ... and activation rows: 24 sums, four vectors of codes, the mask and the activations are 30 of 32 registers.
const TILE: usize = 6;
/// Pairs of blocks of all activation rows of a tile, 256 bytes each, that are most of L1. A lane takes up to 64 * 2 * 128
/// four times from each: far from what int32 holds.
const TILE_PAIRS: usize = 96;
/// Bytes of weights that stay in L1, or near it, while further activation rows meet them: of 8 and 16 KB the faster one.
const CHUNK_BYTES: usize = 16 << 10;

/// Room that up to `n` activation rows of so many pairs of blocks need: for a strip of them.
pub(super) fn room(n: usize, pairs: usize) -> usize {
    n.div_ceil(TILE).saturating_mul(TILE_PAIRS).min(n.saturating_mul(pairs))
}

/// A strip of activation rows as [`lay_out`] puts them, `[n, pairs]`, and the sums of the whole rows.
#[derive(Clone, Copy)]
struct Activations<'a> {
    groups: &'a [Groups],
    pairs: usize,
    sums: &'a [i32],
}

/// All results of codes `[rows, blocks]` and `q` `[n, blocks * 128]`, with the [`room`] for it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn multiply(
    codes: &[Lane],
    blocks: usize,
    (q, n): (&[i8], usize),
    groups: &mut [Groups],
    out: &mut Outputs<'_, i32>,
) {
    let (rows, cols) = (codes.len() / blocks, blocks * BLOCK);
    let mut sums = [0; MAX_ROWS];
    for (sum, q) in sums.iter_mut().zip(q.chunks_exact(cols)) {
        *sum = panel::sum(q);
    }
    // One tile needs no weights again; more of them are of about the same size.
    let largest = n.div_ceil(n.div_ceil(TILE));
    for strip in shares(blocks.div_ceil(2), TILE_PAIRS / largest) {
        let pairs = strip.len();
        let span = 2 * BLOCK * strip.start..cols.min(2 * BLOCK * strip.end);
        for (q, groups) in q.chunks_exact(cols).zip(groups.chunks_exact_mut(pairs)) {
            lay_out(&q[span.clone()], groups);
        }
        let q = Activations { groups: &groups[..n * pairs], pairs, sums: &sums[..n] };
        let chunk = if n == largest { rows } else { (CHUNK_BYTES / (64 * pairs)).next_multiple_of(ROWS) };
        for first in (0..rows).step_by(chunk) {
            let weights = Tile { codes, blocks, strip: strip.clone(), rows: first..rows.min(first + chunk) };
            for columns in shares(n, TILE) {
                match columns.len() {
                    2 => tile::<2>(&weights, q, columns.start, out),
                    3 => tile::<3>(&weights, q, columns.start, out),
                    4 => tile::<4>(&weights, q, columns.start, out),
                    5 => tile::<5>(&weights, q, columns.start, out),
                    _ => tile::<TILE>(&weights, q, columns.start, out),
                }
            }
        }
    }
}

/// Some weight rows, and some of their pairs of blocks.
struct Tile<'a> {
    codes: &'a [Lane],
    blocks: usize,
    strip: Range<usize>,
    rows: Range<usize>,
}

/// Adds the products of a strip with `C` activation rows from `column` on to their results; the first strip sets them.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const C: usize>(weights: &Tile<'_>, q: Activations<'_>, column: usize, out: &mut Outputs<'_, i32>) {
    let Tile { codes, blocks, ref strip, ref rows } = *weights;
    let span = 2 * strip.start..blocks.min(2 * strip.end);
    // All that the loop over rows relies on, checked once: checking it for every four rows costs a tenth of the time where
    // rows are short.
    assert!(span.start <= span.end && span.len().div_ceil(2) == q.pairs);
    let within = rows.end.checked_mul(blocks).is_some_and(|end| end <= codes.len());
    assert!(within && rows.end <= out.rows());
    let mut columns = [std::ptr::null(); C];
    let mut outs = [std::ptr::null_mut(); C];
    let mut offsets = [0; C];
    for c in 0..C {
        columns[c] = q.groups[(column + c) * q.pairs..][..q.pairs].as_ptr();
        outs[c] = out.of(column + c).as_mut_ptr();
        offsets[c] = q.sums[column + c].wrapping_neg();
    }
    let first = codes.as_ptr().wrapping_add(span.start);
    let last = first.wrapping_add(rows.end.saturating_sub(1) * blocks);
    let mut four = [first.wrapping_add(rows.start * blocks); ROWS];
    for r in 1..ROWS {
        four[r] = four[r - 1].wrapping_add(blocks);
    }
    for row in rows.clone().step_by(ROWS) {
        let kept = ROWS.min(rows.end - row);
        // Rows beyond the last repeat it, and what comes of them is dropped.
        let within = [four[0], four[1].min(last), four[2].min(last), four[3].min(last)];
        // SAFETY: each row has as many blocks, each column the pairs of them; checked above.
        let dots = unsafe { products(within, span.len(), columns, ROWS * blocks) };
        let mask = ((1_u32 << kept) - 1) as __mmask8;
        for c in 0..C {
            // SAFETY: rows up to the last one are results, and the mask ends there.
            unsafe {
                let out = outs[c].add(row);
                let before = if strip.start == 0 {
                    _mm_set1_epi32(offsets[c])
                } else {
                    _mm_maskz_loadu_epi32(mask, out)
                };
                _mm_mask_storeu_epi32(out, mask, _mm_add_epi32(before, add_lanes(dots[c])));
            }
        }
        for four in &mut four {
            *four = four.wrapping_add(ROWS * blocks);
        }
    }
}

/// Of four weight rows and each of `C` activation rows, sixteen int32 that add up to their product. Asks for the lines that
/// are `ahead` blocks further on.
///
/// # Safety
/// Every row has `blocks` blocks, every column their pairs, the odd one counted.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn products<const C: usize>(
    rows: [*const Lane; ROWS],
    blocks: usize,
    q: [*const Groups; C],
    ahead: usize,
) -> [[__m512i; ROWS]; C] {
    let mut sums = [[_mm512_setzero_si512(); ROWS]; C];
    let tile = (rows, blocks, q);
    // Each of the four passes asks for what comes after one of the four rows, and has its own loop: one for all of them took
    // up to a twentieth longer (measured).
    // SAFETY: the caller's.
    unsafe {
        pass::<0, C>(&mut sums, tile, rows[0].wrapping_add(ahead));
        quarter(&mut sums);
        pass::<1, C>(&mut sums, tile, rows[1].wrapping_add(ahead));
        quarter(&mut sums);
        pass::<2, C>(&mut sums, tile, rows[2].wrapping_add(ahead));
        quarter(&mut sums);
        pass::<3, C>(&mut sums, tile, rows[3].wrapping_add(ahead));
    }
    sums
}

/// Divides sums by four, without a remainder.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn quarter<const V: usize, const C: usize>(sums: &mut [[__m512i; V]; C]) {
    for sum in sums.as_flattened_mut() {
        *sum = _mm512_srai_epi32::<2>(*sum);
    }
}

/// Adds the products of group `G` of all blocks, with codes where they stand. Asks for as many pairs of blocks from `next` on.
///
/// # Safety
/// As of [`products`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pass<const G: usize, const C: usize>(
    sums: &mut [[__m512i; ROWS]; C],
    (rows, blocks, q): ([*const Lane; ROWS], usize, [*const Groups; C]),
    next: *const Lane,
) {
    let mask = _mm512_set1_epi8((0xc0_u8 >> (2 * G)).cast_signed());
    for pair in 0..blocks / 2 {
        prefetch_line(next.wrapping_add(2 * pair));
        let mut u = [_mm512_setzero_si512(); ROWS];
        for r in 0..ROWS {
            // SAFETY: two blocks of the row.
            u[r] = _mm512_and_si512(mask, load(unsafe { &*rows[r].add(2 * pair).cast() }));
        }
        // SAFETY: the caller's.
        unsafe { add(sums, u, (q, pair, G)) };
    }
    if blocks % 2 == 1 {
        let mut u = [_mm512_setzero_si512(); ROWS];
        for r in 0..ROWS {
            // SAFETY: the last block of the row.
            let last = load_block(unsafe { &*rows[r].add(blocks - 1) });
            u[r] = _mm512_and_si512(mask, _mm512_zextsi256_si512(last));
        }
        // SAFETY: the caller's.
        unsafe { add(sums, u, (q, blocks / 2, G)) };
    }
}

/// Adds the products of one group of a pair of blocks.
///
/// # Safety
/// Every row of activations has that pair.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add<const C: usize>(
    sums: &mut [[__m512i; ROWS]; C],
    u: [__m512i; ROWS],
    (q, pair, group): ([*const Groups; C], usize, usize),
) {
    for c in 0..C {
        // SAFETY: the caller's.
        let q = load_i8(&unsafe { &*q[c].add(pair) }.0[group]);
        for r in 0..ROWS {
            sums[c][r] = _mm512_dpbusd_epi32(sums[c][r], u[r], q);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Product;
    use super::super::i2s_avx512vnni::{Way, choosing};
    use super::super::i2s_packed_avx512vnni as packed;
    use super::super::product_tests::{batches, check, check_extremes, random_codes};
    use super::*;
    use crate::bitnet::formats::{FormatError, Layout, Weights};
    use crate::rng::Rng;

    fn prepare<'a, const MOST_ROWS: usize, const MOST_PACKED_ROWS: usize, const GFNI: bool>(
        weights: Weights<'a>,
        n_max: usize,
    ) -> Result<Box<dyn Product + 'a>, FormatError> {
        let token = Avx512Vnni::detect().expect("asked before");
        let way = Way {
            most_rows: MOST_ROWS,
            most_packed_rows: MOST_PACKED_ROWS,
            gfni: Avx512Vbmi::detect().ok().filter(|_| GFNI),
        };
        Ok(Box::new(choosing(token, &weights, 0..weights.layout().rows(), n_max, way)))
    }

    /// Whatever this CPU chooses, all ways are exact: every number of activation rows, downwards and upwards again on the
    /// same room; row counts beside those of tiles, of vectors and of a chunk, columns beside those of strips.
    #[test]
    fn in_place_and_by_panels_every_number_of_rows_is_exact() {
        if Avx512Vnni::detect().is_err() {
            return;
        }
        let mut rng = Rng::new(21);
        let sizes: Vec<usize> = (1..=MAX_ROWS).rev().chain([2, 7, 31, 33, 36, 41, 47, 48, 49]).collect();
        for rows in [1, 4, 5, 15, 17, 32, 33] {
            for blocks in [1, 2, 3, 10, 11, 21, 33, 96, 97] {
                let layout = Layout::i2s(rows, blocks * BLOCK).expect("legal");
                let codes = random_codes(&layout, &mut rng);
                let batches = batches(&layout, &sizes, &mut rng);
                check(prepare::<MAX_ROWS, 0, true>, &layout, &codes, &batches, rows);
                check(prepare::<1, 0, true>, &layout, &codes, &batches, rows);
                check(prepare::<1, 0, false>, &layout, &codes, &batches, rows);
                check(prepare::<1, { packed::MAX_ROWS }, false>, &layout, &codes, &batches, rows);
            }
        }
    }

    /// More activation rows than pass a panel at once, or than stay in L2 in long rows; a panel behind a whole one.
    #[test]
    fn panels_are_exact_in_several_passes() {
        if Avx512Vnni::detect().is_err() {
            return;
        }
        let mut rng = Rng::new(22);
        for (rows, blocks, sizes) in [
            (64, 1, [97, 253, 505]),
            (65, 3, [97, 253, 505]),
            (130, 5, [49, 253, 256]),
            (65, 300, [49, 50, 101]),
        ] {
            let layout = Layout::i2s(rows, blocks * BLOCK).expect("legal");
            let codes = random_codes(&layout, &mut rng);
            let batches = batches(&layout, &sizes, &mut rng);
            check(prepare::<1, 0, true>, &layout, &codes, &batches, rows);
            check(prepare::<1, { packed::MAX_ROWS }, false>, &layout, &codes, &batches, rows);
        }
    }

    #[test]
    fn the_largest_sums_of_every_strip_are_exact() {
        if Avx512Vnni::detect().is_err() {
            return;
        }
        for blocks in [1, 96, 97] {
            let layout = Layout::i2s(5, blocks * BLOCK).expect("legal");
            check_extremes(prepare::<MAX_ROWS, 0, true>, &layout);
            check_extremes(prepare::<1, { packed::MAX_ROWS }, false>, &layout);
        }
    }
}
