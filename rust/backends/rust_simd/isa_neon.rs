//! What each instruction set of AArch64 brings.

use std::ops::Range;

use super::super::detect::{Neon, NeonDotprod};
use super::super::{BackendError, WeightRule, checks};
use super::isa::{Isa, Made};
use super::{i2s_neon, i2s_pack_neon, ternary, tl_neon, tl1_neon, tl2_neon};
use crate::bitnet::formats::{self, Layout, WeightFormat, Weights};
use crate::bitnet::quant::absmean;

/// See [`Isa::pack`]. TL1 and TL2 are packed by the oracle's own loops: their orders have none of vectors yet.
fn pack(
    (token, name): (Neon, &str),
    layout: &Layout,
    rule: WeightRule,
    src: &[f32],
    dst: &mut [u8],
) -> Result<f32, BackendError> {
    if layout.format() == WeightFormat::I2S {
        return ternary::pack(token, (layout, rule), src, dst, |ternary, bytes| {
            Ok(i2s_pack_neon::pack(token, ternary, src, bytes))
        });
    }
    let mut codes: Vec<i8> = checks::zeros(name, layout.rows(), layout.cols())?;
    let scale = match rule {
        WeightRule::AbsMean => absmean::absmean(src, &mut codes)?,
        WeightRule::MaxAbs => absmean::max_abs(src, &mut codes)?,
    };
    formats::pack(layout, &codes, scale, dst)?;
    Ok(scale)
}

/// See [`Isa::dequantize`].
fn dequantize(
    (token, name): (Neon, &str),
    weights: &Weights<'_>,
    dst: &mut [f32],
) -> Result<(), BackendError> {
    let layout = weights.layout();
    if layout.format() == WeightFormat::I2S {
        i2s_pack_neon::dequantize(token, weights, dst)?;
        return Ok(());
    }
    let mut codes: Vec<i8> = checks::zeros(name, layout.rows(), layout.cols())?;
    formats::unpack(weights, &mut codes)?;
    for (value, code) in dst.iter_mut().zip(codes) {
        *value = f32::from(code) * weights.scale();
    }
    Ok(())
}

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
                pack((Neon::implied(), Self::NAME), layout, rule, src, dst)
            }

            fn dequantize(self, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError> {
                dequantize((Neon::implied(), Self::NAME), weights, dst)
            }

            fn check(self, weights: &Weights<'_>) -> Result<usize, BackendError> {
                Ok(match weights.layout().format() {
                    WeightFormat::I2S => {
                        i2s_neon::checked(weights)?;
                        Self::I2S_ROWS
                    }
                    WeightFormat::Tl1 | WeightFormat::Tl2 => tl_neon::check(weights)?.bm,
                })
            }

            fn part<'a>(self, weights: &Weights<'a>, rows: Range<usize>, n_max: usize) -> Made<'a> {
                let neon = (Neon::implied(), Self::NAME);
                match weights.layout().format() {
                    WeightFormat::I2S => Ok(i2s_neon::part(self, weights, rows)),
                    WeightFormat::Tl1 => tl1_neon::part(neon, weights, rows, n_max),
                    WeightFormat::Tl2 => tl2_neon::part(neon, weights, rows, n_max),
                }
            }
        }
    };
}

isa!(Neon, "rust-neon", "neon");
isa!(NeonDotprod, "rust-neondotprod", "neondotprod");
