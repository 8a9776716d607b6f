//! I2_S on AVX-512 VNNI for up to [`MAX_ROWS`] activation rows, by panels of bytes that are transposed and not unpacked.
//!
//! A panel holds up to 1280 columns of 32 weight rows: of every four bytes of a row, which are four columns of each of the
//! four groups of a block, two vectors of sixteen rows. Up to eight activation rows pass it: sixteen sums of sixteen rows,
//! and one AND for eight products. They pass it four times, group by group from the highest. Codes stay where they are, so
//! they are 64, 16, 4 and 1 times too large, and between two passes the sums are divided by four, exactly.
//!
//! Unpacking once (`fill_panel`) saves the ANDs and costs shifts and four times the panel: it pays when more rows pass (on
//! a quiet Cascade Lake, against C++: 1.02 of its time instead of 1.07 to 1.10 at sixteen rows, no gain at 24 and 32). Of weight
//! rows that are not short, as many activation rows take the bytes where they stand (`i2s_some_avx512vnni::most_rows`).

use std::arch::x86_64::*;
use std::ops::Range;

use super::i2s_avx2::{BLOCK, Lane};
use super::i2s_avx512vnni::{DWORDS, prefetch_line, store, transpose};
use super::panel_avx512vnni::{self as panel, LANES, broadcast, load};
use super::shares;
use crate::team::Outputs;

/// Activation rows that this is for at most.
pub(super) const MAX_ROWS: usize = 16;

/// Vectors of a panel that have the same columns.
const VECTORS: usize = 2;
/// Weight rows of a panel ...
const ROWS: usize = VECTORS * LANES;
/// ... and blocks, at most. A lane takes up to 64 * 2 * 128 four times from each dword: far from what int32 holds.
const BLOCKS: usize = 10;
/// Activation rows of a tile: sixteen sums. Twelve rows would fit the registers, but as compiled gained nothing over
/// unpacking at 24 and 32 rows (measured).
const TILE: usize = 8;

/// The dwords of a block of 32 rows.
type Block = [[[u8; 64]; VECTORS]; DWORDS];

/// Up to [`BLOCKS`] blocks of 32 rows.
#[repr(align(64))]
pub(super) struct Panel([Block; BLOCKS]);

impl Panel {
    /// Zeros.
    pub fn new() -> Box<Self> {
        Box::new(Self([[[[0; 64]; VECTORS]; DWORDS]; BLOCKS]))
    }
}

/// All results of codes `[rows, blocks]` and `q` `[n, blocks * 128]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn multiply(
    codes: &[Lane],
    blocks: usize,
    (q, n): (&[i8], usize),
    Panel(panel): &mut Panel,
    out: &mut Outputs<'_, i32>,
) {
    let (rows, cols) = (codes.len() / blocks, blocks * BLOCK);
    let mut q_sums = [0; MAX_ROWS];
    for (sum, q) in q_sums.iter_mut().zip(q.chunks_exact(cols)) {
        *sum = panel::sum(q);
    }
    for row in (0..rows).step_by(ROWS) {
        let kept = ROWS.min(rows - row);
        for strip in shares(blocks, BLOCKS) {
            fill(&codes[row * blocks..][..kept * blocks], blocks, strip.clone(), panel);
            let weights = Strip { panel: &panel[..strip.len()], first: strip.start, rows: row..row + kept };
            for columns in shares(n, TILE) {
                let q = Activations { q: &q[columns.start * cols..columns.end * cols], cols };
                let sums = &q_sums[columns.clone()];
                let out = (&mut *out, columns.start);
                match columns.len() {
                    1 => tile::<1>(&weights, q, sums, out),
                    2 => tile::<2>(&weights, q, sums, out),
                    3 => tile::<3>(&weights, q, sums, out),
                    4 => tile::<4>(&weights, q, sums, out),
                    5 => tile::<5>(&weights, q, sums, out),
                    6 => tile::<6>(&weights, q, sums, out),
                    7 => tile::<7>(&weights, q, sums, out),
                    _ => tile::<TILE>(&weights, q, sums, out),
                }
            }
        }
    }
}

/// The blocks of a strip of rows `[kept, blocks]`, transposed; a matrix that ends within the panel repeats its last row.
/// Asks for what the next panel will be filled from.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn fill(codes: &[Lane], blocks: usize, strip: Range<usize>, panel: &mut [Block]) {
    let kept = codes.len() / blocks;
    assert!(kept * blocks == codes.len() && (1..=ROWS).contains(&kept) && strip.end <= blocks);
    let ahead = if strip.end < blocks { strip.len() } else { ROWS * blocks - strip.start };
    for (block, panel) in strip.zip(panel) {
        for v in 0..VECTORS {
            // SAFETY: a row that there is, and a block that it has; the compiler would compare every time.
            let lane =
                |r: usize| unsafe { codes.get_unchecked((v * LANES + r).min(kept - 1) * blocks + block) };
            if block.is_multiple_of(2) {
                (0..LANES).for_each(|r| {
                    prefetch_line::<_MM_HINT_T0>(std::ptr::from_ref(lane(r)).wrapping_add(ahead));
                });
            }
            for (vectors, dword) in panel.iter_mut().zip(transpose(lane)) {
                store(&mut vectors[v], dword);
            }
        }
    }
}

/// A filled panel, which block of the row is its first, and the weight rows that it holds.
struct Strip<'a> {
    panel: &'a [Block],
    first: usize,
    rows: Range<usize>,
}

/// Rows of activations, `[n, cols]`.
#[derive(Clone, Copy)]
struct Activations<'a> {
    q: &'a [i8],
    cols: usize,
}

/// Adds the products of a strip with `C` activation rows to their results from `first` on; the first strip sets them.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const C: usize>(
    weights: &Strip<'_>,
    q: Activations<'_>,
    q_sums: &[i32],
    (out, first): (&mut Outputs<'_, i32>, usize),
) {
    let sums = products::<C>(weights.panel, q, weights.first * BLOCK);
    for (c, sums) in sums.into_iter().enumerate() {
        let out = &mut out.of(first + c)[weights.rows.clone()];
        for (out, sum) in out.chunks_mut(LANES).zip(sums) {
            let mask = ((1_u32 << out.len()) - 1) as __mmask16;
            // SAFETY: the mask ends with the slice.
            unsafe {
                let before = if weights.first == 0 {
                    _mm512_set1_epi32(q_sums[c].wrapping_neg())
                } else {
                    _mm512_maskz_loadu_epi32(mask, out.as_ptr())
                };
                _mm512_mask_storeu_epi32(out.as_mut_ptr(), mask, _mm512_add_epi32(before, sum));
            }
        }
    }
}

/// The products of a panel with columns `col`.. of `C` activation rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn products<const C: usize>(panel: &[Block], q: Activations<'_>, col: usize) -> [[__m512i; VECTORS]; C] {
    let Activations { q, cols } = q;
    assert!(q.len() == C * cols && col + panel.len() * BLOCK <= cols);
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; C];
    let mut mask = _mm512_set1_epi8(0xc0_u8.cast_signed());
    for group in 0..4 {
        if group > 0 {
            mask = _mm512_srli_epi16::<2>(mask);
            for sum in sums.as_flattened_mut() {
                *sum = _mm512_srai_epi32::<2>(*sum);
            }
        }
        for (block, dwords) in panel.iter().enumerate() {
            let from = col + BLOCK * block + 32 * group;
            for (d, vectors) in dwords.iter().enumerate() {
                let mut u = [_mm512_setzero_si512(); VECTORS];
                for v in 0..VECTORS {
                    u[v] = _mm512_and_si512(mask, load(&vectors[v]));
                }
                for (c, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: row c has these columns, as was made sure of; slices of rows would cost as much as products.
                    let four = unsafe { q.as_ptr().add(c * cols + from + 4 * d).cast::<[i8; 4]>().read() };
                    let four = broadcast(four);
                    for v in 0..VECTORS {
                        sums[v] = _mm512_dpbusd_epi32(sums[v], u[v], four);
                    }
                }
            }
        }
    }
    sums
}
