//! What each instruction set of x86_64 brings, and what it takes from another.

use std::ops::Range;

use super::super::detect::{Avx2, Avx512Vbmi, Avx512Vnni, AvxVnni};
use super::super::{BackendError, FloatMatmul, WeightRule};
use super::isa::{Isa, Made};
use super::repacked_avx512vnni::{self, Repacking};
use super::tl_avx2::{self, Multiplier};
use super::{Elementwise, Product, float_native, ternary};
use super::{i2s_avx2, i2s_avx512vnni, i2s_avxvnni, i2s_pack_avx2, tl_pack_avx2, tl1_avx2, tl2_avx2};
use crate::bitnet::formats::repacked::{self, Repacked};
use crate::bitnet::formats::{FormatError, Layout, WeightFormat, Weights};
use crate::bitnet::model::FloatMatrix;

/// Refuses codes that no packer produces. Gives the number of rows that belong together.
fn check(token: Avx2, i2s_rows: usize, weights: &Weights<'_>) -> Result<usize, FormatError> {
    Ok(match weights.layout().format() {
        WeightFormat::I2S => {
            i2s_avx2::codes(token, weights)?;
            i2s_rows
        }
        WeightFormat::Tl1 | WeightFormat::Tl2 => tl_avx2::check(token, weights)?.bm,
    })
}

/// See [`Isa::pack`].
fn pack(
    (token, name): (Avx2, &str),
    layout: &Layout,
    rule: WeightRule,
    src: &[f32],
    dst: &mut [u8],
) -> Result<f32, BackendError> {
    ternary::pack(token, (layout, rule), src, dst, |ternary, bytes| match layout.format() {
        WeightFormat::I2S => Ok(i2s_pack_avx2::pack(token, ternary, src, bytes)),
        WeightFormat::Tl1 | WeightFormat::Tl2 => {
            tl_pack_avx2::pack((token, name), layout, ternary, src, bytes)
        }
    })
}

/// See [`Isa::dequantize`].
fn dequantize(
    (token, name): (Avx2, &str),
    weights: &Weights<'_>,
    dst: &mut [f32],
) -> Result<(), BackendError> {
    match weights.layout().format() {
        WeightFormat::I2S => i2s_pack_avx2::dequantize(token, weights, dst)?,
        WeightFormat::Tl1 | WeightFormat::Tl2 => tl_pack_avx2::dequantize((token, name), weights, dst)?,
    }
    Ok(())
}

/// Weights packed, unpacked and checked as AVX2 does it: nothing wider does it better.
macro_rules! weights_of_avx2 {
    () => {
        fn pack(
            self,
            layout: &Layout,
            rule: WeightRule,
            src: &[f32],
            dst: &mut [u8],
        ) -> Result<f32, BackendError> {
            pack((self.avx2(), Self::NAME), layout, rule, src, dst)
        }

        fn dequantize(self, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError> {
            dequantize((self.avx2(), Self::NAME), weights, dst)
        }

        fn check(self, weights: &Weights<'_>) -> Result<usize, BackendError> {
            Ok(check(self.avx2(), Self::I2S_ROWS, weights)?)
        }
    };
}

impl Avx2 {
    /// Itself, as the wider ones have it.
    fn avx2(self) -> Self {
        self
    }
}

impl Isa for Avx2 {
    const NAME: &str = "rust-avx2";
    const ISA: &str = "avx2";
    type Floats = Avx2;

    fn detect() -> Result<Self, String> {
        Self::detect()
    }

    weights_of_avx2!();

    fn floats(self) -> Self::Floats {
        self
    }

    fn part<'a>(self, weights: &Weights<'a>, rows: Range<usize>, n_max: usize) -> Made<'a> {
        if weights.layout().format() == WeightFormat::I2S {
            return Ok(i2s_avx2::part(self, weights, rows));
        }
        Ok(tiled((self, Multiplier::Avx2), weights, rows, n_max))
    }
}

/// TL1 and TL2, on the instructions that the multiplier names.
fn tiled<'a>(
    tokens: (Avx2, Multiplier),
    weights: &Weights<'a>,
    rows: Range<usize>,
    n_max: usize,
) -> Box<dyn Product + 'a> {
    if weights.layout().format() == WeightFormat::Tl1 {
        tl1_avx2::part(tokens, weights, rows, n_max)
    } else {
        tl2_avx2::part(tokens, weights, rows, n_max)
    }
}

impl Isa for AvxVnni {
    const NAME: &str = "rust-avxvnni";
    const ISA: &str = "avxvnni";
    type Floats = Avx2;

    fn detect() -> Result<Self, String> {
        Self::detect()
    }

    weights_of_avx2!();

    fn floats(self) -> Self::Floats {
        self.avx2()
    }

    fn part<'a>(self, weights: &Weights<'a>, rows: Range<usize>, n_max: usize) -> Made<'a> {
        if weights.layout().format() == WeightFormat::I2S {
            return Ok(i2s_avxvnni::part(self, weights, rows));
        }
        Ok(tiled((self.avx2(), Multiplier::AvxVnni(self)), weights, rows, n_max))
    }
}

impl Isa for Avx512Vnni {
    const NAME: &str = "rust-avx512vnni";
    const ISA: &str = "avx512vnni";
    type Floats = Self;

    fn detect() -> Result<Self, String> {
        Self::detect()
    }

    weights_of_avx2!();

    fn floats(self) -> Self::Floats {
        self
    }

    fn native<'a>(
        self,
        matrix: FloatMatrix<'a>,
        sizes: (usize, usize),
    ) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
        float_native::prepare(Self::NAME, matrix, sizes)
    }

    fn part<'a>(self, weights: &Weights<'a>, rows: Range<usize>, n_max: usize) -> Made<'a> {
        if weights.layout().format() == WeightFormat::I2S {
            return Ok(i2s_avx512vnni::part(self, weights, rows, n_max));
        }
        Ok(tiled((self.avx2(), Multiplier::avx512(self)), weights, rows, n_max))
    }
}

impl<const Q: usize> Repacking<Q> {
    /// What is implied.
    fn avx2(self) -> Avx2 {
        self.0.vnni().avx2()
    }
}

impl<const Q: usize> Isa for Repacking<Q> {
    const NAME: &str = match Self::ORDER {
        Repacked::R64 => "rust-avx512vnni-r64",
        Repacked::T5 => "rust-avx512vnni-t5",
    };
    const ISA: &str = Avx512Vnni::ISA;
    type Floats = Avx512Vnni;
    const REPACKS: Option<Repacked> = Some(Self::ORDER);
    const I2S_ROWS: usize = repacked::TILE_ROWS;

    fn detect() -> Result<Self, String> {
        Avx512Vbmi::detect().map(Self)
    }

    weights_of_avx2!();

    fn floats(self) -> Self::Floats {
        self.0.vnni()
    }

    fn part<'a>(self, weights: &Weights<'a>, rows: Range<usize>, n_max: usize) -> Made<'a> {
        repacked_avx512vnni::part::<Q>(self, weights, rows, n_max)
    }
}

/// Loops over floats as AVX2 has them: they are bound by memory, or take little of the time that products take.
macro_rules! elementwise_of_avx2 {
    ($token:ty $(, const $size:ident)?) => {
        impl $(<const $size: usize>)? Elementwise for $token {
            fn max_abs(self, x: &[f32]) -> Result<f32, usize> {
                self.avx2().max_abs(x)
            }

            fn quantize(self, x: &[f32], scale: f32, q: &mut [i8]) -> i32 {
                self.avx2().quantize(x, scale, q)
            }

            fn rescale(self, dot: &[i32], activation_scale: f32, weight_scale: f32, y: &mut [f32]) {
                self.avx2().rescale(dot, activation_scale, weight_scale, y)
            }
        }
    };
}

elementwise_of_avx2!(AvxVnni);
elementwise_of_avx2!(Avx512Vnni);
elementwise_of_avx2!(Repacking<Q>, const Q);
