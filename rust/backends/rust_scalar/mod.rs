//! `rust-scalar`, the oracle: every operation as the obvious loop over [`crate::bitnet`], for every format.
//! It is never optimised; when another backend disagrees with it, the other one is wrong.

use crate::bitnet::formats::{self, Layout, WeightFormat, Weights};
use crate::bitnet::quant::{absmax, absmean};

mod float;
mod native;

use super::{
    Arithmetic, Availability, Backend, BackendError, BuildInfo, FloatMatmul, Matmul, WeightRule, build_info,
    checks,
};
use crate::bitnet::model::FloatMatrix;

const NAME: &str = "rust-scalar";

/// The oracle in plain Rust; available everywhere, one thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustScalar;

impl Backend for RustScalar {
    fn name(&self) -> &str {
        NAME
    }

    fn isa(&self) -> &str {
        "scalar"
    }

    fn build_info(&self) -> BuildInfo {
        build_info::build_info()
    }

    fn availability(&self) -> Availability {
        Availability::Ready
    }

    fn quantize_weights(
        &self,
        layout: &Layout,
        rule: WeightRule,
        src: &[f32],
        dst: &mut [u8],
    ) -> Result<f32, BackendError> {
        checks::length("src", src.len(), layout.n_weights())?;
        checks::length("dst", dst.len(), layout.packed_bytes())?;
        let mut codes = checks::zeros::<i8>(NAME, layout.rows(), layout.cols())?;
        let scale = match rule {
            WeightRule::AbsMean => absmean::absmean(src, &mut codes)?,
            WeightRule::MaxAbs => absmean::max_abs(src, &mut codes)?,
        };
        formats::pack(layout, &codes, scale, dst)?;
        Ok(scale)
    }

    fn dequantize_weights(&self, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError> {
        checks::length("dst", dst.len(), weights.layout().n_weights())?;
        for (value, code) in dst.iter_mut().zip(unpacked(weights)?) {
            *value = f32::from(code) * weights.scale();
        }
        Ok(())
    }

    fn quantize_activations(
        &self,
        x: &[f32],
        cols: usize,
        q: &mut [i8],
        scale: &mut [f32],
        sum: &mut [i32],
    ) -> Result<(), BackendError> {
        checks::activations(NAME, cols, (x.len(), q.len(), scale.len(), sum.len()))?;
        all_finite(x)?;
        for row in 0..scale.len() {
            let span = row * cols..(row + 1) * cols;
            let activation = absmax::quantize_row(&x[span.clone()], &mut q[span])?;
            (scale[row], sum[row]) = (activation.scale, activation.sum);
        }
        Ok(())
    }

    fn prepare_matmul<'a>(
        &'a self,
        weights: Weights<'a>,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn Matmul + 'a>, BackendError> {
        let layout = *weights.layout();
        checks::prepare(NAME, &layout, threads, 1)?;
        Ok(Box::new(ScalarMatmul {
            layout,
            n_max,
            codes: unpacked(&weights)?,
            scale: weights.scale(),
            q: checks::zeros(NAME, 1, layout.cols())?,
        }))
    }

    fn prepare_float_matmul<'a>(
        &'a self,
        matrix: FloatMatrix<'a>,
        arithmetic: Arithmetic,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
        checks::threads(NAME, threads, 1)?;
        match arithmetic {
            Arithmetic::F32 => float::prepare(matrix, n_max),
            Arithmetic::Native => native::prepare(matrix, n_max),
        }
    }
}

/// Unpacked codes and room for one row of quantised activations.
struct ScalarMatmul {
    layout: Layout,
    n_max: usize,
    codes: Vec<i8>,
    scale: f32,
    q: Vec<i8>,
}

impl Matmul for ScalarMatmul {
    fn matmul_i8_i32(&mut self, q: &[i8], out: &mut [i32]) -> Result<(), BackendError> {
        let n = checks::batch(("q", q.len()), ("out", out.len()), &self.layout, self.n_max)?;
        let (rows, cols) = (self.layout.rows(), self.layout.cols());
        for column in 0..n {
            for row in 0..rows {
                out[column * rows + row] =
                    dot(&self.codes[row * cols..][..cols], &q[column * cols..][..cols]);
            }
        }
        Ok(())
    }

    fn linear_f32_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let n = checks::batch(("x", x.len()), ("y", y.len()), &self.layout, self.n_max)?;
        all_finite(x)?;
        let (rows, cols) = (self.layout.rows(), self.layout.cols());
        for column in 0..n {
            let x_row = &x[column * cols..][..cols];
            let activation = match self.layout.format() {
                WeightFormat::I2S => absmax::quantize_row(x_row, &mut self.q)?,
                WeightFormat::Tl1 | WeightFormat::Tl2 => absmax::quantize_row_tl(x_row, &mut self.q)?,
            };
            for row in 0..rows {
                let dot = dot(&self.codes[row * cols..][..cols], &self.q);
                y[column * rows + row] = dot as f32 / activation.scale * self.scale;
            }
        }
        Ok(())
    }

    fn prepared_bytes(&self) -> Option<usize> {
        Some(self.codes.len() + self.q.len())
    }
}

/// Exact for up to [`checks::MAX_COLS`] columns.
fn dot(codes: &[i8], q: &[i8]) -> i32 {
    codes.iter().zip(q).map(|(&code, &q)| i32::from(code) * i32::from(q)).sum()
}

fn unpacked(weights: &Weights<'_>) -> Result<Vec<i8>, BackendError> {
    let mut codes = checks::zeros(NAME, weights.layout().rows(), weights.layout().cols())?;
    formats::unpack(weights, &mut codes)?;
    Ok(codes)
}

fn all_finite(x: &[f32]) -> Result<(), BackendError> {
    match x.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(BackendError::NonFinite { index, value: x[index] }),
        None => Ok(()),
    }
}
