//! Float products as `docs/NUMERICS.md` states them, loop by loop.

use super::NAME;
use crate::backends::{BackendError, FloatMatmul, checks};
use crate::bitnet::model::{FloatMatrix, FloatType};
use half::f16;

/// Partial sums of one output.
const LANES: usize = 32;
/// Values of a Q8_0 block: a scale in F16, then a byte each.
const BLOCK: usize = 32;
const BLOCK_BYTES: usize = 34;

/// The product of a float matrix with up to `n_max` rows.
pub(super) fn prepare(
    matrix: FloatMatrix<'_>,
    n_max: usize,
) -> Result<Box<dyn FloatMatmul + '_>, BackendError> {
    Ok(match matrix.float_type() {
        FloatType::F32 | FloatType::F16 | FloatType::Bf16 | FloatType::Q6K => {
            let row = checks::zeros(NAME, 1, matrix.cols())?;
            Box::new(Decoded { matrix, n_max, row })
        }
        FloatType::Q8_0 => {
            let x = checks::zeros(NAME, 1, matrix.cols() / BLOCK)?;
            Box::new(Quantised { matrix, n_max, x })
        }
    })
}

/// Rows are decoded to f32, one after the other.
struct Decoded<'a> {
    matrix: FloatMatrix<'a>,
    n_max: usize,
    row: Vec<f32>,
}

impl FloatMatmul for Decoded<'_> {
    fn matmul_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        let n = checks::batch_of(("x", x.len()), ("y", y.len()), (rows, cols), self.n_max)?;
        for row in 0..rows {
            self.matrix.float_type().decode(self.matrix.row(row), &mut self.row);
            for column in 0..n {
                y[column * rows + row] = dot(&self.row, &x[column * cols..][..cols]);
            }
        }
        Ok(())
    }
}

/// The sum of `w[k] * x[k]` in 32 lanes, which are added in halves.
fn dot(w: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    for (k, (&w, &x)) in w.iter().zip(x).enumerate() {
        lanes[k % LANES] = w.mul_add(x, lanes[k % LANES]);
    }
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// 32 values of x in 8 bits.
#[derive(Clone, Default)]
struct Block {
    d: f32,
    q: [i8; BLOCK],
}

impl Block {
    fn of(x: &[f32]) -> Self {
        // Magnitudes order like their bits, and a NaN is above them all: it makes d one, and every output.
        let largest = f32::from_bits(x.iter().map(|x| x.abs().to_bits()).max().unwrap_or_default());
        let mut q = [0; BLOCK];
        if largest > 0.0 {
            let multiplier = 127.0 / largest;
            for (q, x) in q.iter_mut().zip(x) {
                *q = (x * multiplier).round_ties_even() as i8;
            }
        }
        Self { d: f16::from_f32(largest / 127.0).to_f32(), q }
    }
}

/// Q8_0: x is quantised as the weights are.
struct Quantised<'a> {
    matrix: FloatMatrix<'a>,
    n_max: usize,
    x: Vec<Block>,
}

impl FloatMatmul for Quantised<'_> {
    fn matmul_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        let n = checks::batch_of(("x", x.len()), ("y", y.len()), (rows, cols), self.n_max)?;
        for column in 0..n {
            for (block, x) in self.x.iter_mut().zip(x[column * cols..][..cols].chunks_exact(BLOCK)) {
                *block = Block::of(x);
            }
            for row in 0..rows {
                let blocks = self.matrix.row(row).chunks_exact(BLOCK_BYTES);
                y[column * rows + row] = blocks.zip(&self.x).fold(0.0, |y, (w, x)| add_product(w, x, y));
            }
        }
        Ok(())
    }
}

/// `y` and the product of one block of weights with one of x.
fn add_product(w: &[u8], x: &Block, y: f32) -> f32 {
    let (d, codes) = w.split_at(2);
    let d = f16::from_le_bytes([d[0], d[1]]).to_f32();
    let dot: i32 = codes.iter().zip(&x.q).map(|(&w, &x)| i32::from(w as i8) * i32::from(x)).sum();
    (dot as f32).mul_add(d * x.d, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand: the lanes decide what a large value swallows.
    #[test]
    fn lanes_are_those_of_the_index_modulo_32() {
        let mut w = [0.0; 65];
        (w[0], w[32], w[64], w[1]) = (1e8, 1.0, -1e8, 1.0);
        // Lane 0 swallows the 1 of index 32, lane 1 keeps its own.
        assert_eq!(dot(&w, &[1.0; 65]), 1.0);
        // Lanes 0 and 16 meet first, then 8: 1e8 - 1e8 before the 1 is added.
        let mut w = [0.0; 32];
        (w[0], w[16], w[8]) = (1e8, -1e8, 1.0);
        assert_eq!(dot(&w, &[1.0; 32]), 1.0);
        // 8 comes after 16, so that 1e8 and 1 meet before -1e8 comes, and the 1 is lost.
        (w[16], w[8], w[4]) = (1.0, -1e8, 0.0);
        assert_eq!(dot(&w, &[1.0; 32]), 0.0);
    }

    /// A product that only one rounding keeps: (1 + 2^-12)^2 - (1 + 2^-11) = 2^-24.
    #[test]
    fn products_are_fused() {
        let a = 1.0 + 2.0_f32.powi(-12);
        let mut w = [0.0; 33];
        let mut x = [0.0; 33];
        (w[0], x[0]) = (-(1.0 + 2.0_f32.powi(-11)), 1.0);
        (w[32], x[32]) = (a, a);
        assert_eq!(dot(&w, &x), 2.0_f32.powi(-24));
    }

    #[test]
    fn blocks_round_half_to_even_and_bad_values_show() {
        let mut x = [0.0_f32; BLOCK];
        (x[0], x[1], x[2], x[3]) = (127.0, 0.5, 1.5, -2.5);
        let block = Block::of(&x);
        assert_eq!((block.d, &block.q[..4]), (1.0, &[127, 0, 2, -2][..]));
        assert_eq!((Block::of(&[0.0; BLOCK]).d, Block::of(&[-0.0; BLOCK]).q), (0.0, [0; BLOCK]));
        x[31] = f32::NAN;
        assert!(Block::of(&x).d.is_nan());
        x[31] = f32::NEG_INFINITY;
        assert_eq!(Block::of(&x).d, f32::INFINITY);
    }
}
