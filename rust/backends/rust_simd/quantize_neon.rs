//! Quantisation on AArch64, bit for bit as `docs/NUMERICS.md` states it. NEON belongs to the target, so that the compiler
//! turns loops of independent values into its vectors by itself, with one rounding each, half to even.

use super::super::detect::{Neon, NeonDotprod};
use super::Elementwise;
use super::ternary::{TernaryLoops, first_non_finite};

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

/// Values whose magnitudes are looked at and added together.
const STEP: usize = 32;

impl TernaryLoops for Neon {
    fn magnitudes(self, x: &[f32]) -> (u32, f64) {
        let (mut largest, mut sum) = (0, 0.0);
        for x in x.chunks(STEP) {
            largest = largest.max(largest_magnitude_bits(x));
            // Each addition waits for the one before.
            for value in x {
                sum += f64::from(value.abs());
            }
        }
        (largest, sum)
    }

    fn round(self, src: &[f32], multiplier: f32, codes: &mut [i8]) {
        for (code, w) in codes.iter_mut().zip(src) {
            *code = (w * multiplier).clamp(-1.0, 1.0).round_ties_even() as i8;
        }
    }

    /// The float32 next to 1e-6 lies just below it.
    fn signs(self, src: &[f32], codes: &mut [i8]) {
        for (code, &w) in codes.iter_mut().zip(src) {
            *code = i8::from(w > 1e-6) - i8::from(w < -1e-6);
        }
    }
}

/// On bit patterns: without their sign they order like the magnitudes, NaN and infinity at the top.
fn max_abs(x: &[f32]) -> Result<f32, usize> {
    let max_abs = f32::from_bits(largest_magnitude_bits(x));
    if max_abs.is_finite() {
        return Ok(max_abs);
    }
    Err(first_non_finite(x))
}

fn largest_magnitude_bits(x: &[f32]) -> u32 {
    x.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff))
}

fn quantize(x: &[f32], scale: f32, q: &mut [i8]) -> i32 {
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * scale).round_ties_even() as i8;
    }
    // Modulo 2^32, as the oracle does it.
    q.iter().fold(0_i32, |sum, &q| sum.wrapping_add(i32::from(q)))
}
