//! What the TL1 and TL2 kernels for NEON share: tables of sixteen bytes, sums that fit them, and the order of the work.
//!
//! **Look-up.** Sixteen rows stand side by side, one nibble each for two or three weights, and `tbl` reads sixteen bytes of a
//! table of sixteen. The answer T of two or three activations needs up to 10 bits, so it is kept as T = 27 h + l with
//! |h| <= 14 and |l| <= 13, a table for h and one for l. Answers for h and for l are added as bytes, eight of them at
//! most: 8 * 14 = 112. One multiplication by 27 and two widening additions make int16 sums of T of them.
//!
//! **Overflow.** Eight triples are at most 8 * 3 * 128 = 3072, so [`TRIPLE_UNITS`] = 10 of them fit int16; eight pairs at most
//! 2048, so [`PAIR_UNITS`] = 15 do. Then int32.
//!
//! **Order.** Tables are made for up to [`PASS_ROWS`] activation rows, in groups of four, two or one whose tables stand side by
//! side, so that nibbles and signs, once unpacked, meet a whole group. A block of columns of a tile serves every group before
//! the next block, so that its bytes, and the tables of its columns, are read again while they are in L1.
//!
//! Every number of activation rows is looked up. A look-up of h and l takes four instructions for 16 rows and two columns, six
//! for three columns and their signs; one product of SDOT takes one for 16 weights, so many rows might do better decoded. Which is
//! faster was not measured.

use std::arch::aarch64::*;

use super::super::detect::Neon;
use super::super::{BackendError, checks};
use super::{Product, codes};
use crate::bitnet::formats::{FormatError, Tile, Weights};
use crate::team::Outputs;

/// Activation rows whose tables are made at once.
const PASS_ROWS: usize = 8;

/// Answers of a byte sum.
pub(super) const RUN: usize = 8;

/// Runs of triples that fit one int16.
pub(super) const TRIPLE_UNITS: usize = 10;

/// Runs of pairs that fit one int16.
pub(super) const PAIR_UNITS: usize = 15;

/// The weight of h in T = 27 h + l.
const RADIX: i8 = 27;

/// round(2^15 / 27).
const RECIPROCAL: i16 = 1214;

/// The 16 answers h and l for one pair or triple of activations, by index or magnitude.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
pub(super) struct Table {
    high: [u8; 16],
    low: [u8; 16],
}

impl Table {
    /// The answers for `D` activations, whose weights `digits` holds by nibble.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn of<const D: usize>(digits: &[[u8; 16]; D], q: [i8; D]) -> Self {
        let mut sums = [vdupq_n_s16(0); 2];
        for (digits, q) in digits.iter().zip(q) {
            let (digits, q) = (vreinterpretq_s8_u8(load(digits)), vdupq_n_s8(q));
            sums[0] = vmlal_s8(sums[0], vget_low_s8(digits), vget_low_s8(q));
            sums[1] = vmlal_high_s8(sums[1], digits, q);
        }
        let mut table = Self::default();
        let halves = table.high.as_chunks_mut().0.iter_mut().zip(table.low.as_chunks_mut().0);
        for (sums, (high, low)) in sums.into_iter().zip(halves) {
            // Rounded division by a 15-bit reciprocal: exact enough for |l| <= 13 wherever |T| <= 384.
            let h = vqrdmulhq_n_s16(sums, RECIPROCAL);
            store_eight(high, vmovn_s16(h));
            store_eight(low, vmovn_s16(vmlsq_n_s16(sums, h, i16::from(RADIX))));
        }
        table
    }

    /// In registers.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn load(&self) -> Loaded {
        Loaded { high: load(&self.high), low: load(&self.low) }
    }
}

/// A table in registers.
#[derive(Clone, Copy)]
pub(super) struct Loaded {
    high: uint8x16_t,
    low: uint8x16_t,
}

impl Loaded {
    /// The answers of sixteen rows.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn of_rows(self, nibbles: uint8x16_t) -> Run {
        Run {
            high: vreinterpretq_s8_u8(vqtbl1q_u8(self.high, nibbles)),
            low: vreinterpretq_s8_u8(vqtbl1q_u8(self.low, nibbles)),
        }
    }
}

/// Answers of sixteen rows, or sums of up to [`RUN`] of them, as bytes.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub high: int8x16_t,
    pub low: int8x16_t,
}

impl Run {
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn zero() -> Self {
        Self { high: vdupq_n_s8(0), low: vdupq_n_s8(0) }
    }

    /// Answers more.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn add(&mut self, answers: Self) {
        self.high = vaddq_s8(self.high, answers.high);
        self.low = vaddq_s8(self.low, answers.low);
    }
}

/// Sums of T of sixteen rows, eight and eight.
#[derive(Clone, Copy)]
pub(super) struct Sums([int16x8_t; 2]);

impl Sums {
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn zero() -> Self {
        Self([vdupq_n_s16(0); 2])
    }

    /// 27 h + l more.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn add(&mut self, run: Run) {
        let radix = vdupq_n_s8(RADIX);
        let Self([first, second]) = self;
        *first = vaddw_s8(vmlal_s8(*first, vget_low_s8(run.high), vget_low_s8(radix)), vget_low_s8(run.low));
        *second = vaddw_high_s8(vmlal_high_s8(*second, run.high, radix), run.low);
    }

    /// Adds eight rows and the other eight to results.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn add_to(self, first: &mut [i32; 8], second: &mut [i32; 8]) {
        for (sums, out) in self.0.into_iter().zip([first, second]) {
            let out = out.as_mut_ptr();
            // SAFETY: eight int32 are readable and writable; no alignment is needed beyond theirs.
            unsafe {
                vst1q_s32(out, vaddw_s16(vld1q_s32(out), vget_low_s16(sums)));
                vst1q_s32(out.add(4), vaddw_high_s16(vld1q_s32(out.add(4)), sums));
            }
        }
    }
}

/// Sixteen bytes from anywhere.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: sixteen bytes are readable; no alignment is needed.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[target_feature(enable = "neon")]
#[inline]
fn store_eight(bytes: &mut [u8; 8], value: int8x8_t) {
    // SAFETY: eight bytes are writable; no alignment is needed.
    unsafe { vst1_u8(bytes.as_mut_ptr(), vreinterpret_u8_s8(value)) };
}

/// The first and the second nibble of each byte.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn nibbles(bytes: uint8x16_t) -> [uint8x16_t; 2] {
    [vshrq_n_u8::<4>(bytes), vandq_u8(bytes, vdupq_n_u8(15))]
}

/// Refuses codes that no packer produces. Gives the tile.
pub(super) fn check(weights: &Weights<'_>) -> Result<Tile, FormatError> {
    // The fold has no early exit, so that it becomes vector code.
    codes::check_tl(weights, |bytes, largest| {
        bytes.iter().fold(false, |bad, &byte| bad | (byte >> 4 > largest) | (byte & 15 > largest))
    })
}

/// Whole tiles of one format.
pub(super) trait Tiles: Send {
    /// Rows of a tile.
    fn tile_rows(&self) -> usize;
    /// All rows.
    fn rows(&self) -> usize;
    /// Columns.
    fn cols(&self) -> usize;
    /// Tables of an activation row.
    fn n_tables(&self) -> usize;
    /// Blocks of columns that are looked up one after the other.
    fn blocks(&self) -> usize;
    /// Bytes allocated to find them.
    fn bytes(&self) -> usize;

    /// The tables of the activation row `q` `[cols]` into the first [`Tiles::n_tables`] of `tables`.
    fn build<'t>(&self, token: Neon, q: &[i8], tables: impl Iterator<Item = &'t mut Table>);

    /// Adds a block of a tile for `N` activation rows with these tables, `[n_tables]`, to results `first`...
    fn look_up<const N: usize>(
        &self,
        token: Neon,
        place: (usize, usize),
        tables: &[[Table; N]],
        out: (&mut Outputs<'_, i32>, usize),
    );
}

/// Tiles with room for the tables.
struct LookUp<T> {
    token: Neon,
    tiles: T,
    /// `[n_tables, activation rows]` of one group after the other.
    tables: Vec<Table>,
}

/// Makes tiles ready for up to `n_max` activation rows: allocates the tables.
pub(super) fn ready<'a>(
    (token, name): (Neon, &str),
    tiles: impl Tiles + 'a,
    n_max: usize,
) -> Result<Box<dyn Product + 'a>, BackendError> {
    let tables = checks::zeros(name, tiles.n_tables(), n_max.min(PASS_ROWS))?;
    Ok(Box::new(LookUp { token, tiles, tables }))
}

/// Activation rows of the next group where so many are left.
fn group_rows(left: usize) -> usize {
    match left {
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

impl<T: Tiles> LookUp<T> {
    /// `q` `[rows of the pass, cols]`, results `first`...
    fn pass(&mut self, q: &[i8], (out, first): (&mut Outputs<'_, i32>, usize)) {
        let Self { token, tiles, tables } = self;
        let (cols, n_tables) = (tiles.cols(), tiles.n_tables());
        let n = q.len() / cols;
        let groups = || {
            let mut at = 0;
            std::iter::from_fn(move || {
                (at < n).then(|| {
                    let (start, rows) = (at, group_rows(n - at));
                    at += rows;
                    (start, rows)
                })
            })
        };
        for (start, rows) in groups() {
            let tables = &mut tables[start * n_tables..][..rows * n_tables];
            for (i, q) in q[start * cols..][..rows * cols].chunks_exact(cols).enumerate() {
                tiles.build(*token, q, tables[i..].iter_mut().step_by(rows));
            }
        }
        (first..first + n).for_each(|row| out.of(row).fill(0));
        for place in (0..tiles.rows() / tiles.tile_rows())
            .flat_map(|tile| (0..tiles.blocks()).map(move |block| (tile, block)))
        {
            for (start, rows) in groups() {
                let tables = &tables[start * n_tables..][..rows * n_tables];
                let out = (&mut *out, first + start);
                match rows {
                    4 => tiles.look_up::<4>(*token, place, tables.as_chunks().0, out),
                    2 => tiles.look_up::<2>(*token, place, tables.as_chunks().0, out),
                    _ => tiles.look_up::<1>(*token, place, tables.as_chunks().0, out),
                }
            }
        }
    }
}

impl<T: Tiles> Product for LookUp<T> {
    fn run(&mut self, q: &[i8], _n: usize, out: &mut Outputs<'_, i32>) {
        for (pass, q) in q.chunks(PASS_ROWS * self.tiles.cols()).enumerate() {
            self.pass(q, (&mut *out, pass * PASS_ROWS));
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.tables) + self.tiles.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codes::{PAIR_DIGITS, TRIPLE_DIGITS};

    /// Every answer of every pair and of triples at the edges: the split is exact and its parts stay within the bounds of the
    /// byte sums, less one for a sign that is yet to be taken off.
    #[test]
    fn split_is_exact_and_bounded() {
        let check = |table: Table, answer: &dyn Fn(usize) -> i32, used: usize| {
            for nibble in 0..16 {
                let (h, l) = (table.high[nibble] as i8, table.low[nibble] as i8);
                let expected = if nibble < used { answer(nibble) } else { 0 };
                assert_eq!(i32::from(RADIX) * i32::from(h) + i32::from(l), expected, "nibble {nibble}");
                assert!(h.unsigned_abs() <= 14 && l.unsigned_abs() <= 13, "{h}, {l}");
            }
        };
        let digit = |digits: &[u8; 16], nibble: usize| i32::from(digits[nibble] as i8);
        for a in i8::MIN..=i8::MAX {
            for b in i8::MIN..=i8::MAX {
                let wide = [i32::from(a), i32::from(b)];
                // SAFETY: NEON belongs to every AArch64 CPU.
                let table = unsafe { Table::of(&PAIR_DIGITS, [a, b]) };
                let answer =
                    |nibble: usize| (0..2).map(|i| digit(&PAIR_DIGITS[i], nibble) * wide[i]).sum::<i32>();
                check(table, &answer, 9);
            }
            for b in [-128, -127, -1, 0, 1, 126, 127] {
                for c in [-128, -127, -13, 0, 14, 126, 127] {
                    let wide = [i32::from(a), i32::from(b), i32::from(c)];
                    // SAFETY: as above.
                    let table = unsafe { Table::of(&TRIPLE_DIGITS, [a, b, c]) };
                    let answer = |nibble: usize| {
                        (0..3).map(|i| digit(&TRIPLE_DIGITS[i], nibble) * wide[i]).sum::<i32>()
                    };
                    check(table, &answer, 14);
                }
            }
        }
    }
}
