//! Products of decoded weights with many activation rows on AVX-512 VNNI, for every format.
//!
//! A panel holds up to 512 columns of 64 weight rows as code + 1, in the order of their use: four columns of sixteen
//! rows are a vector. Four of its vectors meet four activations of up to six rows, broadcast: 24 sums of sixteen rows,
//! which stay in registers for the length of the panel and need no adding up across lanes at its end.
//!
//! ```text
//! for each quad of columns:  w0..w3 = 64 rows x 4 codes        4 loads
//!   for each activation row: b = its 4 activations, 16 times   1 load
//!                            sum[v] += w[v] . b                4 vpdpbusd, exact int32
//! ```
//!
//! The panel (32 KB) stays in L1 while all activation rows pass it. int32 sums may wrap on the way, as sum(q) is taken
//! off first: the result is right modulo 2^32, and it fits.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tl_avx2;
use crate::team::Outputs;

/// Weight rows of a panel.
pub(super) const ROWS: usize = 64;
/// Weight rows of a vector.
pub(super) const LANES: usize = 16;
/// Columns of a panel at most.
pub(super) const COLS: usize = 512;
/// Activation rows of a tile: 24 sums, 4 vectors of codes and one of activations are 29 of 32 registers.
const TILE: usize = 6;
/// Activation rows of a tile with a panel of 32 rows.
const NARROW_TILE: usize = 8;
/// Bytes of activations that stay in L2 while all weight rows pass them.
const RESIDENT_BYTES: usize = 1 << 20;

/// code + 1 of four columns of 64 rows, rows in order.
pub(super) type Quad = [[u8; 4 * LANES]; ROWS / LANES];

/// Up to [`COLS`] columns of 64 rows.
#[repr(align(64))]
pub(super) struct Panel(pub [Quad; COLS / 4]);

impl Panel {
    /// Zeros.
    pub fn new() -> Box<Self> {
        Box::new(Self([[[0; 4 * LANES]; ROWS / LANES]; COLS / 4]))
    }
}

/// Activation rows that are best multiplied with all weights before the next ones are looked at.
pub(super) fn resident_rows(cols: usize) -> usize {
    (RESIDENT_BYTES / cols / TILE).max(8) * TILE
}

/// Columns of a panel that `n` activation rows pass: filling a small one disturbs L1 less, passing a large one pays off
/// when many do (measured).
pub(super) fn cols(n: usize) -> usize {
    if n < 32 { COLS / 2 } else { COLS }
}

/// Sets the results of activation rows `q` `[n, cols]` to -sum(q): what code + 1 adds too much.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn start(q: &[i8], cols: usize, first: usize, out: &mut Outputs<'_, i32>) {
    for (c, q) in q.chunks_exact(cols).enumerate() {
        out.of(first + c).fill(sum(q).wrapping_neg());
    }
}

/// Adds a panel's product, of its first `kept` rows, with columns `col`.. of `q` `[n, cols]` to rows `row`.. of the
/// results `first`...
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn add_panel(
    panel: &[Quad],
    kept: usize,
    (q, cols, col): (&[i8], usize, usize),
    (out, first, row): (&mut Outputs<'_, i32>, usize, usize),
) {
    let n = q.len() / cols;
    let step = n.div_ceil(n.div_ceil(TILE));
    for (i, q) in q.chunks(step * cols).enumerate() {
        let (q, out) = ((q, cols, col), (&mut *out, first + i * step, row));
        match q.0.len() / cols {
            1 => add_columns::<1>(panel, kept, q, out),
            2 => add_columns::<2>(panel, kept, q, out),
            3 => add_columns::<3>(panel, kept, q, out),
            4 => add_columns::<4>(panel, kept, q, out),
            5 => add_columns::<5>(panel, kept, q, out),
            _ => add_columns::<TILE>(panel, kept, q, out),
        }
    }
}

/// [`add_panel`] for exactly `C` activation rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_columns<const C: usize>(
    panel: &[Quad],
    kept: usize,
    (q, cols, col): (&[i8], usize, usize),
    (out, first, row): (&mut Outputs<'_, i32>, usize, usize),
) {
    let mut fours: [&[[i8; 4]]; C] = [&[]; C];
    for (fours, q) in fours.iter_mut().zip(q.chunks_exact(cols)) {
        *fours = &q[col..].as_chunks().0[..panel.len()];
    }
    if kept == ROWS {
        tile::<4, C>(panel, 0, fours, (out, first, row..row + ROWS));
        return;
    }
    for v in 0..kept.div_ceil(LANES) {
        let rows = row + v * LANES..row + kept.min((v + 1) * LANES);
        tile::<1, C>(panel, v, fours, (&mut *out, first, rows));
    }
}

/// Adds the product of `V` vectors of rows, from vector `v` of each quad on, with `C` activation rows. Never inlined:
/// copies of it side by side would be compiled as one, with more values alive than there are registers.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const V: usize, const C: usize>(
    panel: &[Quad],
    v: usize,
    fours: [&[[i8; 4]]; C],
    (out, first, rows): (&mut Outputs<'_, i32>, usize, Range<usize>),
) {
    assert!(v + V <= ROWS / LANES && fours.iter().all(|fours| fours.len() == panel.len()));
    let mut sums = [[_mm512_setzero_si512(); V]; C];
    for (k, quad) in panel.iter().enumerate() {
        let mut codes = [_mm512_setzero_si512(); V];
        for i in 0..V {
            codes[i] = load(&quad[v + i]);
        }
        for c in 0..C {
            // SAFETY: each of `fours` is as long as the panel; the compiler would compare every time.
            let four = broadcast(unsafe { *fours[c].get_unchecked(k) });
            for i in 0..V {
                sums[c][i] = _mm512_dpbusd_epi32(sums[c][i], codes[i], four);
            }
        }
    }
    for (c, sums) in sums.iter().enumerate() {
        let out = &mut out.of(first + c)[rows.clone()];
        for (i, &sums) in sums.iter().enumerate() {
            let out = if V == 1 { &mut *out } else { &mut out[i * LANES..][..LANES] };
            let mask = ((1_u32 << out.len()) - 1) as __mmask16;
            // SAFETY: the mask ends with the slice.
            unsafe {
                let before = _mm512_maskz_loadu_epi32(mask, out.as_ptr());
                _mm512_mask_storeu_epi32(out.as_mut_ptr(), mask, _mm512_add_epi32(before, sums));
            }
        }
    }
}

/// Adds the product of a panel of 32 rows, in the row order of [`tl_avx2::Quad`], with columns `col`.. of `q`
/// `[n, cols]` to rows `row`.. of all results.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn add_narrow_panel(
    panel: &[tl_avx2::Quad],
    (q, cols, col): (&[i8], usize, usize),
    (out, row): (&mut Outputs<'_, i32>, usize),
) {
    for (i, q) in q.chunks(NARROW_TILE * cols).enumerate() {
        let (q, out) = ((q, cols, col), (&mut *out, i * NARROW_TILE, row));
        match q.0.len() / cols {
            1 => narrow_tile::<1>(panel, q, out),
            2 => narrow_tile::<2>(panel, q, out),
            3 => narrow_tile::<3>(panel, q, out),
            4 => narrow_tile::<4>(panel, q, out),
            5 => narrow_tile::<5>(panel, q, out),
            6 => narrow_tile::<6>(panel, q, out),
            7 => narrow_tile::<7>(panel, q, out),
            _ => narrow_tile::<NARROW_TILE>(panel, q, out),
        }
    }
}

/// [`add_narrow_panel`] for exactly `C` activation rows.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn narrow_tile<const C: usize>(
    panel: &[tl_avx2::Quad],
    (q, cols, col): (&[i8], usize, usize),
    (out, first, row): (&mut Outputs<'_, i32>, usize, usize),
) {
    let mut fours: [&[[i8; 4]]; C] = [&[]; C];
    for (fours, q) in fours.iter_mut().zip(q.chunks_exact(cols)) {
        *fours = &q[col..].as_chunks().0[..panel.len()];
    }
    assert!(fours.iter().all(|fours| fours.len() == panel.len()));
    let mut sums = [[_mm512_setzero_si512(); 2]; C];
    for (k, quad) in panel.iter().enumerate() {
        let [low, high] = quad.as_flattened().as_chunks::<64>().0 else {
            unreachable!("a quad is 128 bytes")
        };
        let codes = [load(low), load(high)];
        for c in 0..C {
            // SAFETY: each of `fours` is as long as the panel; the compiler would compare every time.
            let four = broadcast(unsafe { *fours[c].get_unchecked(k) });
            for i in 0..2 {
                sums[c][i] = _mm512_dpbusd_epi32(sums[c][i], codes[i], four);
            }
        }
    }
    for c in 0..C {
        let out = &mut out.of(first + c)[row..row + 2 * LANES];
        for i in 0..2 {
            // Rows 0-3, 8-11, 4-7, 12-15.
            let sums = _mm512_shuffle_i64x2::<0b11_01_10_00>(sums[c][i], sums[c][i]);
            let at = out[i * LANES..][..LANES].as_mut_ptr();
            // SAFETY: sixteen results; an unaligned load and store.
            unsafe { _mm512_storeu_epi32(at, _mm512_add_epi32(_mm512_loadu_epi32(at), sums)) };
        }
    }
}

/// Four activations, sixteen times.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(four: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes(four.map(|q| q as u8)))
}

/// Sum of a row of activations, which fits int32 for every K a backend accepts.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn sum(q: &[i8]) -> i32 {
    let (vectors, rest) = q.as_chunks::<64>();
    let mut sums = _mm512_setzero_si512();
    for q in vectors {
        sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), load_i8(q));
    }
    rest.iter().fold(_mm512_reduce_add_epi32(sums), |sum, &q| sum.wrapping_add(i32::from(q)))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array is 64 bytes; an unaligned load.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i8(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: the array is 64 bytes; an unaligned load.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
