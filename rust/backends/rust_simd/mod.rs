//! Backends in Rust with SIMD intrinsics. The generic parts (checks, activation quantisation into scratch, the
//! final scaling) are written once here; each instruction set adds its kernels.
//!
//! A kernel of one format is a [`Product`]: exact integers and nothing else. What every format shares is
//! [`Elementwise`]: the loops over floats. [`linear`] joins the two to a [`Matmul`].

mod float;
mod float_avx2;
mod i2s_avx2;
mod i2s_pack_avx2;
mod linear;
mod quantize_avx2;
mod tl1_avx2;
mod tl2_avx2;
mod tl_avx2;
mod tl_pack_avx2;

use crate::bitnet::formats::{FormatError, Layout, WeightFormat, Weights};

use super::detect::Avx2;
use super::{
    Arithmetic, Availability, Backend, BackendError, BuildInfo, FloatMatmul, Matmul, WeightRule, build_info,
    checks,
};
use crate::bitnet::model::FloatMatrix;
use linear::Linear;
use quantize_avx2::Ternary;

/// Prepared weights of one format on one instruction set: exact int32 products and nothing else. What is
/// common to every format (length checks, quantising activations, scaling) stands around it.
pub(super) trait Product {
    /// `out` `[n, rows]` = codes times `q` `[n, cols]`, signed form, exact for every int8. Lengths were checked
    /// and n >= 1 is at most the n_max given to prepare. Allocates nothing; builds its look-up tables inside.
    fn run(&mut self, q: &[i8], n: usize, out: &mut [i32]);
}

/// What a `prepare` of a kernel file answers. Codes are validated there.
pub(super) type Prepared<'a> = Result<Box<dyn Product + 'a>, FormatError>;

/// The loops over floats that every format needs, on one instruction set; bit for bit `docs/NUMERICS.md`.
/// The token that unlocks the instruction set implements it.
trait Elementwise: Copy {
    /// The largest |x|; where there is a NaN or an infinity, the index of the first one.
    fn max_abs(self, x: &[f32]) -> Result<f32, usize>;

    /// `q` = clamp(round_half_even(x * scale), -128, 127) for |x * scale| < 2^31. Returns the sum of `q`.
    fn quantize(self, x: &[f32], scale: f32, q: &mut [i8]) -> i32;

    /// `y` = f32(dot) / activation_scale * weight_scale.
    fn rescale(self, dot: &[i32], activation_scale: f32, weight_scale: f32, y: &mut [f32]);
}

/// 127 / absmax for a row whose largest magnitude is `max_abs`: the multiplier of the format's activation rule.
fn activation_scale(format: WeightFormat, max_abs: f32) -> f32 {
    if format != WeightFormat::I2S {
        let without_floor = 127.0 / max_abs;
        if without_floor.is_finite() {
            return without_floor;
        }
    }
    (127.0 / f64::from(max_abs).max(1e-5)) as f32
}

/// Index and value of the first NaN or infinity as the error that names it.
fn non_finite(x: &[f32], index: usize) -> BackendError {
    BackendError::NonFinite { index, value: x[index] }
}

const AVX2_NAME: &str = "rust-avx2";

/// AVX2, FMA and F16C kernels; ternary products on one thread, float products on any number.
#[derive(Clone, Debug)]
pub struct RustAvx2 {
    token: Result<Avx2, String>,
}

impl RustAvx2 {
    /// Looks at the CPU once.
    pub fn new() -> Self {
        Self { token: Avx2::detect() }
    }

    fn token(&self) -> Result<Avx2, BackendError> {
        self.token.clone().map_err(|why| BackendError::Unavailable { backend: AVX2_NAME.to_string(), why })
    }
}

impl Default for RustAvx2 {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for RustAvx2 {
    fn name(&self) -> &str {
        AVX2_NAME
    }

    fn isa(&self) -> &str {
        "avx2"
    }

    fn build_info(&self) -> BuildInfo {
        build_info::build_info()
    }

    fn availability(&self) -> Availability {
        match &self.token {
            Ok(_) => Availability::Ready,
            Err(why) => Availability::Unavailable(why.clone()),
        }
    }

    fn quantize_weights(
        &self,
        layout: &Layout,
        rule: WeightRule,
        src: &[f32],
        dst: &mut [u8],
    ) -> Result<f32, BackendError> {
        let token = self.token()?;
        checks::length("src", src.len(), layout.n_weights())?;
        checks::length("dst", dst.len(), layout.packed_bytes())?;
        let ternary = Ternary::of(token, rule, src).map_err(|index| non_finite(src, index))?;
        let scale_at = layout.scale_offset() - layout.code_bytes();
        let (bytes, tail) = dst.split_at_mut(layout.code_bytes());
        let nonzero = match layout.format() {
            WeightFormat::I2S => i2s_pack_avx2::pack(token, ternary, src, bytes),
            WeightFormat::Tl1 | WeightFormat::Tl2 => tl_pack_avx2::pack(token, layout, ternary, src, bytes)?,
        };
        let scale = ternary.scale(nonzero);
        tail.fill(0);
        tail[scale_at..scale_at + 4].copy_from_slice(&scale.to_le_bytes());
        Ok(scale)
    }

    fn dequantize_weights(&self, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError> {
        let token = self.token()?;
        let layout = weights.layout();
        checks::length("dst", dst.len(), layout.n_weights())?;
        match layout.format() {
            WeightFormat::I2S => i2s_pack_avx2::dequantize(token, weights, dst)?,
            WeightFormat::Tl1 | WeightFormat::Tl2 => tl_pack_avx2::dequantize(token, weights, dst)?,
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
        let token = self.token()?;
        checks::activations(AVX2_NAME, cols, (x.len(), q.len(), scale.len(), sum.len()))?;
        // All rows are looked at before anything is written; what is learnt of the first ones is kept.
        let mut known = [0.0; 256];
        for (row, values) in x.chunks_exact(cols).enumerate() {
            let max_abs = token.max_abs(values).map_err(|index| non_finite(x, row * cols + index))?;
            if let Some(known) = known.get_mut(row) {
                *known = max_abs;
            }
        }
        let outputs = q.chunks_exact_mut(cols).zip(scale).zip(sum);
        for (row, (x, ((q, scale), sum))) in x.chunks_exact(cols).zip(outputs).enumerate() {
            let known = known.get(row).copied().map_or_else(|| token.max_abs(x), Ok);
            let max_abs = known.map_err(|index| non_finite(x, index))?;
            *scale = activation_scale(WeightFormat::I2S, max_abs);
            *sum = token.quantize(x, *scale, q);
        }
        Ok(())
    }

    fn prepare_matmul<'a>(
        &'a self,
        weights: Weights<'a>,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn Matmul + 'a>, BackendError> {
        let token = self.token()?;
        checks::prepare(AVX2_NAME, weights.layout(), threads)?;
        // The scratch comes first: an absurd n_max is refused there, before a kernel allocates its own.
        let linear = Linear::new(AVX2_NAME, token, &weights, n_max)?;
        let product = match weights.layout().format() {
            WeightFormat::I2S => i2s_avx2::prepare(token, weights)?,
            WeightFormat::Tl1 => tl1_avx2::prepare(token, weights, n_max)?,
            WeightFormat::Tl2 => tl2_avx2::prepare(token, weights, n_max)?,
        };
        Ok(linear.with(product))
    }

    fn prepare_float_matmul<'a>(
        &'a self,
        matrix: FloatMatrix<'a>,
        arithmetic: Arithmetic,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
        float::prepare(AVX2_NAME, self.token()?, matrix, (arithmetic, n_max, threads))
    }

    fn quiesce(&self) {
        float::quiesce();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitnet::model::FloatType;

    /// On a CPU without AVX2 nothing but the reason may come back, whatever is called.
    #[test]
    fn without_the_token_every_call_is_unavailable() {
        let backend = RustAvx2 { token: Err("this CPU lacks avx2".to_string()) };
        let unavailable = |answer: Result<(), BackendError>| {
            let why = "this CPU lacks avx2".to_string();
            assert_eq!(answer, Err(BackendError::Unavailable { backend: "rust-avx2".to_string(), why }));
        };
        assert_eq!(backend.availability(), Availability::Unavailable("this CPU lacks avx2".to_string()));
        let layout = Layout::i2s(1, 128).unwrap();
        let mut bytes = vec![0; layout.packed_bytes()];
        let src = vec![1.0; 128];
        unavailable(backend.quantize_weights(&layout, WeightRule::AbsMean, &src, &mut bytes).map(|_| ()));
        let weights = Weights::new(layout, &bytes).unwrap();
        unavailable(backend.dequantize_weights(&weights, &mut [0.0; 128]));
        unavailable(backend.quantize_activations(&src, 128, &mut [0; 128], &mut [0.0], &mut [0]));
        unavailable(backend.prepare_matmul(weights, 1, 1).map(|_| ()));
        let matrix = FloatMatrix::new(FloatType::Q8_0, 1, 32, &bytes[..34]).unwrap();
        unavailable(backend.prepare_float_matmul(matrix, Arithmetic::F32, 1, 1).map(|_| ()));
    }
}
