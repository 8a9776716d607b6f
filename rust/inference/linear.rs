//! The linear layers of a model, over the products of any backend.
//!
//! ```text
//! for each matrix that reads x:
//!     x not quantised yet by the rule of its format?   s = 127 / max |x|,  q = round(x * s)      once for q, k and v
//!     dot = codes * q                                  the backend's part, exact
//!     y = f32(dot) / s * w_scale,  y *= scale tensor
//! ```
//! A backend that offers whole linear layers only is given x instead. Both ways give the same bits.

use super::{EngineError, zeros};
use crate::backends::vector::VectorLoops;
use crate::backends::{Backend, BackendError, Matmul};
use crate::bitnet::formats::{WeightFormat, Weights};
use crate::team::Team;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    dot: Vec<i32>,
}

impl Codes {
    /// For up to `n_max` rows of at most `cols` inputs and `rows` outputs.
    pub(super) fn new(n_max: usize, cols: usize, rows: usize) -> Result<Self, EngineError> {
        Ok(Self {
            q: zeros("activation codes", n_max, cols)?,
            scale: zeros("activation scales", n_max, 1)?,
            dot: zeros("integer products", n_max, rows)?,
        })
    }
}

/// `y` = each matrix times the rows of `x` `[n, cols]`, which all of them read. `position` is that of the first row.
pub(super) fn project(
    tools: &Tools,
    codes: &mut Codes,
    x: &[f32],
    position: usize,
    targets: &mut [(&mut Linear<'_>, &mut [f32])],
) -> Result<(), EngineError> {
    let mut rule = None;
    for (linear, y) in targets {
        let (rows, cols) = (linear.rows, linear.cols);
        let n = x.len() / cols;
        let non_finite = |name: &str, index: usize| EngineError::NonFinite {
            at: name.to_string(),
            position: position + index / cols,
        };
        if linear.integers {
            let (q, scale) = (&mut codes.q[..x.len()], &mut codes.scale[..n]);
            if rule != Some(linear.format) {
                quantize(tools, linear.format, x, q, scale)
                    .map_err(|index| non_finite(&linear.name, index))?;
                rule = Some(linear.format);
            }
            let dot = &mut codes.dot[..n * rows];
            let product = linear.matmul.matmul_i8_i32(q, dot);
            product.map_err(|source| EngineError::Product { name: linear.name.clone(), source })?;
            let (dot, scale) = (&*dot, &*scale);
            tools.team.for_each_row(y, rows, &|_, row, y| {
                tools.loops.rescale(&dot[row * rows..][..rows], scale[row], linear.weight_scale, y);
            });
        } else {
            linear.matmul.linear_f32_f32(x, y).map_err(|source| match source {
                BackendError::NonFinite { index, .. } => non_finite(&linear.name, index),
                source => EngineError::Product { name: linear.name.clone(), source },
            })?;
        }
        if let Some(after) = linear.after {
            y.iter_mut().for_each(|y| *y *= after);
        }
    }
    Ok(())
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
