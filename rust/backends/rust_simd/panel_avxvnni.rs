//! Products of decoded weights with many activation rows on AVX-VNNI, for every format: `panel_avx512vnni` in half the
//! width and with half the registers. Two vectors of codes (16 rows) meet up to six activation rows: 12 sums, 2 vectors
//! of codes and one of activations are 15 of 16 registers. More sums would be spilled.

use std::arch::x86_64::*;

use super::tl_avx2::{Quad, load};
use crate::team::Outputs;

/// Activation rows of a tile.
const TILE: usize = 6;

/// Adds a panel's product: its 32 rows from row `row` on, its columns from column `col` on, with all of `q`
/// `[n, cols]` to results `[n, rows]`.
#[target_feature(enable = "avx2,avxvnni")]
pub(super) fn add_panel(
    panel: &[Quad],
    (q, cols, col): (&[i8], usize, usize),
    (out, row): (&mut Outputs<'_, i32>, usize),
) {
    for (i, q) in q.chunks(TILE * cols).enumerate() {
        for half in 0..2 {
            let (q, out) = ((q, cols, col), (&mut *out, i * TILE, row + 16 * half));
            match q.0.len() / cols {
                1 => tile::<1>(panel, half, q, out),
                2 => tile::<2>(panel, half, q, out),
                3 => tile::<3>(panel, half, q, out),
                4 => tile::<4>(panel, half, q, out),
                5 => tile::<5>(panel, half, q, out),
                _ => tile::<TILE>(panel, half, q, out),
            }
        }
    }
}

/// The product of 16 of the panel's rows with exactly `C` activation rows, to results `first`... Results may end within
/// the rows.
#[inline(never)]
#[target_feature(enable = "avx2,avxvnni")]
fn tile<const C: usize>(
    panel: &[Quad],
    half: usize,
    (q, cols, col): (&[i8], usize, usize),
    (out, first, row): (&mut Outputs<'_, i32>, usize, usize),
) {
    let mut fours: [&[[i8; 4]]; C] = [&[]; C];
    for (fours, q) in fours.iter_mut().zip(q.chunks_exact(cols)) {
        *fours = &q[col..].as_chunks().0[..panel.len()];
    }
    assert!(half < 2 && fours.iter().all(|fours| fours.len() == panel.len()));
    let mut sums = [[_mm256_setzero_si256(); 2]; C];
    for (k, quad) in panel.iter().enumerate() {
        let codes = [load(&quad[2 * half]), load(&quad[2 * half + 1])];
        for c in 0..C {
            // SAFETY: each of `fours` is as long as the panel; the compiler would compare every time.
            let four = unsafe { *fours[c].get_unchecked(k) };
            let four = _mm256_set1_epi32(i32::from_le_bytes(four.map(|q| q as u8)));
            for i in 0..2 {
                sums[c][i] = _mm256_dpbusd_avx_epi32(sums[c][i], codes[i], four);
            }
        }
    }
    for c in 0..C {
        let [a, b] = sums[c];
        let mut sums = [[0; 8]; 2];
        // SAFETY: the arrays hold eight int32 each; unaligned stores.
        unsafe {
            _mm256_storeu_si256(sums[0].as_mut_ptr().cast(), _mm256_permute2x128_si256::<0x20>(a, b));
            _mm256_storeu_si256(sums[1].as_mut_ptr().cast(), _mm256_permute2x128_si256::<0x31>(a, b));
        }
        let out = out.of(first + c);
        let end = out.len().min(row + 16);
        for (out, sum) in out[row.min(end)..end].iter_mut().zip(sums.as_flattened()) {
            *out = out.wrapping_add(*sum);
        }
    }
}
