//! What each instruction set of AArch64 brings.

use std::ops::Range;

use super::super::detect::{Neon, NeonDotprod};
use super::super::{BackendError, WeightRule};
use super::isa::{Isa, Made};
use super::{i2s_neon, quantize_neon};
use crate::bitnet::formats::{Layout, Weights};

/// They differ in the products of integers alone.
macro_rules! isa {
    ($token:ty, $name:literal, $isa:literal) => {
        impl Isa for $token {
            const NAME: &str = $name;
            const ISA: &str = $isa;
            type Floats = Neon;
            /// A tile of rows.
            const I2S_ROWS: usize = 4;

            fn detect() -> Result<Self, String> {
                Self::detect()
            }

            fn floats(self) -> Self::Floats {
                Neon::implied()
            }

            fn pack(
                self,
                layout: &Layout,
                rule: WeightRule,
                src: &[f32],
                dst: &mut [u8],
            ) -> Result<f32, BackendError> {
                quantize_neon::pack(Self::NAME, layout, rule, src, dst)
            }

            fn dequantize(self, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError> {
                quantize_neon::dequantize(Self::NAME, weights, dst)
            }

            fn check(self, weights: &Weights<'_>) -> Result<usize, BackendError> {
                i2s_neon::check(Self::NAME, Self::I2S_ROWS, weights)
            }

            fn part<'a>(self, weights: &Weights<'a>, rows: Range<usize>, n_max: usize) -> Made<'a> {
                i2s_neon::part((self, Self::NAME), weights, rows, n_max)
            }
        }
    };
}

isa!(Neon, "rust-neon", "neon");
isa!(NeonDotprod, "rust-neondotprod", "neondotprod");
