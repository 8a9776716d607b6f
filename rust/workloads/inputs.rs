//! Inputs of a workload: drawn from the seed and the workload's id, or a tensor of a real file.

use super::inference::{self, Model};
use super::{COLD_BYTES, Inference, Kind, NATIVE_SUFFIX, Temperature, Workload};
use crate::bitnet::formats::{self, FormatError, Layout, Weights};
use crate::bitnet::model::gguf::Gguf;
use crate::bitnet::model::{FloatMatrix, FloatType};
use crate::bitnet::quant::absmax;
use crate::rng::Rng;
use half::{bf16, f16};
use std::borrow::Cow;

/// Everything a workload reads, made once and shared by every backend.
#[derive(Debug, Default)]
pub struct Inputs<'a> {
    layout: Option<Layout>,
    /// How a float matrix is stored, and its sides.
    float_matrix: Option<(FloatType, usize, usize)>,
    /// Packed weights, or the bytes of a float matrix; several identical copies where the workload is cold.
    copies: Vec<Cow<'a, [u8]>>,
    /// Float weights `[rows, cols]` (quantise) or activations `[batch, cols]` (activation, linear, mixed precision).
    pub(super) floats: Vec<f32>,
    /// int8 activations `[batch, cols]` (matmul), quantised once by the oracle's rule.
    pub(super) codes: Vec<i8>,
    /// Of a float matrix as it was drawn, before it was stored, with the first row of activations: `[rows]`.
    unstored_product: Vec<f64>,
    /// The model of a whole-model workload.
    pub(super) model: Option<Model<'a>>,
    /// Its tokens.
    pub(super) tokens: Vec<u32>,
}

impl Workload {
    /// Inputs drawn from `seed`: ternary weights with P(0) = 1/3, standard normal floats. The same for every arithmetic.
    pub fn inputs(&self, seed: u64) -> Result<Inputs<'static>, FormatError> {
        let mut rng = Rng::for_part(seed, self.id.strip_suffix(NATIVE_SUFFIX).unwrap_or(&self.id));
        if let Kind::Inference(work) = self.kind {
            return Ok(Inputs::of_model(&work, inference::made(&work, seed)?, &mut rng));
        }
        if let Kind::MixedPrecision { float_type, rows, cols, batch, .. } = self.kind {
            return Ok(float_inputs(float_type, (rows, cols), batch, &mut rng));
        }
        let bytes = match (self.kind, self.kind.layout()) {
            (Kind::Quantize { .. }, _) | (_, None) => None,
            (_, Some(layout)) => Some(random_weights(&layout, &mut rng)?),
        };
        Ok(self.inputs_over(bytes.map(Cow::Owned), &mut rng))
    }

    /// Inputs over the weights of a file, activations drawn from `seed`. The layout must be the workload's.
    pub fn inputs_of_tensor<'a>(&self, weights: &Weights<'a>, seed: u64) -> Inputs<'a> {
        let mut rng = Rng::for_part(seed, &self.id);
        self.inputs_over(Some(Cow::Borrowed(weights.bytes())), &mut rng)
    }

    /// Inputs over the model of a file, tokens drawn from `seed`. The workload is one on whole models.
    pub fn inputs_of_model<'a>(&self, work: &Inference, gguf: &'a Gguf<'static>, seed: u64) -> Inputs<'a> {
        Inputs::of_model(work, Model::File(gguf), &mut Rng::for_part(seed, &self.id))
    }

    fn inputs_over<'a>(&self, bytes: Option<Cow<'a, [u8]>>, rng: &mut Rng) -> Inputs<'a> {
        let layout = self.kind.layout();
        let mut normals = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
        let (mut floats, mut codes) = (Vec::new(), Vec::new());
        match self.kind {
            Kind::Quantize { layout, .. } => floats = normals(layout.n_weights()),
            Kind::Dequantize { .. } | Kind::MixedPrecision { .. } | Kind::Inference(_) => {}
            Kind::Activation { cols, rows } => floats = normals(cols * rows),
            Kind::Linear { layout, batch, .. } => floats = normals(layout.cols() * batch),
            Kind::Matmul { .. } | Kind::Overhead => {
                let cols = layout.expect("products have weights").cols();
                codes = vec![0; cols * self.kind.batch()];
                for row in codes.chunks_exact_mut(cols) {
                    absmax::quantize_row(&normals(cols), row).expect("normal deviates are finite");
                }
            }
        }
        let copies = bytes.map_or(Vec::new(), |bytes| vec![bytes; self.n_copies()]);
        Inputs { layout, copies, floats, codes, ..Inputs::default() }
    }

    /// How many copies of the weights the workload rotates over.
    fn n_copies(&self) -> usize {
        match self.kind {
            Kind::Matmul { layout, temperature: Temperature::Cold, .. }
            | Kind::Linear { layout, temperature: Temperature::Cold, .. } => {
                COLD_BYTES.div_ceil(layout.packed_bytes())
            }
            _ => 1,
        }
    }
}

impl<'a> Inputs<'a> {
    fn of_model(work: &Inference, model: Model<'a>, rng: &mut Rng) -> Self {
        let vocab = model.gguf().tensor("token_embd.weight").map_or(1, |info| info.rows());
        let tokens = (0..work.tokens).map(|_| (rng.unit_f64() * vocab as f64) as u32).collect();
        Self { model: Some(model), tokens, ..Self::default() }
    }

    /// The packed weights, one entry for each copy.
    pub fn weights(&self) -> Vec<Weights<'_>> {
        let layout = |_: &Cow<'a, [u8]>| self.layout.expect("packed weights have a layout");
        let of = |bytes| {
            Weights::new(layout(bytes), bytes).expect("packed by this crate or checked by the reader")
        };
        self.copies.iter().map(of).collect()
    }

    /// The float matrix of a mixed-precision workload.
    pub fn float_matrix(&self) -> Option<FloatMatrix<'_>> {
        let (float_type, rows, cols) = self.float_matrix?;
        FloatMatrix::new(float_type, rows, cols, self.copies.first()?)
    }

    /// What [`Workload::accuracy`] compares with.
    pub(super) fn unstored_product(&self) -> &[f64] {
        &self.unstored_product
    }

    /// The same inputs with one copy of the weights: for a backend that is compared but not timed.
    pub fn one_copy(&self) -> Inputs<'_> {
        let first = self.copies.first().map(|bytes| Cow::Borrowed(bytes.as_ref()));
        Inputs {
            layout: self.layout,
            float_matrix: self.float_matrix,
            copies: first.into_iter().collect(),
            floats: self.floats.clone(),
            codes: self.codes.clone(),
            unstored_product: self.unstored_product.clone(),
            model: self.model.clone(),
            tokens: self.tokens.clone(),
        }
    }
}

/// Standard normal weights, stored as `float_type`, and activations.
fn float_inputs(
    float_type: FloatType,
    (rows, cols): (usize, usize),
    batch: usize,
    rng: &mut Rng,
) -> Inputs<'static> {
    let mut normals = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
    let (weights, floats) = (normals(rows * cols), normals(batch * cols));
    let bytes: Vec<u8> = match float_type {
        FloatType::F16 => weights.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect(),
        FloatType::Bf16 => weights.iter().flat_map(|&w| bf16::from_f32(w).to_le_bytes()).collect(),
        FloatType::F32 => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
        FloatType::Q8_0 | FloatType::Q6K => unreachable!("the catalogue has no mixed precision of blocks"),
    };
    let dot = |row: &[f32]| row.iter().zip(&floats).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
    let unstored_product = weights.chunks_exact(cols).map(dot).collect();
    let float_matrix = Some((float_type, rows, cols));
    Inputs { float_matrix, copies: vec![Cow::Owned(bytes)], floats, unstored_product, ..Inputs::default() }
}

fn random_weights(layout: &Layout, rng: &mut Rng) -> Result<Vec<u8>, FormatError> {
    let codes: Vec<i8> = (0..layout.n_weights()).map(|_| rng.ternary()).collect();
    let mut bytes = vec![0; layout.packed_bytes()];
    // A scale of the size real layers have; not a power of two, so that a lost rounding shows.
    formats::pack(layout, &codes, 0.037_f32, &mut bytes)?;
    Ok(bytes)
}
