//! I2_S on AArch64, straight on the original bytes (`docs/FORMATS.md` 2): byte b of a block of 128 columns holds the codes of
//! columns b, 32 + b, 64 + b, 96 + b in bits 7:6, 5:4, 3:2, 1:0.
//!
//! Codes are multiplied in their stored form u = 0, 1, 2, and sum(q) is taken off once per activation row; sums are kept
//! modulo 2^32, where the difference is exact. Two instruction sets differ only in how sixteen codes meet sixteen
//! activations ([`Dot`]); the tiles are written once over that. A tile of weight rows and activation rows shares its loads:
//! codes, once unpacked, meet every activation row, and activations every weight row. One activation row takes the weights
//! once, four rows of them at a time; more take strips of columns whose activations stay in L1 while every weight row passes.
//!
//! NEON belongs to every AArch64 CPU, so nothing here is compiled for more than the target has; SDOT is written as the
//! instruction that it is and executed only where a token was given.

use std::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, uint8x16_t, vaddq_s32, vaddvq_s32, vandq_u8, vdupq_n_s16, vdupq_n_s32,
    vdupq_n_u8, vget_low_s8, vld1q_s8, vld1q_u8, vmlal_high_s8, vmlal_s8, vpadalq_s16, vreinterpretq_s8_u8,
    vshrq_n_u8,
};
use std::arch::asm;
use std::marker::PhantomData;
use std::ops::Range;

use super::{Product, codes};
use crate::bitnet::formats::{FormatError, Weights};
use crate::team::Outputs;

/// A block: 32 bytes, the codes of 128 columns.
type Lane = [u8; 32];
/// The activations of a block, by group.
type Groups = [[i8; 32]; 4];

/// Columns per block.
const BLOCK: usize = 128;
/// Blocks of a strip.
const STRIP_BLOCKS: usize = 16;

/// How sixteen codes meet sixteen activations, and where the products add up. The token of the instruction set is it.
pub(super) trait Dot: Copy + Send + Sync + 'static {
    /// Sums of products.
    type Sums: Copy;
    /// Blocks whose products they bear.
    const BLOCKS: usize;
    /// Whether sixteen of them stay in registers, else eight.
    const SIXTEEN: bool;
    /// No products yet.
    fn zero() -> Self::Sums;
    /// And sixteen products more.
    ///
    /// # Safety
    /// A token of this instruction set was given.
    unsafe fn add(sums: Self::Sums, codes: int8x16_t, q: int8x16_t) -> Self::Sums;
    /// Four int32 that add up to them.
    fn wide(sums: Self::Sums) -> int32x4_t;
}

impl Dot for super::super::detect::Neon {
    /// int16 lanes: sixteen codes add at most 2 * 2 * 128 to one, so a block adds 4096 and eight fit: -32768..=32512.
    type Sums = int16x8_t;
    const BLOCKS: usize = 8;
    const SIXTEEN: bool = false;

    #[inline(always)]
    fn zero() -> int16x8_t {
        // SAFETY: NEON belongs to every AArch64 CPU.
        unsafe { vdupq_n_s16(0) }
    }

    #[inline(always)]
    unsafe fn add(sums: int16x8_t, codes: int8x16_t, q: int8x16_t) -> int16x8_t {
        // SAFETY: as above.
        unsafe { vmlal_high_s8(vmlal_s8(sums, vget_low_s8(codes), vget_low_s8(q)), codes, q) }
    }

    #[inline(always)]
    fn wide(sums: int16x8_t) -> int32x4_t {
        // SAFETY: as above.
        unsafe { vpadalq_s16(vdupq_n_s32(0), sums) }
    }
}

impl Dot for super::super::detect::NeonDotprod {
    /// int32 lanes, modulo 2^32.
    type Sums = int32x4_t;
    const BLOCKS: usize = usize::MAX;
    const SIXTEEN: bool = true;

    #[inline(always)]
    fn zero() -> int32x4_t {
        // SAFETY: NEON belongs to every AArch64 CPU.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    unsafe fn add(mut sums: int32x4_t, codes: int8x16_t, q: int8x16_t) -> int32x4_t {
        // SAFETY: registers only; the caller vouches for the instruction.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {codes:v}.16b, {q:v}.16b",
                sums = inout(vreg) sums,
                codes = in(vreg) codes,
                q = in(vreg) q,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    #[inline(always)]
    fn wide(sums: int32x4_t) -> int32x4_t {
        sums
    }
}

/// The code bytes, once no code is 3.
pub(super) fn checked<'a>(weights: &Weights<'a>) -> Result<&'a [u8], FormatError> {
    // The fold has no early exit, so that it becomes vector code.
    codes::check_i2s(weights, |bytes| bytes.iter().fold(0, |found, &byte| found | codes::code_3(byte)) != 0)
}

/// I2_S weights, read in place.
struct I2s<'a, D> {
    codes: &'a [u8],
    rows: usize,
    /// Blocks of a row.
    blocks: usize,
    isa: PhantomData<D>,
}

/// Makes some of the rows of checked weights ready.
pub(super) fn part<'a, D: Dot>(_: D, weights: &Weights<'a>, rows: Range<usize>) -> Box<dyn Product + 'a> {
    let cols = weights.layout().cols();
    let codes = &weights.bytes()[rows.start * cols / 4..rows.end * cols / 4];
    Box::new(I2s::<D> { codes, rows: rows.len(), blocks: cols / BLOCK, isa: PhantomData })
}

impl<D: Dot> Product for I2s<'_, D> {
    fn run(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        let q = groups(q);
        let weights = Rows { codes: self.codes.as_chunks().0, rows: self.rows, blocks: self.blocks };
        let mut first = 0;
        while first < n {
            let q = &q[first * weights.blocks..];
            // SAFETY: whoever made this gave the token.
            first += unsafe {
                match n - first {
                    4.. if D::SIXTEEN => columns::<D, 4, 4>(weights, q, (out, first)),
                    4.. => columns::<D, 2, 4>(weights, q, (out, first)),
                    2.. => columns::<D, 4, 2>(weights, q, (out, first)),
                    _ => columns::<D, 4, 1>(weights, q, (out, first)),
                }
            };
        }
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// Rows of whole blocks.
#[derive(Clone, Copy)]
struct Rows<'a> {
    /// `[rows, blocks]`
    codes: &'a [Lane],
    rows: usize,
    blocks: usize,
}

/// Results `first`.. of `C` activation rows, `R` weight rows at a time. Gives `C`.
///
/// # Safety
/// A token of this instruction set was given.
unsafe fn columns<D: Dot, const R: usize, const C: usize>(
    weights: Rows<'_>,
    q: &[Groups],
    (out, first): (&mut Outputs<'_, i32>, usize),
) -> usize {
    let blocks = weights.blocks;
    let q: [&[Groups]; C] = std::array::from_fn(|c| &q[c * blocks..][..blocks]);
    for (c, q) in q.iter().enumerate() {
        let sum: i32 = q.as_flattened().as_flattened().iter().map(|&q| i32::from(q)).sum();
        out.of(first + c).fill(sum.wrapping_neg());
    }
    let strip_blocks = if C == 1 { blocks } else { STRIP_BLOCKS };
    for start in (0..blocks).step_by(strip_blocks) {
        let strip = start..(start + strip_blocks).min(blocks);
        let mut q = q;
        q.iter_mut().for_each(|q| *q = &q[strip.clone()]);
        let row_of = |row: usize| &weights.codes[row * blocks..][strip.clone()];
        let together = weights.rows / R * R;
        for row in (0..together).step_by(R) {
            let rows: [&[Lane]; R] = std::array::from_fn(|r| row_of(row + r));
            // SAFETY: the caller's.
            let dots = unsafe { tile::<D, R, C>(rows, q) };
            for (r, dots) in dots.into_iter().enumerate() {
                add_dots(out, (first, row + r), dots);
            }
        }
        for row in together..weights.rows {
            // SAFETY: the caller's.
            let [dots] = unsafe { tile::<D, 1, C>([row_of(row)], q) };
            add_dots(out, (first, row), dots);
        }
    }
    C
}

/// The products of one weight row onto those of the strips before.
fn add_dots<const C: usize>(out: &mut Outputs<'_, i32>, (first, row): (usize, usize), dots: [i32; C]) {
    for (c, dot) in dots.into_iter().enumerate() {
        let out = &mut out.of(first + c)[row];
        *out = out.wrapping_add(dot);
    }
}

/// The products of `R` weight rows with `C` activation rows, all of the same number of blocks.
///
/// # Safety
/// A token of this instruction set was given.
#[inline(never)]
unsafe fn tile<D: Dot, const R: usize, const C: usize>(
    rows: [&[Lane]; R],
    q: [&[Groups]; C],
) -> [[i32; C]; R] {
    let blocks = rows[0].len();
    assert!(rows.iter().all(|row| row.len() == blocks) && q.iter().all(|q| q.len() == blocks));
    // SAFETY: NEON belongs to every AArch64 CPU, the rest is the caller's; every access below is within a block of a row,
    // all of which have `blocks` of them.
    unsafe {
        let mut total = [[vdupq_n_s32(0); C]; R];
        let mut start = 0;
        while start < blocks {
            let end = blocks.min(start.saturating_add(D::BLOCKS));
            let mut sums = [[D::zero(); C]; R];
            for block in start..end {
                for at in [0, 16] {
                    let mut packed = [vdupq_n_u8(0); R];
                    for r in 0..R {
                        packed[r] = vld1q_u8(rows[r].get_unchecked(block).as_ptr().add(at));
                    }
                    for group in 0..4 {
                        for c in 0..C {
                            let values = vld1q_s8(q[c].get_unchecked(block)[group].as_ptr().add(at));
                            for r in 0..R {
                                sums[r][c] = D::add(sums[r][c], codes_of(packed[r], group), values);
                            }
                        }
                    }
                }
            }
            for r in 0..R {
                for c in 0..C {
                    total[r][c] = vaddq_s32(total[r][c], D::wide(sums[r][c]));
                }
            }
            start = end;
        }
        let mut dots = [[0; C]; R];
        for r in 0..R {
            for c in 0..C {
                dots[r][c] = vaddvq_s32(total[r][c]);
            }
        }
        dots
    }
}

/// The codes of a group of sixteen bytes. The compiler knows the group, and takes what is the same for several activation
/// rows out of their loop.
#[inline(always)]
pub(super) fn codes_of(packed: uint8x16_t, group: usize) -> int8x16_t {
    // SAFETY: NEON belongs to every AArch64 CPU.
    unsafe {
        let three = vdupq_n_u8(3);
        vreinterpretq_s8_u8(match group {
            0 => vshrq_n_u8::<6>(packed),
            1 => vandq_u8(vshrq_n_u8::<4>(packed), three),
            2 => vandq_u8(vshrq_n_u8::<2>(packed), three),
            _ => vandq_u8(packed, three),
        })
    }
}

/// Activations of whole blocks.
fn groups(q: &[i8]) -> &[Groups] {
    q.as_chunks::<32>().0.as_chunks::<4>().0
}
