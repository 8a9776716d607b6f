//! What each instruction set brings, and what it takes from another.

use std::ops::Range;

use super::super::{BackendError, FloatMatmul, WeightRule, checks};
use super::float::FloatKernels;
use super::{Elementwise, Product};
use crate::bitnet::formats::repacked::Repacked;
use crate::bitnet::formats::{Layout, Weights};
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
    /// Rows of I2_S that are not divided between threads.
    const I2S_ROWS: usize = 16;

    /// The token, or why there is none.
    fn detect() -> Result<Self, String>;

    /// The token that unlocks the loops over floats: those of a narrower one where it brings no own.
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

    /// Weights to their packed form `dst`, as `Backend::quantize_weights`, lengths checked.
    fn pack(
        self,
        layout: &Layout,
        rule: WeightRule,
        src: &[f32],
        dst: &mut [u8],
    ) -> Result<f32, BackendError>;

    /// `dst` `[rows, cols]` = code * scale, lengths checked. Nothing is written where a code is invalid.
    fn dequantize(self, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError>;

    /// Refuses codes that no packer produces. Gives the number of rows that belong together.
    fn check(self, weights: &Weights<'_>) -> Result<usize, BackendError>;

    /// Some of the rows of weights that passed [`Isa::check`], ready for up to `n_max` activation rows: whole groups of the
    /// number of rows that it gave, or the last ones.
    fn part<'a>(self, weights: &Weights<'a>, rows: Range<usize>, n_max: usize) -> Made<'a>;
}

/// The rows ready, or no memory for them.
pub(super) type Made<'a> = Result<Box<dyn Product + 'a>, BackendError>;
