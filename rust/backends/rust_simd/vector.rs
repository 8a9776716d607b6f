//! The loops of a whole model on each instruction set: the text of `backends/vector.rs`, compiled for it, with what it brings
//! of its own and the loops that quantisation has already.

use half::f16;

#[cfg(target_arch = "aarch64")]
use super::super::detect::Neon;
#[cfg(target_arch = "x86_64")]
use super::super::detect::{Avx2, Avx512Vnni};
use super::super::vector::{self, VectorLoops};
use super::{Elementwise, activation_scale};
use crate::bitnet::formats::WeightFormat;

/// Each loop as a function compiled for these features, with the conversions and products of `$vectors`, and the method that
/// enters it with the token.
macro_rules! compiled {
    ($($token:ident, $kernels:ident, $vectors:ident: $features:literal;)*) => {
        $(
            compiled!(@loops $token, $kernels, $vectors: $features,
                norm_multipliers = vector::norm_multipliers; (x: &[f32], eps: f32, multipliers: &mut [f32]),
                scale = vector::scale; (x: &[f32], s: f32, y: &mut [f32]),
                scale_weighted = vector::scale_weighted; (x: &[f32], s: f32, w: &[f32], y: &mut [f32]),
                multiply = vector::multiply; (x: &[f32], y: &mut [f32]),
                add = vector::add; (x: &[f32], y: &mut [f32]),
                silu = vector::silu; (g: &mut [f32]),
                relu_squared = vector::relu_squared; (g: &mut [f32]),
                rotate_halves = vector::rotate_halves; (angles: &[f32], head: &mut [f32]),
                rotate_neighbours = vector::rotate_neighbours; (angles: &[f32], head: &mut [f32]),
                round_to_f16 = vector::round_to_f16::<$vectors>; (x: &mut [f32]),
                to_f16 = vector::to_f16::<$vectors>; (x: &[f32], y: &mut [f16]),
                widen_f16 = vector::widen_f16::<$vectors>; (x: &[f16], y: &mut [f32]),
                scores_f32 = vector::scores_f32::<$vectors>;
                    (keys: &[f32], q: &[f32], multiplier: f32, scores: &mut [f32]),
                scores_f16 = vector::scores_f16::<$vectors>;
                    (keys: &[f16], q: &[f32], multiplier: f32, scores: &mut [f32]),
                softmax = vector::softmax; (scores: &mut [f32]),
                mix_f32 = vector::mix_f32::<$vectors>; (values: &[f32], p: &[f32], out: &mut [f32]),
                mix_f16 = vector::mix_f16::<$vectors>; (values: &[f16], p: &[f32], out: &mut [f32]),
            );
        )*
    };
    (@loops $token:ident, $kernels:ident, $vectors:ident: $features:literal,
     $($name:ident = $body:expr; ($($argument:ident: $type:ty),*)),* $(,)?) => {
        mod $kernels {
            use super::*;
            $(
                #[target_feature(enable = $features)]
                pub(super) fn $name($($argument: $type),*) {
                    $body($($argument),*)
                }
            )*
        }

        impl VectorLoops for $token {
            $(
                fn $name(&self, $($argument: $type),*) {
                    // SAFETY: `self` proves that this CPU has these features.
                    unsafe { $kernels::$name($($argument),*) }
                }
            )*

            fn quantize(&self, format: WeightFormat, x: &[f32], q: &mut [i8]) -> Result<f32, usize> {
                let scale = activation_scale(format, self.max_abs(x)?);
                Elementwise::quantize(*self, x, scale, q);
                Ok(scale)
            }

            fn rescale(&self, dot: &[i32], activation_scale: f32, weight_scale: f32, y: &mut [f32]) {
                Elementwise::rescale(*self, dot, activation_scale, weight_scale, y);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
compiled! {
    Avx2, avx2, Avx2: "avx2,fma,f16c";
    Avx512Vnni, avx512, Avx2: "avx2,fma,f16c,avx512f,avx512bw,avx512vl";
}

#[cfg(target_arch = "aarch64")]
compiled! {
    Neon, neon, Neon: "neon";
}
