//! Quantisation on AArch64, bit for bit as `docs/NUMERICS.md` states it. NEON belongs to the target, so that the compiler
//! turns loops of independent values into its vectors by itself, with one rounding each, half to even.

use super::super::detect::{Neon, NeonDotprod};
use super::Elementwise;
use super::ternary::{self, TernaryLoops, first_non_finite};

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

impl TernaryLoops for Neon {
    fn magnitudes(self, x: &[f32]) -> (u32, f64) {
        ternary::magnitudes(x)
    }

    fn round(self, src: &[f32], multiplier: f32, codes: &mut [i8]) {
        for (code, w) in codes.iter_mut().zip(src) {
            *code = (w * multiplier).clamp(-1.0, 1.0).round_ties_even() as i8;
        }
    }

    fn signs(self, src: &[f32], codes: &mut [i8]) {
        ternary::signs(src, codes);
    }
}

fn max_abs(x: &[f32]) -> Result<f32, usize> {
    let max_abs = f32::from_bits(ternary::largest_magnitude_bits(x));
    if max_abs.is_finite() {
        return Ok(max_abs);
    }
    Err(first_non_finite(x))
}

fn quantize(x: &[f32], scale: f32, q: &mut [i8]) -> i32 {
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * scale).round_ties_even() as i8;
    }
    // Modulo 2^32, as the oracle does it.
    q.iter().fold(0_i32, |sum, &q| sum.wrapping_add(i32::from(q)))
}
