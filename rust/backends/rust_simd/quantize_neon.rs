//! Quantisation on AArch64, bit for bit as `docs/NUMERICS.md` states it. NEON belongs to the target, so that the compiler
//! turns loops of independent values into its vectors by itself, with one rounding each, half to even.

use super::super::detect::{Neon, NeonDotprod};
use super::super::{BackendError, WeightRule, checks};
use super::Elementwise;
use crate::bitnet::formats::{self, Layout, Weights};
use crate::bitnet::quant::absmean;

/// The same loops for both.
macro_rules! elementwise {
    ($token:ty) => {
        impl Elementwise for $token {
            fn max_abs(self, x: &[f32]) -> Result<f32, usize> {
                max_abs(x)
            }

            fn quantize(self, x: &[f32], scale: f32, q: &mut [i8]) -> i32 {
                quantize(x, scale, q)
            }

            fn rescale(self, dot: &[i32], activation_scale: f32, weight_scale: f32, y: &mut [f32]) {
                for (y, &dot) in y.iter_mut().zip(dot) {
                    *y = dot as f32 / activation_scale * weight_scale;
                }
            }
        }
    };
}

elementwise!(Neon);
elementwise!(NeonDotprod);

/// On bit patterns: without their sign they order like the magnitudes, NaN and infinity at the top.
fn max_abs(x: &[f32]) -> Result<f32, usize> {
    let bits = x.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
    let max_abs = f32::from_bits(bits);
    if max_abs.is_finite() {
        return Ok(max_abs);
    }
    Err(x.iter().position(|value| !value.is_finite()).unwrap_or_default())
}

fn quantize(x: &[f32], scale: f32, q: &mut [i8]) -> i32 {
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * scale).round_ties_even() as i8;
    }
    // Modulo 2^32, as the oracle does it.
    q.iter().fold(0_i32, |sum, &q| sum.wrapping_add(i32::from(q)))
}

/// With the oracle's own loops: the sum inside absmean is serial by definition, and loops of vectors for the rest are not
/// written yet.
pub(super) fn pack(
    name: &str,
    layout: &Layout,
    rule: WeightRule,
    src: &[f32],
    dst: &mut [u8],
) -> Result<f32, BackendError> {
    let mut codes: Vec<i8> = checks::zeros(name, layout.rows(), layout.cols())?;
    let scale = match rule {
        WeightRule::AbsMean => absmean::absmean(src, &mut codes)?,
        WeightRule::MaxAbs => absmean::max_abs(src, &mut codes)?,
    };
    formats::pack(layout, &codes, scale, dst)?;
    Ok(scale)
}

/// With the oracle's own loops, too. Nothing is written where a code is invalid.
pub(super) fn dequantize(name: &str, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError> {
    let mut codes: Vec<i8> = checks::zeros(name, weights.layout().rows(), weights.layout().cols())?;
    formats::unpack(weights, &mut codes)?;
    for (value, code) in dst.iter_mut().zip(codes) {
        *value = f32::from(code) * weights.scale();
    }
    Ok(())
}
