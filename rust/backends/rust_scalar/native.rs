//! What native float products are held against (`docs/NUMERICS.md`): the stored weights with x rounded to their type, every
//! product and sum in f64. Hardware rounds on the way; this does not, so there is nothing of an order in it.

use super::NAME;
use crate::backends::{BackendError, FloatMatmul, checks};
use crate::bitnet::model::{FloatMatrix, FloatType};
use half::{bf16, f16};

/// The product of a matrix of F16 or BF16 with up to `n_max` rows.
pub(super) fn prepare(
    matrix: FloatMatrix<'_>,
    n_max: usize,
) -> Result<Box<dyn FloatMatmul + '_>, BackendError> {
    checks::native_type(NAME, matrix.float_type())?;
    let row = checks::zeros(NAME, 1, matrix.cols())?;
    let x = checks::zeros(NAME, n_max, matrix.cols())?;
    let mut native = Native { matrix, n_max, largest: 0.0, row, x };
    for row in 0..matrix.rows() {
        matrix.float_type().decode(matrix.row(row), &mut native.row);
        let finite = native.row.iter().map(|w| w.abs()).filter(|w| w.is_finite());
        native.largest = finite.fold(native.largest, f32::max);
    }
    Ok(Box::new(native))
}

struct Native<'a> {
    matrix: FloatMatrix<'a>,
    n_max: usize,
    /// The largest finite magnitude of the matrix.
    largest: f32,
    row: Vec<f32>,
    /// Rounded, `[n_max, cols]`.
    x: Vec<f64>,
}

impl FloatMatmul for Native<'_> {
    fn matmul_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        let n = checks::batch_of(("x", x.len()), ("y", y.len()), (rows, cols), self.n_max)?;
        for (x, rounded) in x.chunks_exact(cols).zip(self.x.chunks_exact_mut(cols)) {
            match self.matrix.float_type() {
                FloatType::F16 => round_to_f16(x, self.largest, rounded),
                _ => {
                    rounded.iter_mut().zip(x).for_each(|(rounded, &x)| *rounded = bf16::from_f32(x).to_f64())
                }
            }
        }
        for row in 0..rows {
            self.matrix.float_type().decode(self.matrix.row(row), &mut self.row);
            for column in 0..n {
                let products = self.row.iter().zip(&self.x[column * cols..][..cols]);
                y[column * rows + row] = products.map(|(&w, &x)| f64::from(w) * x).sum::<f64>() as f32;
            }
        }
        Ok(())
    }
}

/// Rounds `x * 2^e` to F16, and takes the power of two back.
fn round_to_f16(x: &[f32], largest_weight: f32, rounded: &mut [f64]) {
    let finite = x.iter().all(|x| x.is_finite());
    let largest_x = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let exponent = if finite { scale_exponent(largest_weight, largest_x) } else { 0 };
    let scale = 2.0_f64.powi(exponent);
    for (rounded, &x) in rounded.iter_mut().zip(x) {
        *rounded = f16::from_f32((f64::from(x) * scale) as f32).to_f64() / scale;
    }
}

/// The e of `docs/NUMERICS.md`: nothing overflows, and products are as large as that allows.
fn scale_exponent(largest_weight: f32, largest_x: f32) -> i32 {
    let (a, b) = (exponent_above(largest_weight, -14), exponent_above(largest_x, -126));
    (15 - b).min(10 - a - b)
}

/// The smallest e, and no smaller than `least`, with `value < 2^e`.
fn exponent_above(value: f32, least: i32) -> i32 {
    let mut exponent = least;
    while f64::from(value) >= 2.0_f64.powi(exponent) {
        exponent += 1;
    }
    exponent
}
