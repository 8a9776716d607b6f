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
//! On several threads each has some of the weight rows, and room of its own for what it derives from activations; it
//! scales what it multiplied. Two or more activation rows are quantised by all threads, row by row.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bitnet::formats::{Layout, Weights};
use crate::team::Team;

use super::super::{BackendError, Matmul, checks};
use super::isa::Isa;
use super::outputs::{Outputs, Shared};
use super::{Product, activation_scale, non_finite};

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
    /// `[n_max, rows]`
    dot: Vec<i32>,
}

/// Weight rows and the kernel that has them.
struct Part<'a> {
    rows: Range<usize>,
    /// Locked by the one thread whose part it is.
    product: Mutex<Box<dyn Product + 'a>>,
}

struct Layer<'a, T> {
    linear: Linear<T>,
    /// One for each thread.
    parts: Vec<Part<'a>>,
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
            dot: checks::zeros(T::NAME, n_max, layout.rows())?,
        })
    }

    /// Complete with a kernel for each of `threads` threads, whole groups of `whole` weight rows each.
    pub(super) fn with_parts<'a>(
        self,
        threads: usize,
        whole: usize,
        part: impl Fn(Range<usize>) -> Box<dyn Product + 'a>,
    ) -> Result<Box<dyn Matmul + 'a>, BackendError>
    where
        T: 'a,
    {
        let team = Team::shared(threads)
            .map_err(|why| checks::unsupported(T::NAME, format!("{threads} threads here: {why}")))?;
        let rows = self.layout.rows();
        let groups = rows.div_ceil(whole);
        let begin = |thread: usize| (groups * thread / threads * whole).min(rows);
        let parts = (0..threads).map(|thread| {
            let rows = begin(thread)..begin(thread + 1);
            Part { rows: rows.clone(), product: Mutex::new(part(rows)) }
        });
        Ok(Box::new(Layer { linear: self, parts: parts.collect(), team }))
    }
}

/// A kernel that panicked left nothing half changed that the next run would not overwrite.
fn lock<'p, 'a>(product: &'p Mutex<Box<dyn Product + 'a>>) -> MutexGuard<'p, Box<dyn Product + 'a>> {
    product.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part<'_> {
    /// Its rows of `out` `[n, rows]`, then `after` on them, thread by thread.
    ///
    /// # Safety
    /// Nobody else reads or writes these rows meanwhile.
    unsafe fn run(&self, q: &[i8], n: usize, out: Shared<'_, i32>, rows: usize) {
        if !self.rows.is_empty() {
            // SAFETY: as the caller vouches.
            let mut out = unsafe { Outputs::part(out, rows, self.rows.clone()) };
            lock(&self.product).run(q, n, &mut out);
        }
    }
}

impl<T: Isa> Linear<T> {
    /// Codes and scales of `x` `[n, cols]`, unless there is a NaN or an infinity.
    fn quantize(&mut self, x: &[f32], team: &Team) -> Result<(), BackendError> {
        let (isa, format, cols) = (self.isa, self.layout.format(), self.layout.cols());
        let n = x.len() / cols;
        let (q, scale) = (Shared::new(&mut self.q), Shared::new(&mut self.scale));
        // The first value that is not finite, of all rows.
        let bad = AtomicUsize::new(usize::MAX);
        let scan = |row: usize| match isa.max_abs(&x[row * cols..][..cols]) {
            // SAFETY: each row is looked at by one thread.
            Ok(max_abs) => unsafe { scale.part(row..row + 1)[0] = max_abs },
            Err(index) => {
                bad.fetch_min(row * cols + index, Ordering::Relaxed);
            }
        };
        let round = |row: usize| {
            // SAFETY: each row is quantised by one thread.
            let (q, scale) =
                unsafe { (q.part(row * cols..(row + 1) * cols), &mut scale.part(row..row + 1)[0]) };
            *scale = activation_scale(format, *scale);
            isa.quantize(&x[row * cols..][..cols], *scale, q);
        };
        for step in [&scan as &(dyn Fn(usize) + Sync), &round] {
            if n == 1 {
                step(0);
            } else {
                team.run(&|thread| (thread..n).step_by(team.threads()).for_each(step));
            }
            if let index @ 0..usize::MAX = bad.load(Ordering::Relaxed) {
                return Err(non_finite(x, index));
            }
        }
        Ok(())
    }
}

impl<T: Isa> Matmul for Layer<'_, T> {
    fn matmul_i8_i32(&mut self, q: &[i8], out: &mut [i32]) -> Result<(), BackendError> {
        let Linear { layout, n_max, .. } = &self.linear;
        let n = checks::batch(("q", q.len()), ("out", out.len()), layout, *n_max)?;
        if n > 0 {
            let out = Shared::new(out);
            // SAFETY: the parts have disjoint rows, and each is run by one thread.
            self.team.run(&|thread| unsafe { self.parts[thread].run(q, n, out, layout.rows()) });
        }
        Ok(())
    }

    fn linear_f32_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let Self { linear, parts, team } = self;
        let n = checks::batch(("x", x.len()), ("y", y.len()), &linear.layout, linear.n_max)?;
        if n == 0 {
            return Ok(());
        }
        linear.quantize(x, team)?;
        let Linear { isa, layout, weight_scale, q, scale, dot, .. } = linear;
        let (rows, q) = (layout.rows(), &q[..n * layout.cols()]);
        let (dot, y) = (Shared::new(&mut dot[..n * rows]), Shared::new(y));
        team.run(&|thread| {
            let part = &parts[thread];
            // SAFETY: the parts have disjoint rows, and each is run and scaled by one thread.
            let (mut dot, mut y) = unsafe {
                part.run(q, n, dot, rows);
                (Outputs::part(dot, rows, part.rows.clone()), Outputs::part(y, rows, part.rows.clone()))
            };
            for (i, &scale) in scale[..n].iter().enumerate() {
                isa.rescale(dot.of(i), scale, *weight_scale, y.of(i));
            }
        });
        Ok(())
    }

    fn prepared_bytes(&self) -> Option<usize> {
        let Linear { q, scale, dot, .. } = &self.linear;
        let scratch = size_of_val(&**q) + size_of_val(&**scale) + size_of_val(&**dot);
        Some(scratch + self.parts.iter().map(|part| lock(&part.product).bytes()).sum::<usize>())
    }
}
