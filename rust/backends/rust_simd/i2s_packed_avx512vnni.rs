//! I2_S on AVX-512 VNNI for up to [`MAX_ROWS`] activation rows, by panels of bytes that are transposed and not unpacked.
//!
//! A panel holds up to 1280 columns of 32 weight rows: of every four bytes of a row, which are four columns of each of the
//! four groups of a block, two vectors of sixteen rows. Up to twelve activation rows pass it: 24 sums of sixteen rows, and
//! one AND for twelve products. They pass it four times, group by group from the highest. Codes stay where they are, so
//! they are 64, 16, 4 and 1 times too large, and between two passes the sums are divided by four, exactly.
//!
//! ```text
//! for each 32 weight rows:
//!   for each strip of columns:                    transpose the panel
//!     for each tile of up to twelve activation rows:
//!       for each mask in c0, 30, 0c, 03:          sum /= 4, exactly
//!         for each dword of the panel:            u[v] = dword[v] & mask                2 loads
//!                                                 sum[c][v] += u[v] . 4 activations     12 loads, 24 vpdpbusd
//! ```
//!
//! Unpacking once (`fill_panel`) saves the ANDs and costs shifts and four times the panel: it pays when more rows pass.
//!
//! Four activation rows are one piece of assembler: from intrinsics the compiler makes twelve pointers, more than there are
//! registers, and moves sums to the stack in their place.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::i2s_avx2::{BLOCK, Lane};
use super::i2s_avx512vnni::store;
use super::i2s_some_avx512vnni::quarter;
use super::i2s_transpose_avx512::{DWORDS, SixteenRows};
use super::panel_avx512vnni::{self as panel, LANES, broadcast, load};
use super::shares;
use crate::team::Outputs;

/// Activation rows that this is for at most.
pub(super) const MAX_ROWS: usize = 48;

/// Vectors of a panel that have the same columns.
const VECTORS: usize = 2;
/// Weight rows of a panel ...
const ROWS: usize = VECTORS * LANES;
/// ... and blocks, at most. A lane takes up to 64 * 2 * 128 four times from each dword: far from what int32 holds.
const BLOCKS: usize = 10;
/// Activation rows of a tile: 24 sums, two vectors of codes, the mask and the activations are 28 of 32 registers. As many as
/// come here make tiles of five or more, or of one, of rows so long that `one` is not for them; tests have the others.
const TILE: usize = 12;
/// Activation rows that have a pointer to themselves. Tiles are of whole fours but for what is left.
const FOUR: usize = 4;

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

/// Where the results of an activation row go, and what code + 1 adds too much to each.
#[derive(Clone, Copy)]
struct Column {
    out: *mut i32,
    q_sum: i32,
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
    // What every tile relies on, checked once.
    assert!(q.len() == n * cols && rows == out.rows());
    let mut columns = [Column { out: std::ptr::null_mut(), q_sum: 0 }; MAX_ROWS];
    let columns = &mut columns[..n];
    for (c, column) in columns.iter_mut().enumerate() {
        *column = Column { out: out.of(c).as_mut_ptr(), q_sum: panel::sum(&q[c * cols..][..cols]) };
    }
    for row in (0..rows).step_by(ROWS) {
        let kept = row..rows.min(row + ROWS);
        for strip in shares(blocks, BLOCKS) {
            let panel = &mut panel[..strip.len()];
            fill(codes, blocks, kept.clone(), &strip, panel);
            let weights = Strip { panel, first: strip.start, rows: kept.clone() };
            for fours in shares(n.div_ceil(FOUR), TILE / FOUR) {
                let tile = FOUR * fours.start..n.min(FOUR * fours.end);
                let columns = &columns[tile.clone()];
                let q = Activations { q: &q[tile.start * cols..tile.end * cols], cols };
                // SAFETY: every column has a result for each of the rows, and nobody else has it.
                unsafe {
                    match tile.len() {
                        1 => multiply_tile::<1>(&weights, q, columns),
                        2 => multiply_tile::<2>(&weights, q, columns),
                        3 => multiply_tile::<3>(&weights, q, columns),
                        4 => multiply_tile::<4>(&weights, q, columns),
                        5 => multiply_tile::<5>(&weights, q, columns),
                        6 => multiply_tile::<6>(&weights, q, columns),
                        7 => multiply_tile::<7>(&weights, q, columns),
                        8 => multiply_tile::<8>(&weights, q, columns),
                        9 => multiply_tile::<9>(&weights, q, columns),
                        10 => multiply_tile::<10>(&weights, q, columns),
                        11 => multiply_tile::<11>(&weights, q, columns),
                        _ => multiply_tile::<TILE>(&weights, q, columns),
                    }
                }
            }
        }
    }
}

/// The blocks of a strip of some weight rows, transposed; where there are fewer than 32 rows, the last one is repeated.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn fill(codes: &[Lane], blocks: usize, rows: Range<usize>, strip: &Range<usize>, panel: &mut [Block]) {
    for v in 0..VECTORS {
        let from = (rows.start + v * LANES).min(rows.end - 1);
        let sixteen = SixteenRows::new(codes, blocks, from..rows.end.min(from + LANES), strip, ROWS);
        for (block, panel) in panel.iter_mut().enumerate() {
            for (vectors, dword) in panel.iter_mut().zip(sixteen.transposed(block)) {
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

/// Adds the products of a strip with `C` activation rows to their results; the first strip sets them.
///
/// # Safety
/// Every column has results of these weight rows, and nobody else has them.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply_tile<const C: usize>(weights: &Strip<'_>, q: Activations<'_>, columns: &[Column]) {
    let Strip { panel, first, ref rows } = *weights;
    let columns: &[Column; C] = columns.try_into().expect("as many as activation rows");
    let sums = products::<C>(panel, q, first * BLOCK);
    for (column, sums) in columns.iter().zip(sums) {
        for (v, sum) in sums.into_iter().enumerate() {
            let kept = rows.len().saturating_sub(v * LANES).min(LANES);
            let mask = ((1_u32 << kept) - 1) as __mmask16;
            // SAFETY: the mask ends with the rows.
            unsafe {
                let out = column.out.add(rows.start).wrapping_add(v * LANES);
                let before = if first == 0 {
                    _mm512_set1_epi32(column.q_sum.wrapping_neg())
                } else {
                    _mm512_maskz_loadu_epi32(mask, out)
                };
                _mm512_mask_storeu_epi32(out, mask, _mm512_add_epi32(before, sum));
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
            quarter(&mut sums);
        }
        for (block, dwords) in panel.iter().enumerate() {
            // SAFETY: each of the rows has this block, as was made sure of.
            unsafe {
                let q = q.as_ptr().add(col + BLOCK * block + 32 * group);
                add::<0, C>(&mut sums, dwords, mask, (q, cols));
                add::<1, C>(&mut sums, dwords, mask, (q, cols));
                add::<2, C>(&mut sums, dwords, mask, (q, cols));
                add::<3, C>(&mut sums, dwords, mask, (q, cols));
                add::<4, C>(&mut sums, dwords, mask, (q, cols));
                add::<5, C>(&mut sums, dwords, mask, (q, cols));
                add::<6, C>(&mut sums, dwords, mask, (q, cols));
                add::<7, C>(&mut sums, dwords, mask, (q, cols));
            }
        }
    }
    sums
}

/// Adds the products of dword `D` of a block with four columns of `C` activation rows, `cols` apart.
///
/// # Safety
/// Every one of these rows has 32 columns at `q`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add<const D: usize, const C: usize>(
    sums: &mut [[__m512i; VECTORS]; C],
    block: &Block,
    mask: __m512i,
    (q, cols): (*const i8, usize),
) {
    let u = [_mm512_and_si512(mask, load(&block[D][0])), _mm512_and_si512(mask, load(&block[D][1]))];
    let (fours, rest) = sums.as_chunks_mut::<FOUR>();
    for (i, sums) in fours.iter_mut().enumerate() {
        // SAFETY: the caller's.
        unsafe { add_four::<D>(sums, u, q.add(FOUR * i * cols), cols) };
    }
    for (i, sums) in rest.iter_mut().enumerate() {
        // SAFETY: the caller's.
        let four = unsafe { q.add((C / FOUR * FOUR + i) * cols + 4 * D).cast::<[i8; 4]>().read() };
        for v in 0..VECTORS {
            sums[v] = _mm512_dpbusd_epi32(sums[v], u[v], broadcast(four));
        }
    }
}

/// Adds the products of the four columns from 4 `D` on of four activation rows, `cols` apart.
///
/// # Safety
/// Every one of these rows has those columns at `q`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add_four<const D: usize>(
    sums: &mut [[__m512i; VECTORS]; FOUR],
    [u0, u1]: [__m512i; VECTORS],
    q: *const i8,
    cols: usize,
) {
    let [[a0, a1], [b0, b1], [c0, c1], [d0, d1]] = sums;
    let _four: __m512i;
    // SAFETY: reads four bytes of each of the rows, which the caller vouches for; the instructions are of AVX-512 F and VNNI.
    unsafe {
        asm!(
            "vpbroadcastd {four}, dword ptr [{q} + {at}]",
            "vpdpbusd {a0}, {u0}, {four}",
            "vpdpbusd {a1}, {u1}, {four}",
            "vpbroadcastd {four}, dword ptr [{q} + {row} + {at}]",
            "vpdpbusd {b0}, {u0}, {four}",
            "vpdpbusd {b1}, {u1}, {four}",
            "vpbroadcastd {four}, dword ptr [{q} + 2 * {row} + {at}]",
            "vpdpbusd {c0}, {u0}, {four}",
            "vpdpbusd {c1}, {u1}, {four}",
            "vpbroadcastd {four}, dword ptr [{q} + {three_rows} + {at}]",
            "vpdpbusd {d0}, {u0}, {four}",
            "vpdpbusd {d1}, {u1}, {four}",
            q = in(reg) q,
            row = in(reg) cols,
            three_rows = in(reg) 3 * cols,
            at = const 4 * D,
            u0 = in(zmm_reg) u0,
            u1 = in(zmm_reg) u1,
            four = out(zmm_reg) _four,
            a0 = inout(zmm_reg) *a0,
            a1 = inout(zmm_reg) *a1,
            b0 = inout(zmm_reg) *b0,
            b1 = inout(zmm_reg) *b1,
            c0 = inout(zmm_reg) *c0,
            c1 = inout(zmm_reg) *c1,
            d0 = inout(zmm_reg) *d0,
            d1 = inout(zmm_reg) *d1,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
}
