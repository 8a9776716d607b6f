//! The loops of a whole model on AVX2 and AVX-512: the text of `backends/vector.rs`, compiled for them. What is written
//! here is only what the compiler does not find by itself: conversions of halves, and the loops that quantisation has
//! already.

use std::arch::x86_64::{
    _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm_storeu_si128, _mm256_cvtph_ps,
    _mm256_cvtps_ph, _mm256_loadu_ps, _mm256_storeu_ps,
};

use half::f16;

use super::super::detect::{Avx2, Avx512Vnni};
use super::super::vector::{self, Halves, VectorLoops};
use super::{Elementwise, activation_scale};
use crate::bitnet::formats::WeightFormat;

impl Halves for Avx2 {
    #[inline(always)]
    fn widen(values: &[f16; 8]) -> [f32; 8] {
        let mut wide = [0.0; 8];
        // SAFETY: called only from functions below, which are compiled for F16C and entered with the token; 16 bytes are
        // read and 32 written, at places of those sizes.
        unsafe {
            _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(values.as_ptr().cast())))
        };
        wide
    }

    #[inline(always)]
    fn narrow(values: &[f32; 8]) -> [f16; 8] {
        let mut narrow = [f16::ZERO; 8];
        // SAFETY: as above, the other way round.
        unsafe {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(values.as_ptr()));
            _mm_storeu_si128(narrow.as_mut_ptr().cast(), halves);
        }
        narrow
    }

    #[inline(always)]
    #[allow(unused_unsafe, reason = "whether it is unsafe depends on the version of std::arch")]
    fn ask_for(at: *const u8) {
        // SAFETY: a prefetch never faults; the address need not be mapped, and nothing is read through it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// Each loop as a function compiled for these features, and the method that enters it with the token.
macro_rules! compiled {
    ($($token:ident, $kernels:ident: $features:literal;)*) => {
        $(
            compiled!(@loops $token, $kernels: $features,
                norm_multipliers = vector::norm_multipliers; (x: &[f32], eps: f32, multipliers: &mut [f32]),
                scale = vector::scale; (x: &[f32], s: f32, y: &mut [f32]),
                scale_weighted = vector::scale_weighted; (x: &[f32], s: f32, w: &[f32], y: &mut [f32]),
                multiply = vector::multiply; (x: &[f32], y: &mut [f32]),
                add = vector::add; (x: &[f32], y: &mut [f32]),
                silu = vector::silu; (g: &mut [f32]),
                relu_squared = vector::relu_squared; (g: &mut [f32]),
                rotate_halves = vector::rotate_halves; (angles: &[f32], head: &mut [f32]),
                rotate_neighbours = vector::rotate_neighbours; (angles: &[f32], head: &mut [f32]),
                round_to_f16 = vector::round_to_f16::<Avx2>; (x: &mut [f32]),
                to_f16 = vector::to_f16::<Avx2>; (x: &[f32], y: &mut [f16]),
                widen_f16 = vector::widen_f16::<Avx2>; (x: &[f16], y: &mut [f32]),
                scores_f32 = vector::scores_f32;
                    (keys: &[f32], q: &[f32], multiplier: f32, scores: &mut [f32]),
                scores_f16 = vector::scores_f16::<Avx2>;
                    (keys: &[f16], q: &[f32], multiplier: f32, scores: &mut [f32]),
                softmax = vector::softmax; (scores: &mut [f32]),
                mix_f32 = vector::mix_f32; (values: &[f32], p: &[f32], out: &mut [f32]),
                mix_f16 = vector::mix_f16::<Avx2>; (values: &[f16], p: &[f32], out: &mut [f32]),
            );
        )*
    };
    (@loops $token:ident, $kernels:ident: $features:literal,
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

compiled! {
    Avx2, avx2: "avx2,fma,f16c";
    Avx512Vnni, avx512: "avx2,fma,f16c,avx512f,avx512bw,avx512vl";
}
