//! Float products in the hardware's own arithmetic (`docs/NUMERICS.md`, "Native float products"), on any instruction set
//! that multiplies F16 or BF16.
//!
//! ```text
//! x is rounded to the matrix's type once, each row from a line of its own
//! rows are split among the threads; each thread takes four rows at a time, a quarter of its part apart
//!   for each panel of columns, which the four rows keep in L1: tiles of four rows and up to four rows of x
//!   the first tiles ask memory for the next weights: computing and waiting are at the same time
//! the sums of a row of x are scaled back by the power of two that it was scaled by
//! ```
//!
//! Both sides of a product are values of 16 bits, side by side, so that nothing is decoded, interleaved or copied: a vector
//! of weights as they lie meets a vector of x, and pairs of neighbours are what `vdpbf16ps` wants. Loads of weights may
//! straddle two lines; lines of their own, which cost a copy, were no faster.

use super::super::detect::{Avx512Bf16, Avx512Fp16};
use super::super::{BackendError, FloatMatmul, checks};
use super::float::{Place, ROWS, far_rows, n_parts, part_of, team_of};
use crate::bitnet::model::{FloatMatrix, FloatType};
use crate::team::Team;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Values of a vector.
pub(super) const GROUP: usize = 32;
/// Rows of x in a tile: sixteen sums, as many that wait for nothing else and leave half the registers to what is loaded.
const COLUMNS: usize = 4;
/// Columns of a panel at most: four rows of it are 32 KiB, which stay in L1 while x passes by.
const PANEL: usize = 4096;
/// How far ahead of the only tile memory is asked for its lines.
const AHEAD_BYTES: usize = 2048;

/// A line of 32 values, as their bits.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Group(pub [u16; GROUP]);

/// What an instruction set does with 16-bit floats; the token that unlocks it implements it.
pub(super) trait NativeKernels: Copy + Send + Sync {
    /// The exponent of the power of two by which a row of x is scaled before it is rounded: where the type holds less than
    /// f32 does, one at which no sum overflows whatever the matrix, whose largest magnitude is below `2^largest`, holds.
    fn exponent(self, largest: i32, x: &[f32]) -> i32;

    /// Rounds `x * 2^exponent`; `rounded` has room for it and nothing more, and zeros where x ends.
    fn round(self, exponent: i32, x: &[f32], rounded: &mut [Group]);

    /// The products of four rows with `N` rows of x: each row has the bytes of as many values, and each row of x the
    /// groups. Meanwhile as many bytes are fetched from each of `ahead`.
    fn tile<const N: usize, const A: usize>(
        self,
        rows: [&[u8]; ROWS],
        x: [&[Group]; N],
        ahead: [*const u8; A],
    ) -> [[f32; ROWS]; N];
}

/// Makes `matrix` ready, or says which instructions are missing.
pub(super) fn prepare<'a>(
    backend: &str,
    matrix: FloatMatrix<'a>,
    sizes: (usize, usize),
) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
    let float_type = matrix.float_type();
    checks::native_type(backend, float_type)?;
    let missing = |why| checks::unsupported(backend, format!("native arithmetic of {float_type:?}: {why}"));
    match float_type {
        FloatType::Bf16 => Native::boxed(backend, Avx512Bf16::detect().map_err(missing)?, matrix, sizes),
        _ => Native::boxed(backend, Avx512Fp16::detect().map_err(missing)?, matrix, sizes),
    }
}

/// The smallest e with every finite F16 magnitude below 2^e, or -14, below which they are subnormal.
fn exponent_of_largest(matrix: &FloatMatrix<'_>) -> i32 {
    const INFINITE: u16 = 0x7c00;
    let magnitudes = matrix.bytes().as_chunks::<2>().0.iter().map(|&bits| u16::from_le_bytes(bits) & 0x7fff);
    let finite = magnitudes.map(|bits| if bits < INFINITE { bits } else { 0 });
    i32::from(finite.fold(0, u16::max) >> 10) - 14
}

/// A matrix of F16 or BF16.
struct Native<'a, T> {
    isa: T,
    matrix: FloatMatrix<'a>,
    /// Of its values, where x is scaled.
    largest: i32,
    n_max: usize,
    team: Arc<Team>,
    /// `[n_max, groups]`, and what each row was scaled by.
    rounded: Vec<Group>,
    exponents: Vec<i32>,
    /// Of each thread, its four rows times each row of x; a lock that nobody else asks for.
    sums: Vec<Mutex<Vec<[f32; ROWS]>>>,
}

impl<'a, T: NativeKernels + 'a> Native<'a, T> {
    fn boxed(
        backend: &str,
        isa: T,
        matrix: FloatMatrix<'a>,
        (n_max, threads): (usize, usize),
    ) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
        let team = team_of(backend, threads)?;
        let rounded = checks::zeros(backend, n_max, matrix.cols().div_ceil(GROUP))?;
        let exponents = checks::zeros(backend, n_max, 1)?;
        let sums: Result<_, BackendError> =
            (0..threads).map(|_| Ok(Mutex::new(checks::zeros(backend, n_max, 1)?))).collect();
        let largest = if matrix.float_type() == FloatType::F16 { exponent_of_largest(&matrix) } else { 0 };
        Ok(Box::new(Self { isa, matrix, largest, n_max, team, rounded, exponents, sums: sums? }))
    }

    /// Rows of the matrix that one thread has, times every row of x.
    fn part(&self, (thread, part, parts): (usize, usize, usize), n: usize, place: Place) {
        let sums = &mut self.sums[thread].lock().unwrap_or_else(PoisonError::into_inner)[..n];
        for rows in far_rows::<ROWS>(part_of(self.matrix.rows(), part, parts)) {
            let bytes = rows.map(|row| self.matrix.row(row));
            sums.fill([0.0; ROWS]);
            if n <= COLUMNS {
                let ahead = bytes.map(|row| row.as_ptr().wrapping_add(AHEAD_BYTES));
                self.add_tile(bytes, ahead, 0..self.matrix.cols(), 0, sums);
            } else {
                panels(self.matrix.cols()).for_each(|columns| self.add_panel(bytes, &columns, sums));
            }
            for (column, (sums, &exponent)) in sums.iter().zip(&self.exponents).enumerate() {
                for (row, &sum) in rows.into_iter().zip(sums) {
                    // SAFETY: parts have different rows, and `y` is borrowed until the team has run.
                    unsafe { place.write(column, row, scaled_back(sum, exponent)) };
                }
            }
        }
    }

    /// Adds to `sums` the products of some columns of four rows with every row of x. What comes next, which is behind these
    /// columns, is fetched by the first two tiles, or four: memory takes longer than one.
    fn add_panel(&self, rows: [&[u8]; ROWS], columns: &Range<usize>, sums: &mut [[f32; ROWS]]) {
        let span = 2 * columns.start..2 * columns.end;
        let [a, b, c, d] = rows.map(|row| row.as_ptr().wrapping_add(span.end));
        let rows = rows.map(|row| &row[span.clone()]);
        let n_tiles = sums.len().div_ceil(COLUMNS);
        for (index, sums) in sums.chunks_mut(COLUMNS).enumerate() {
            let (columns, first) = (columns.clone(), index * COLUMNS);
            match (n_tiles, index) {
                (2 | 3, 0) => self.add_tile(rows, [a, b], columns, first, sums),
                (2 | 3, 1) => self.add_tile(rows, [c, d], columns, first, sums),
                (4.., 0..4) => self.add_tile(rows, [[a, b, c, d][index]], columns, first, sums),
                _ => self.add_tile(rows, [], columns, first, sums),
            }
        }
    }

    /// Adds to `sums` the products of some columns of four rows with as many rows of x, from `first` on.
    fn add_tile<const A: usize>(
        &self,
        rows: [&[u8]; ROWS],
        ahead: [*const u8; A],
        columns: Range<usize>,
        first: usize,
        sums: &mut [[f32; ROWS]],
    ) {
        let row_groups = self.matrix.cols().div_ceil(GROUP);
        let groups = columns.start / GROUP..columns.end.div_ceil(GROUP);
        let x = |index: usize| &self.rounded[(first + index) * row_groups..][groups.clone()];
        match sums {
            [a] => add([a], self.isa.tile(rows, [x(0)], ahead)),
            [a, b] => add([a, b], self.isa.tile(rows, [x(0), x(1)], ahead)),
            [a, b, c] => add([a, b, c], self.isa.tile(rows, [x(0), x(1), x(2)], ahead)),
            [a, b, c, d] => add([a, b, c, d], self.isa.tile(rows, [x(0), x(1), x(2), x(3)], ahead)),
            _ => unreachable!("chunks of {COLUMNS}"),
        }
    }
}

fn add<const N: usize>(sums: [&mut [f32; ROWS]; N], products: [[f32; ROWS]; N]) {
    for (sums, products) in sums.into_iter().zip(products) {
        for (sum, product) in sums.iter_mut().zip(products) {
            *sum += product;
        }
    }
}

/// Panels of whole groups, but for the end, as equal as that allows.
fn panels(cols: usize) -> impl Iterator<Item = Range<usize>> {
    let groups = cols.div_ceil(GROUP);
    let n = cols.div_ceil(PANEL);
    (0..n).map(move |panel| groups * panel / n * GROUP..(groups * (panel + 1) / n * GROUP).min(cols))
}

/// `sum / 2^exponent`, rounded once.
fn scaled_back(sum: f32, exponent: i32) -> f32 {
    if exponent == 0 {
        return sum;
    }
    // Exponents are within those of f64: -134 to 141.
    let factor = f64::from_bits(((1023 - i64::from(exponent)) as u64) << 52);
    (f64::from(sum) * factor) as f32
}

impl<T: NativeKernels> FloatMatmul for Native<'_, T> {
    fn matmul_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        let n = checks::batch_of(("x", x.len()), ("y", y.len()), (rows, cols), self.n_max)?;
        if n == 0 {
            return Ok(());
        }
        let rounded = self.rounded.chunks_exact_mut(cols.div_ceil(GROUP)).zip(&mut self.exponents);
        for (x, (rounded, exponent)) in x.chunks_exact(cols).zip(rounded) {
            *exponent = self.isa.exponent(self.largest, x);
            self.isa.round(*exponent, x, rounded);
        }
        let place = Place::of(y, rows);
        let this = &*self;
        let parts = n_parts(rows, this.team.threads());
        this.team.share(parts, &|thread, part| this.part((thread, part, parts), n, place));
        Ok(())
    }
}
