//! What each instruction set brings, and what it takes from another.

use std::ops::Range;

use super::super::detect::{Avx2, Avx512Vnni, AvxVnni};
use super::super::{BackendError, FloatMatmul, checks};
use super::float::FloatKernels;
use super::float_native;
use super::repacked_avx512vnni::{self, Repacking};
use super::tl_avx2::Multiplier;
use super::{Elementwise, Product};
use super::{i2s_avx2, i2s_avx512vnni, i2s_avxvnni, tl1_avx2, tl2_avx2};
use crate::bitnet::formats::repacked::{self, Repacked};
use crate::bitnet::formats::{FormatError, WeightFormat, Weights};
use crate::bitnet::model::FloatMatrix;

/// An instruction set, as the token that unlocks it.
pub(super) trait Isa: Elementwise + Send + Sync + 'static {
    /// The backend's name.
    const NAME: &str;
    /// The instruction set's.
    const ISA: &str;
    /// Whose loops over floats it runs.
    type Floats: FloatKernels + 'static;
    /// What it repacks I2_S to when weights are prepared, where it does: then it takes no other format.
    const REPACKS: Option<Repacked> = None;
    /// Rows of I2_S that are not divided between threads: a vector of results.
    const I2S_ROWS: usize = 16;

    /// The token, or why there is none.
    fn detect() -> Result<Self, String>;

    /// The token of what every one of them implies.
    fn avx2(self) -> Avx2;

    /// The token that unlocks the loops over floats: those of AVX2 where it brings no own.
    fn floats(self) -> Self::Floats;

    /// A float matrix ready for products in arithmetic `native`, with up to `n_max` rows of x on `threads` threads.
    fn native<'a>(
        self,
        matrix: FloatMatrix<'a>,
        (n_max, threads): (usize, usize),
    ) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
        let _ = (matrix, n_max, threads);
        let why = format!("native arithmetic of float products: {} has no instructions for it", Self::ISA);
        Err(checks::unsupported(Self::NAME, why))
    }

    /// Some of the rows of weights that passed [`check`], ready for up to `n_max` activation rows: whole groups of the
    /// number of rows that it gave, or the last ones.
    fn part<'a>(self, weights: &Weights<'a>, rows: Range<usize>, n_max: usize) -> Made<'a>;
}

/// The rows ready, or no memory for them.
pub(super) type Made<'a> = Result<Box<dyn Product + 'a>, BackendError>;

/// Refuses codes that no packer produces. Gives the number of rows that belong together.
pub(super) fn check<T: Isa>(token: T, weights: &Weights<'_>) -> Result<usize, FormatError> {
    Ok(match weights.layout().format() {
        WeightFormat::I2S => {
            i2s_avx2::codes(token.avx2(), weights)?;
            T::I2S_ROWS
        }
        WeightFormat::Tl1 => tl1_avx2::check(weights)?.bm,
        WeightFormat::Tl2 => tl2_avx2::check(weights)?.bm,
    })
}

impl Isa for Avx2 {
    const NAME: &str = "rust-avx2";
    const ISA: &str = "avx2";
    type Floats = Avx2;

    fn detect() -> Result<Self, String> {
        Self::detect()
    }

    fn avx2(self) -> Avx2 {
        self
    }

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

    fn avx2(self) -> Avx2 {
        self.avx2()
    }

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

    fn avx2(self) -> Avx2 {
        self.avx2()
    }

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
        Ok(tiled((self.avx2(), Multiplier::Avx512Vnni(self)), weights, rows, n_max))
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
        Avx512Vnni::detect().map(Self)
    }

    fn avx2(self) -> Avx2 {
        self.0.avx2()
    }

    fn floats(self) -> Self::Floats {
        self.0
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
