//! The linear layer around any integer product on any instruction set:
//!
//! ```text
//! every x finite?  else refuse, before any output is written
//! for each activation row:   s = 127 / max|x|    q = round(x * s)
//! dot = codes * q            exact, the kernel's part
//! for each activation row:   y = f32(dot) / s * w_scale
//! ```
//!
//! The largest magnitudes found by the scan for bad values are the ones the scales need, so the floats are read
//! twice in all. Scratch for `n_max` rows is allocated once.
//!
//! On several threads weight rows are divided into parts, a few for each thread; whoever computes a part has room there
//! for what the kernel derives from activations, and scales what it multiplied. Two or more activation rows are
//! quantised by all threads, row by row.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bitnet::formats::{Layout, WeightFormat, Weights};
use crate::team::{Divided, Outputs, Team};

use super::super::{BackendError, Matmul, Parts, checks};
use super::isa::{Isa, Made};
use super::{Product, activation_scale, non_finite};

/// Parts for each of several threads: what one of them does not get to is left to the others.
const PARTS_PER_THREAD: usize = 4;
/// Code bytes of a part at least: some microseconds of work.
const LEAST_PART_BYTES: usize = 64 << 10;

/// Scratch, waiting for its kernel.
pub(super) struct Linear<T> {
    isa: T,
    layout: Layout,
    weight_scale: f32,
    n_max: usize,
    /// `[n_max, cols]`
    q: Vec<i8>,
    /// `[n_max]`: the largest magnitude of each row, then its scale.
    scale: Vec<f32>,
}

/// Some weight rows.
struct Part<'a> {
    product: Box<dyn Product + 'a>,
    /// `[n_max, rows of the part]`
    dot: Vec<i32>,
}

struct Layer<'a, T> {
    linear: Linear<T>,
    /// Each locked by the one thread that computes it.
    parts: Vec<Mutex<Part<'a>>>,
    /// Where the rows of each part end.
    ends: Vec<usize>,
    team: Arc<Team>,
}

impl<T: Isa> Linear<T> {
    /// Allocates for up to `n_max` activation rows.
    pub(super) fn new(isa: T, weights: &Weights<'_>, n_max: usize) -> Result<Self, BackendError> {
        let layout = *weights.layout();
        Ok(Self {
            isa,
            layout,
            weight_scale: weights.scale(),
            n_max,
            q: checks::zeros(T::NAME, n_max, layout.cols())?,
            scale: checks::zeros(T::NAME, n_max, 1)?,
        })
    }

    /// Complete with kernels for `threads` threads, whole groups of `whole` weight rows each.
    pub(super) fn with_parts<'a>(
        self,
        threads: usize,
        whole: usize,
        part: impl Fn(std::ops::Range<usize>) -> Made<'a>,
    ) -> Result<Box<dyn Matmul + 'a>, BackendError>
    where
        T: 'a,
    {
        let team = Team::shared(threads)
            .map_err(|why| checks::unsupported(T::NAME, format!("{threads} threads here: {why}")))?;
        let groups = self.layout.rows().div_ceil(whole);
        let n_parts = n_parts(&self.layout, threads).min(groups);
        let ends: Vec<usize> =
            (1..=n_parts).map(|count| (groups * count / n_parts * whole).min(self.layout.rows())).collect();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let parts: Result<_, BackendError> = starts
            .zip(&ends)
            .map(|(start, &end)| {
                let dot = checks::zeros(T::NAME, self.n_max, end - start)?;
                Ok(Mutex::new(Part { dot, product: part(start..end)? }))
            })
            .collect();
        Ok(Box::new(Layer { linear: self, parts: parts?, ends, team }))
    }
}

/// Into how many parts the rows of a matrix are divided. Each part of TL1 and TL2 makes tables of its own, so those have
/// no more than there are threads.
fn n_parts(layout: &Layout, threads: usize) -> usize {
    if threads == 1 || layout.format() != WeightFormat::I2S {
        return threads;
    }
    (layout.code_bytes() / LEAST_PART_BYTES).clamp(threads, threads * PARTS_PER_THREAD)
}

impl<T: Isa> Linear<T> {
    /// Codes and scales of `x` `[n, cols]`, unless there is a NaN or an infinity.
    fn quantize(&mut self, x: &[f32], team: &Team) -> Result<(), BackendError> {
        let (isa, format, cols) = (self.isa, self.layout.format(), self.layout.cols());
        let n = x.len() / cols;
        let (q, scale) = (&mut self.q[..n * cols], &mut self.scale[..n]);
        // The first value that is not finite, of all rows.
        let bad = AtomicUsize::new(usize::MAX);
        team.for_each_row(scale, 1, &|_, row, scale| match isa.max_abs(&x[row * cols..][..cols]) {
            Ok(max_abs) => scale[0] = max_abs,
            Err(index) => {
                bad.fetch_min(row * cols + index, Ordering::Relaxed);
            }
        });
        if let index @ 0..usize::MAX = bad.into_inner() {
            return Err(non_finite(x, index));
        }
        team.for_each_row_pair((q, cols), (scale, 1), &|_, row, q, scale| {
            scale[0] = activation_scale(format, scale[0]);
            isa.quantize(&x[row * cols..][..cols], scale[0], q);
        });
        Ok(())
    }
}

/// A kernel that panicked left nothing half changed that the next run would not overwrite.
fn lock<'p, 'a>(part: &'p Mutex<Part<'a>>) -> MutexGuard<'p, Part<'a>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Isa> Parts for Layer<'_, T> {
    fn ends(&self) -> &[usize] {
        &self.ends
    }

    fn run(&self, part: usize, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        let rows = self.ends[part] - part.checked_sub(1).map_or(0, |before| self.ends[before]);
        assert!(n <= self.linear.n_max && q.len() == n * self.linear.layout.cols() && out.rows() == rows);
        lock(&self.parts[part]).product.run(q, n, out);
    }
}

impl<T: Isa> Matmul for Layer<'_, T> {
    fn matmul_i8_i32(&mut self, q: &[i8], out: &mut [i32]) -> Result<(), BackendError> {
        let Linear { layout, n_max, .. } = &self.linear;
        let n = checks::batch(("q", q.len()), ("out", out.len()), layout, *n_max)?;
        match &mut *self.parts {
            _ if n == 0 => {}
            // Alone it needs neither a lock nor a round.
            [part] => {
                let part = part.get_mut().unwrap_or_else(PoisonError::into_inner);
                part.product.run(q, n, &mut Outputs::whole(out, layout.rows()));
            }
            _ => {
                let out = Divided::new(out, layout.rows(), &self.ends);
                self.team.for_each_part([out], &|_, _, part, out| self.run(part, q, n, out));
            }
        }
        Ok(())
    }

    fn linear_f32_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let n = checks::batch(("x", x.len()), ("y", y.len()), &self.linear.layout, self.linear.n_max)?;
        if n == 0 {
            return Ok(());
        }
        self.linear.quantize(x, &self.team)?;
        let Linear { isa, layout, weight_scale, q, scale, .. } = &self.linear;
        let q = &q[..n * layout.cols()];
        let y = Divided::new(y, layout.rows(), &self.ends);
        self.team.for_each_part([y], &|_, _, part, y| {
            let Part { product, dot } = &mut *lock(&self.parts[part]);
            let rows = y.rows();
            let mut dot = Outputs::whole(&mut dot[..n * rows], rows);
            product.run(q, n, &mut dot);
            for (i, &scale) in scale[..n].iter().enumerate() {
                isa.rescale(dot.of(i), scale, *weight_scale, y.of(i));
            }
        });
        Ok(())
    }

    fn parts(&self) -> Option<&dyn Parts> {
        Some(self)
    }

    fn prepared_bytes(&self) -> Option<usize> {
        let Linear { q, scale, .. } = &self.linear;
        let of_part = |part: &Mutex<Part<'_>>| {
            let part = lock(part);
            size_of_val(&*part.dot) + part.product.bytes()
        };
        Some(size_of_val(&**q) + size_of_val(&**scale) + self.parts.iter().map(of_part).sum::<usize>())
    }
}
