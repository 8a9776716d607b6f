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

use crate::bitnet::formats::{Layout, Weights};

use super::super::{BackendError, Matmul, checks};
use super::{Elementwise, Product, activation_scale, non_finite};

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

impl<T: Elementwise> Linear<T> {
    /// Allocates for up to `n_max` activation rows.
    pub(super) fn new(
        backend: &str,
        isa: T,
        weights: &Weights<'_>,
        n_max: usize,
    ) -> Result<Self, BackendError> {
        let layout = *weights.layout();
        Ok(Self {
            isa,
            layout,
            weight_scale: weights.scale(),
            n_max,
            q: checks::zeros(backend, n_max, layout.cols())?,
            scale: checks::zeros(backend, n_max, 1)?,
            dot: checks::zeros(backend, n_max, layout.rows())?,
        })
    }

    /// Complete with the kernel.
    pub(super) fn with<'a>(self, product: Box<dyn Product + 'a>) -> Box<dyn Matmul + 'a>
    where
        T: 'a,
    {
        Box::new(Layer { linear: self, product })
    }
}

struct Layer<'a, T> {
    linear: Linear<T>,
    product: Box<dyn Product + 'a>,
}

impl<T: Elementwise> Matmul for Layer<'_, T> {
    fn matmul_i8_i32(&mut self, q: &[i8], out: &mut [i32]) -> Result<(), BackendError> {
        let Linear { layout, n_max, .. } = &self.linear;
        let n = checks::batch(("q", q.len()), ("out", out.len()), layout, *n_max)?;
        if n > 0 {
            self.product.run(q, n, out);
        }
        Ok(())
    }

    fn linear_f32_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let Linear { isa, layout, weight_scale, n_max, q, scale, dot } = &mut self.linear;
        let n = checks::batch(("x", x.len()), ("y", y.len()), layout, *n_max)?;
        if n == 0 {
            return Ok(());
        }
        let (rows, cols) = (layout.rows(), layout.cols());
        let (q, scale, dot) = (&mut q[..n * cols], &mut scale[..n], &mut dot[..n * rows]);
        for (row, (x_row, max_abs)) in x.chunks_exact(cols).zip(&mut *scale).enumerate() {
            *max_abs = isa.max_abs(x_row).map_err(|index| non_finite(x, row * cols + index))?;
        }
        for ((x, q), scale) in x.chunks_exact(cols).zip(q.chunks_exact_mut(cols)).zip(&mut *scale) {
            *scale = activation_scale(layout.format(), *scale);
            isa.quantize(x, *scale, q);
        }
        self.product.run(q, n, dot);
        for ((dot, scale), y) in dot.chunks_exact(rows).zip(scale).zip(y.chunks_exact_mut(rows)) {
            isa.rescale(dot, *scale, *weight_scale, y);
        }
        Ok(())
    }
}
