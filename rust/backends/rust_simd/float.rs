//! Float products on any instruction set, to the bit of `docs/NUMERICS.md` ("Float products").
//!
//! ```text
//! rows are split among the threads; each thread takes four rows at a time, a quarter of its part apart
//! one row of x, values of 2 or 4 bytes:  stream: weights go from memory into the products, and those to sums
//! else, x put in the order of its use;
//!       for each panel of columns:       decode four rows to f32 once, multiply them with every row of x
//!       last columns (K mod 32), then the 32 lanes of each output are added in halves
//! ```
//!
//! Four rows far apart are four streams for the memory to serve: from DRAM that is worth half again the speed of one.
//! Lanes are independent of each other, so a kernel may walk any subset of them at a time: the tile of a wide batch takes
//! one vector of lanes and many outputs, where one row of x takes all lanes of few outputs. Each lane still sees its
//! columns in ascending order. Panels and x are in memory as a tile walks them: eight lanes of all columns, then the next
//! eight. As rows of a matrix they would meet in a few sets of L1. Q8_0 is another sum, block by block, and has its own
//! kernel of eight rows.

use super::super::{BackendError, FloatMatmul, checks};
use super::{MOST_THREADS, shares};
use crate::bitnet::model::{FloatMatrix, FloatType};
use crate::team::Team;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Partial sums of one output.
pub(super) const LANES: usize = 32;
/// Rows of a matrix that are multiplied together.
pub(super) const ROWS: usize = 4;
/// Rows of a part at least.
const LEAST_PART_ROWS: usize = 64;
/// Columns of a panel: the quarter of four rows of it that a tile walks leaves most of L1 to x.
pub(super) const PANEL: usize = 2048;
/// Lanes of an octet.
pub(super) const WIDTH: usize = 8;
/// Octets of an output.
pub(super) const OCTETS: usize = LANES / WIDTH;
/// Groups of 32 columns for which an octet of a panel has room: five more than there are, as octets that stand apart by a
/// multiple of 4 KB take a fifth longer to write.
const STEPS: usize = PANEL / LANES + 5;
/// Rows of x in a tile at most: with four rows of a matrix, twelve sums and what is loaded are sixteen registers.
pub(super) const TILE: usize = 3;
/// Rows of a Q8_0 matrix that are multiplied together: one for each lane of the sum.
pub(super) const Q8_ROWS: usize = 8;
/// Values of a Q8_0 block.
pub(super) const BLOCK: usize = 32;

/// The partial sums of one output.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub [f32; LANES]);

pub(super) const NO_LANES: Lanes = Lanes([0.0; LANES]);

/// Eight values for neighbouring lanes, which a tile walks at a time; aligned, so that no load or store of a vector meets
/// two cache lines.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
pub(super) struct Octet(pub [f32; WIDTH]);

/// An octet of each of four rows.
pub(super) type Octets = [Octet; ROWS];

/// Four rows of a panel, decoded: `[lanes / 8][columns / 32][row]`.
pub(super) struct Panel(pub [[Octets; STEPS]; OCTETS]);

/// The loops over floats, on one instruction set; the token that unlocks it implements them.
pub(super) trait FloatKernels: Copy + Send + Sync {
    /// The products of four rows, of F32, F16 or BF16, with `x`. Every row has the bytes of `x.len()` values.
    fn stream(self, float_type: FloatType, rows: [&[u8]; ROWS], x: &[f32]) -> [f32; ROWS];

    /// Decodes `k` values of each of four rows, a multiple of 32 and at most [`PANEL`], to a panel, as `FloatType::decode`
    /// does; whole blocks of any type but Q8_0.
    fn decode(self, float_type: FloatType, rows: [&[u8]; ROWS], k: usize, panel: &mut Panel);

    /// Adds to `lanes` the products of the first `k` columns of the panel, a multiple of 32 and at most [`PANEL`], with so
    /// many of each of n rows of x, which `x` holds as [`pack`] puts them; `lanes` `[lanes / 8][n]`.
    fn panel(self, w: &Panel, k: usize, x: &[Octet], lanes: &mut [Octets]);

    /// Adds the products of the last, fewer than 32, columns of four rows with those of row `column` of x to its lanes, and
    /// then the lanes in halves; `lanes` `[lanes / 8][n]`.
    fn finish(self, w: &[[f32; LANES]; ROWS], x: &[f32], lanes: &[Octets], column: usize) -> [f32; ROWS];

    /// Quantises rows of 32 values: codes `q` and scales `d`.
    fn quantize_q8_0(self, x: &[f32], q: &mut [i8], d: &mut [f32]);

    /// The products of eight rows of Q8_0 with x, quantised.
    fn q8_0(self, rows: [&[u8]; Q8_ROWS], q: &[i8], d: &[f32]) -> [f32; Q8_ROWS];
}

/// Makes `matrix` ready on the instruction set of `isa`.
pub(super) fn prepare<'a, T: FloatKernels + 'a>(
    backend: &str,
    isa: T,
    matrix: FloatMatrix<'a>,
    (n_max, threads): (usize, usize),
) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
    let team = team_of(backend, threads)?;
    Ok(match matrix.float_type() {
        FloatType::F32 | FloatType::F16 | FloatType::Bf16 | FloatType::Q6K => {
            let scratch: Result<_, _> = (0..threads).map(|_| Scratch::new(backend, n_max)).collect();
            let packed = checks::zeros(backend, n_max, matrix.cols() / LANES * OCTETS)?;
            Box::new(InLanes { isa, matrix, n_max, team, packed, scratch: scratch? })
        }
        FloatType::Q8_0 => {
            let q = checks::zeros(backend, n_max, matrix.cols())?;
            let d = checks::zeros(backend, n_max, matrix.cols() / BLOCK)?;
            Box::new(InBlocks { isa, matrix, n_max, team, q, d })
        }
    })
}

pub(super) fn team_of(backend: &str, threads: usize) -> Result<Arc<Team>, BackendError> {
    checks::threads(backend, threads, MOST_THREADS)?;
    Team::shared(threads).map_err(|why| BackendError::Internal {
        backend: backend.to_string(),
        what: format!("the operating system refused {threads} threads: {why}"),
    })
}

/// Into how many parts the rows of a matrix are divided: several for each thread, so that what one does not get to is
/// left to the others, of rows enough for their streams.
pub(super) fn n_parts(rows: usize, threads: usize) -> usize {
    if threads == 1 { 1 } else { (rows / LEAST_PART_ROWS).clamp(threads, 8 * threads) }
}

/// The rows of part `part` of `parts`.
pub(super) fn part_of(rows: usize, part: usize, parts: usize) -> Range<usize> {
    rows * part / parts..rows * (part + 1) / parts
}

/// The rows that are multiplied together, step by step: `N` streams through a range. Where it is no multiple of `N` the
/// last row is in several of them, and computed more than once.
pub(super) fn far_rows<const N: usize>(range: Range<usize>) -> impl Iterator<Item = [usize; N]> {
    let step = range.len().div_ceil(N);
    (0..step)
        .map(move |at| std::array::from_fn(|stream| (range.start + stream * step + at).min(range.end - 1)))
}

/// `y` `[n, rows]`, written by several threads, each its own rows of the matrix.
#[derive(Clone, Copy)]
pub(super) struct Place {
    y: *mut f32,
    len: usize,
    rows: usize,
}

// SAFETY: threads write different elements, see `Place::write`.
unsafe impl Sync for Place {}

impl Place {
    pub(super) fn of(y: &mut [f32], rows: usize) -> Self {
        Self { y: y.as_mut_ptr(), len: y.len(), rows }
    }

    /// # Safety
    /// `y` is still borrowed, and no other thread writes this row.
    pub(super) unsafe fn write(self, column: usize, row: usize, value: f32) {
        let at = column * self.rows + row;
        assert!(at < self.len);
        // SAFETY: within the slice, and the caller vouches for the rest.
        unsafe { self.y.add(at).write(value) }
    }
}

/// What one thread needs.
struct Scratch {
    panel: Box<Panel>,
    /// `[lanes / 8][n]`
    lanes: Vec<Octets>,
}

impl Scratch {
    fn new(backend: &str, n_max: usize) -> Result<Mutex<Self>, BackendError> {
        let out_of_memory = |_| BackendError::OutOfMemory { backend: backend.to_string() };
        let mut lanes = Vec::new();
        let octets = n_max.saturating_mul(OCTETS);
        lanes.try_reserve_exact(octets).map_err(out_of_memory)?;
        lanes.resize(octets, [Octet::default(); ROWS]);
        Ok(Mutex::new(Self { panel: Box::new(Panel([[[Octet::default(); ROWS]; STEPS]; OCTETS])), lanes }))
    }
}

/// The whole groups of 32 columns in as few panels as fit, of about the same size, and of whole blocks of any type.
fn panels(cols: usize) -> impl Iterator<Item = Range<usize>> {
    let whole = cols / LANES * LANES;
    let length = whole.div_ceil(whole.div_ceil(PANEL).max(1)).next_multiple_of(256).max(256);
    (0..whole).step_by(length).map(move |from| from..(from + length).min(whole))
}

/// The whole groups of 32 columns of `x` `[n, cols]`, panel by panel; each in tiles of rows, a tile
/// `[lanes / 8][columns / 32][row]`.
fn pack(x: &[f32], n: usize, into: &mut [Octet]) {
    let cols = x.len() / n;
    let mut into = into.iter_mut();
    for columns in panels(cols) {
        for rows in shares(n, TILE) {
            let x = &x[rows.start * cols..rows.end * cols];
            for first_lane in (0..LANES).step_by(WIDTH) {
                for at in (columns.start + first_lane..columns.end).step_by(LANES) {
                    for (x, into) in x.chunks_exact(cols).zip(&mut into) {
                        into.0.copy_from_slice(&x[at..at + WIDTH]);
                    }
                }
            }
        }
    }
}

/// Products in 32 lanes.
struct InLanes<'a, T> {
    isa: T,
    matrix: FloatMatrix<'a>,
    n_max: usize,
    team: Arc<Team>,
    /// x, panel by panel.
    packed: Vec<Octet>,
    /// One for each thread; a lock that nobody else asks for.
    scratch: Vec<Mutex<Scratch>>,
}

impl<T: FloatKernels> FloatMatmul for InLanes<'_, T> {
    fn matmul_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        let n = checks::batch_of(("x", x.len()), ("y", y.len()), (rows, cols), self.n_max)?;
        if n == 0 {
            return Ok(());
        }
        let place = Place::of(y, rows);
        let parts = n_parts(rows, self.team.threads());
        match self.matrix.float_type() {
            FloatType::F32 | FloatType::F16 | FloatType::Bf16 if n == 1 => {
                let this = &*self;
                this.team.share(parts, &|_, part| this.part_of_one((part, parts), x, place));
            }
            _ => {
                pack(x, n, &mut self.packed);
                let this = &*self;
                this.team.share(parts, &|thread, part| this.part((thread, part, parts), x, n, place));
            }
        }
        Ok(())
    }
}

impl<T: FloatKernels> InLanes<'_, T> {
    fn part_of_one(&self, (part, parts): (usize, usize), x: &[f32], place: Place) {
        let (float_type, bytes) = (self.matrix.float_type(), self.matrix.bytes());
        let row_bytes = float_type.bytes_of(x.len());
        for rows in far_rows::<ROWS>(part_of(self.matrix.rows(), part, parts)) {
            let values =
                self.isa.stream(float_type, rows.map(|row| &bytes[row * row_bytes..][..row_bytes]), x);
            for (row, value) in rows.into_iter().zip(values) {
                // SAFETY: parts have different rows, and `y` is borrowed until the team has run.
                unsafe { place.write(0, row, value) };
            }
        }
    }

    fn part(&self, (thread, part, parts): (usize, usize, usize), x: &[f32], n: usize, place: Place) {
        let (isa, matrix, cols) = (self.isa, &self.matrix, self.matrix.cols());
        let float_type = matrix.float_type();
        let tail = cols / LANES * LANES..cols;
        let scratch = &mut *self.scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = &mut scratch.lanes[..OCTETS * n];
        for rows in far_rows::<ROWS>(part_of(matrix.rows(), part, parts)) {
            let bytes = rows.map(|row| matrix.row(row));
            lanes.fill([Octet::default(); ROWS]);
            for columns in panels(cols) {
                let span = float_type.bytes_of(columns.start)..float_type.bytes_of(columns.end);
                let bytes = bytes.map(|bytes| &bytes[span.clone()]);
                isa.decode(float_type, bytes, columns.len(), &mut scratch.panel);
                let x = &self.packed[n * columns.start / WIDTH..n * columns.end / WIDTH];
                isa.panel(&scratch.panel, columns.len(), x, lanes);
            }
            let mut last = [[0.0; LANES]; ROWS];
            for (last, bytes) in last.iter_mut().zip(bytes) {
                float_type.decode(&bytes[float_type.bytes_of(tail.start)..], &mut last[..tail.len()]);
            }
            for (column, x) in x.chunks_exact(cols).enumerate() {
                let values = isa.finish(&last, &x[tail.clone()], lanes, column);
                for (row, value) in rows.into_iter().zip(values) {
                    // SAFETY: parts have different rows, and `y` is borrowed until the team has run.
                    unsafe { place.write(column, row, value) };
                }
            }
        }
    }
}

/// Products of Q8_0, block by block.
struct InBlocks<'a, T> {
    isa: T,
    matrix: FloatMatrix<'a>,
    n_max: usize,
    team: Arc<Team>,
    /// `[n_max, cols]`
    q: Vec<i8>,
    /// `[n_max, cols / 32]`
    d: Vec<f32>,
}

impl<T: FloatKernels> FloatMatmul for InBlocks<'_, T> {
    fn matmul_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        let n = checks::batch_of(("x", x.len()), ("y", y.len()), (rows, cols), self.n_max)?;
        let (q, d) = (&mut self.q[..n * cols], &mut self.d[..n * cols / BLOCK]);
        self.isa.quantize_q8_0(x, q, d);
        let (isa, matrix, team, q, d) = (self.isa, &self.matrix, &self.team, &*q, &*d);
        let place = Place::of(y, rows);
        let parts = n_parts(rows, team.threads());
        team.share(parts, &|_, part| {
            for rows in far_rows::<Q8_ROWS>(part_of(rows, part, parts)) {
                let bytes = rows.map(|row| matrix.row(row));
                for (column, (q, d)) in q.chunks_exact(cols).zip(d.chunks_exact(cols / BLOCK)).enumerate() {
                    let values = isa.q8_0(bytes, q, d);
                    for (row, value) in rows.into_iter().zip(values) {
                        // SAFETY: parts have different rows, and `y` is borrowed until the team has run.
                        unsafe { place.write(column, row, value) };
                    }
                }
            }
        });
        Ok(())
    }
}
