//! The linear layers of a model, over the products of any backend.
//!
//! ```text
//! for each matrix that reads x:
//!     x not quantised yet by the rule of its format?   s = 127 / max |x|,  q = round(x * s)      once for q, k and v
//!     dot = codes * q                                  the backend's part, exact
//!     y = f32(dot) / s * w_scale,  y *= scale tensor
//! ```
//! Where the backend offers its products in parts, every part of every matrix that reads x is one piece of one round of
//! the team, scaled by whoever multiplied it. A backend that offers whole linear layers only is given x instead. All ways
//! give the same bits.

use super::{EngineError, zeros};
use crate::backends::vector::VectorLoops;
use crate::backends::{Backend, BackendError, Matmul, Parts};
use crate::bitnet::formats::{WeightFormat, Weights};
use crate::team::{Divided, Outputs, Team};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What every part of a forward pass computes with.
pub(super) struct Tools {
    pub(super) team: Arc<Team>,
    pub(super) loops: &'static dyn VectorLoops,
}

/// A ternary matrix, prepared.
pub(super) struct Linear<'a> {
    name: String,
    matmul: Box<dyn Matmul + 'a>,
    rows: usize,
    cols: usize,
    format: WeightFormat,
    weight_scale: f32,
    /// Of the `.scale` tensor.
    after: Option<f32>,
    /// Whether the backend offers integer products.
    integers: bool,
}

impl<'a> Linear<'a> {
    /// Prepares `weights` for up to `n_max` rows, on `threads` threads or, where the backend runs on one only, on one.
    pub(super) fn prepare(
        backend: &'a dyn Backend,
        name: &str,
        weights: Weights<'a>,
        after: Option<f32>,
        (n_max, threads): (usize, usize),
    ) -> Result<Self, EngineError> {
        let product = |source| EngineError::Product { name: name.to_string(), source };
        let mut prepared = backend.prepare_matmul(weights, n_max, threads);
        if threads > 1 && matches!(prepared, Err(BackendError::Unsupported { .. })) {
            prepared = backend.prepare_matmul(weights, n_max, 1);
        }
        let mut matmul = prepared.map_err(product)?;
        // No rows are no work: what comes back is only whether the operation is offered.
        let integers = match matmul.matmul_i8_i32(&[], &mut []) {
            Ok(()) => true,
            Err(BackendError::Unsupported { .. }) => false,
            Err(source) => return Err(product(source)),
        };
        let layout = weights.layout();
        Ok(Self {
            name: name.to_string(),
            matmul,
            rows: layout.rows(),
            cols: layout.cols(),
            format: layout.format(),
            weight_scale: weights.scale(),
            after,
            integers,
        })
    }
}

/// Room for quantised activations and their products.
pub(super) struct Codes {
    q: Vec<i8>,
    scale: Vec<f32>,
    /// For each thread.
    dots: Vec<Mutex<Vec<i32>>>,
}

impl Codes {
    /// For up to `n_max` rows of at most `cols` inputs, of which a thread multiplies with at most `rows` outputs at once.
    pub(super) fn new(n_max: usize, cols: usize, rows: usize, threads: usize) -> Result<Self, EngineError> {
        let dots: Result<_, EngineError> =
            (0..threads).map(|_| Ok(Mutex::new(zeros("integer products", n_max, rows)?))).collect();
        Ok(Self {
            q: zeros("activation codes", n_max, cols)?,
            scale: zeros("activation scales", n_max, 1)?,
            dots: dots?,
        })
    }
}

/// A matrix and its outputs.
pub(super) type Target<'t, 'a> = (&'t mut Linear<'a>, &'t mut [f32]);

/// `y` = each matrix times the rows of `x` `[n, cols]`, which all of them read. `position` is that of the first row.
pub(super) fn project<const N: usize>(
    tools: &Tools,
    codes: &mut Codes,
    x: &[f32],
    position: usize,
    targets: [Target<'_, '_>; N],
) -> Result<(), EngineError> {
    let format = targets[0].0.format;
    if targets.iter().all(|(linear, _)| linear.format == format && linear.matmul.parts().is_some()) {
        targets[0].0.quantize(tools, codes, x, position)?;
        round(tools, codes, targets);
        return Ok(());
    }
    let mut rule = None;
    for (linear, y) in targets {
        if linear.integers && rule != Some(linear.format) {
            linear.quantize(tools, codes, x, position)?;
            rule = Some(linear.format);
        }
        if linear.matmul.parts().is_some() {
            round(tools, codes, [(linear, y)]);
        } else {
            linear.whole(tools, codes, x, position, y)?;
        }
    }
    Ok(())
}

/// One round of the team over every part of every target; `codes` hold what they read.
fn round<const N: usize>(tools: &Tools, codes: &Codes, targets: [Target<'_, '_>; N]) {
    let (rows, cols) = (targets[0].0.rows, targets[0].0.cols);
    let n = targets[0].1.len() / rows;
    let (q, scale) = (&codes.q[..n * cols], &codes.scale[..n]);
    let targets = targets.map(|(linear, y)| (&*linear, y));
    let of = targets.each_ref().map(|&(linear, _)| (linear.offered(), linear.weight_scale, linear.after));
    let matrices = targets.map(|(linear, y)| Divided::new(y, linear.rows, linear.offered().ends()));
    tools.team.for_each_part(matrices, &|thread, which, part, y| {
        let (parts, weight_scale, after) = of[which];
        // Only this thread locks it; a panic of an earlier call left nothing in it that is read.
        let mut dot = codes.dots[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let rows = y.rows();
        let mut dot = Outputs::whole(&mut dot[..n * rows], rows);
        parts.run(part, q, n, &mut dot);
        for (row, &scale) in scale.iter().enumerate() {
            let y = y.of(row);
            tools.loops.rescale(dot.of(row), scale, weight_scale, y);
            if let Some(after) = after {
                y.iter_mut().for_each(|y| *y *= after);
            }
        }
    });
}

impl Linear<'_> {
    /// Bytes that preparing took beyond the weights.
    pub(super) fn prepared_bytes(&self) -> Option<usize> {
        self.matmul.prepared_bytes()
    }

    /// The parts of its product, where whoever calls has seen that they are offered.
    fn offered(&self) -> &dyn Parts {
        self.matmul.parts().expect("products in parts")
    }

    /// Outputs that a thread multiplies with at once, at most.
    pub(super) fn widest_part(&self) -> usize {
        let Some(parts) = self.matmul.parts() else { return self.rows };
        let starts = std::iter::once(&0).chain(parts.ends());
        starts.zip(parts.ends()).map(|(start, end)| end - start).max().unwrap_or(0)
    }

    fn non_finite(&self, position: usize, index: usize) -> EngineError {
        EngineError::NonFinite { at: self.name.clone(), position: position + index / self.cols }
    }

    /// The codes of `x` by the rule of its format.
    fn quantize(
        &self,
        tools: &Tools,
        codes: &mut Codes,
        x: &[f32],
        position: usize,
    ) -> Result<(), EngineError> {
        let (q, scale) = (&mut codes.q[..x.len()], &mut codes.scale[..x.len() / self.cols]);
        quantize(tools, self.format, x, q, scale).map_err(|index| self.non_finite(position, index))
    }

    /// `y` by products that are not offered in parts; `codes` hold those of `x`, where it reads any.
    fn whole(
        &mut self,
        tools: &Tools,
        codes: &mut Codes,
        x: &[f32],
        position: usize,
        y: &mut [f32],
    ) -> Result<(), EngineError> {
        let (rows, n) = (self.rows, x.len() / self.cols);
        if self.integers {
            let dot = &mut codes.dots[0].get_mut().unwrap_or_else(PoisonError::into_inner)[..n * rows];
            let product = self.matmul.matmul_i8_i32(&codes.q[..x.len()], dot);
            product.map_err(|source| EngineError::Product { name: self.name.clone(), source })?;
            let (dot, scale, weight_scale) = (&*dot, &codes.scale, self.weight_scale);
            tools.team.for_each_row(y, rows, &|_, row, y| {
                tools.loops.rescale(&dot[row * rows..][..rows], scale[row], weight_scale, y);
            });
        } else {
            self.matmul.linear_f32_f32(x, y).map_err(|source| match source {
                BackendError::NonFinite { index, .. } => self.non_finite(position, index),
                source => EngineError::Product { name: self.name.clone(), source },
            })?;
        }
        if let Some(after) = self.after {
            y.iter_mut().for_each(|y| *y *= after);
        }
        Ok(())
    }
}

/// The rows of `x` to codes; the index of the first NaN or infinity where there is one.
fn quantize(
    tools: &Tools,
    format: WeightFormat,
    x: &[f32],
    q: &mut [i8],
    scale: &mut [f32],
) -> Result<(), usize> {
    let cols = x.len() / scale.len();
    let bad = AtomicUsize::new(usize::MAX);
    tools.team.for_each_row_pair((q, cols), (scale, 1), &|_, row, q, scale| match tools.loops.quantize(
        format,
        &x[row * cols..][..cols],
        q,
    ) {
        Ok(found) => scale[0] = found,
        Err(index) => {
            bad.fetch_min(row * cols + index, Ordering::Relaxed);
        }
    });
    match bad.into_inner() {
        usize::MAX => Ok(()),
        index => Err(index),
    }
}
