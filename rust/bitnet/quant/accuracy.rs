//! How much of a product survives int8 activations: the gated accuracy and the figures beside it.
//!
//! `y64` is the product, in f64, of the decoded ternary weights with the *unquantised* activations; `y` is what a
//! kernel returned. With e = y - y64 and all sums in f64, in index order:
//!
//! ```text
//! accuracy_percent  = 100 * sum(y * y64) / (sqrt(sum(y^2)) * sqrt(sum(y64^2)))     100 * cosine
//! relative_l2_error = sqrt(sum(e^2)) / sqrt(sum(y64^2))
//! snr_db            = 10 * log10(sum(y64^2) / sum(e^2))
//! max_abs_error     = max |e|
//! ```
//!
//! Zero vectors: both zero is a perfect result (100, 0, +inf, 0). Only y64 zero: accuracy 0, relative error
//! +inf, SNR -inf. Only y zero: accuracy 0, relative error 1, SNR 0. No error at all: SNR +inf. Empty or
//! non-finite vectors are errors, so they can never pass.
//!
//! What a reader may not conclude: the cosine does not see a factor common to all outputs (the relative error
//! does), nor one wrong code in a thousand (only bit equality does). It is a floor, never a proof.

use super::{QuantError, check_finite, check_length};
use crate::bitnet::formats::WeightFormat;
use crate::rng::Rng;

/// Below this, accuracy is a critical failure in any format (product requirement, accuracy).
pub const CRITICAL_PERCENT: f64 = 99.0;
/// Outputs of the gated product.
pub const GATED_ROWS: usize = 256;
/// Inputs of the gated product.
pub const GATED_COLS: usize = 2560;
/// Height, in standard deviations, of the one outlier in each ungated set.
pub const OUTLIER_SIGMAS: [f32; 2] = [50.0, 100.0];

/// The floor of `accuracy_percent` on the gated inputs (product requirement, accuracy): 99.8 for I2_S, 99.6 for
/// TL1 and TL2. Compare with `>=`, so that a NaN fails.
pub fn floor_percent(format: WeightFormat) -> f64 {
    match format {
        WeightFormat::I2S => 99.8,
        WeightFormat::Tl1 | WeightFormat::Tl2 => 99.6,
    }
}

/// How close a product is to the unquantised one; the formulas are in the head of this file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// 100 * cosine.
    pub accuracy_percent: f64,
    /// L2 norm of the error over that of the expected vector.
    pub relative_l2_error: f64,
    /// Signal to noise ratio in decibels.
    pub snr_db: f64,
    /// Largest absolute error.
    pub max_abs_error: f64,
}

/// Compares `y` with `y64`, of the same length.
pub fn accuracy(y: &[f32], y64: &[f64]) -> Result<Accuracy, QuantError> {
    check_length("y", y64.len(), y.len())?;
    if y.is_empty() {
        return Err(QuantError::Empty { what: "y" });
    }
    check_finite("y", y)?;
    if let Some(index) = y64.iter().position(|value| !value.is_finite()) {
        return Err(QuantError::NonFinite { what: "y64", index, value: y64[index] as f32 });
    }
    let pairs = || y.iter().map(|&y| f64::from(y)).zip(y64.iter().copied());
    let dot: f64 = pairs().map(|(y, y64)| y * y64).sum();
    let actual: f64 = pairs().map(|(y, _)| y * y).sum();
    let signal: f64 = pairs().map(|(_, y64)| y64 * y64).sum();
    let noise: f64 = pairs().map(|(y, y64)| (y - y64).powi(2)).sum();
    Ok(Accuracy {
        accuracy_percent: match (actual == 0.0, signal == 0.0) {
            (true, true) => 100.0,
            (false, false) => 100.0 * dot / (actual.sqrt() * signal.sqrt()),
            _ => 0.0,
        },
        relative_l2_error: if noise == 0.0 { 0.0 } else { noise.sqrt() / signal.sqrt() },
        snr_db: if noise == 0.0 { f64::INFINITY } else { 10.0 * libm::log10(signal / noise) },
        max_abs_error: pairs().map(|(y, y64)| (y - y64).abs()).fold(0.0, f64::max),
    })
}

/// Share, 0..=1, of codes that are what they should be; must be 1 after packing and unpacking.
pub fn exact_code_share(actual: &[i8], expected: &[i8]) -> Result<f64, QuantError> {
    check_length("codes", expected.len(), actual.len())?;
    if actual.is_empty() {
        return Err(QuantError::Empty { what: "codes" });
    }
    let equal = actual.iter().zip(expected).filter(|(a, b)| a == b).count();
    Ok(equal as f64 / expected.len() as f64)
}

/// `y64` `[rows]` for one activation row: codes `[rows, cols]` decoded with `scale` as f32, products and sums in
/// f64, columns in order.
pub fn reference_product(codes: &[i8], scale: f32, x: &[f32]) -> Result<Vec<f64>, QuantError> {
    if x.is_empty() {
        return Err(QuantError::Empty { what: "activations" });
    }
    check_length("codes of whole rows", codes.len() / x.len() * x.len(), codes.len())?;
    let product = |row: &[i8]| {
        row.iter().zip(x).map(|(&code, &x)| f64::from(f32::from(code) * scale) * f64::from(x)).sum()
    };
    Ok(codes.chunks_exact(x.len()).map(product).collect())
}

/// The gated weights: codes [`GATED_ROWS`] x [`GATED_COLS`], each -1, 0, +1 with probability 1/3.
pub fn gated_codes(seed: u64) -> Vec<i8> {
    let mut rng = Rng::for_part(seed, "accuracy/weights");
    (0..GATED_ROWS * GATED_COLS).map(|_| rng.ternary()).collect()
}

/// The gated activations: [`GATED_COLS`] standard normal deviates.
pub fn gated_activations(seed: u64) -> Vec<f32> {
    let mut rng = Rng::for_part(seed, "accuracy/activations");
    (0..GATED_COLS).map(|_| rng.normal() as f32).collect()
}

/// The gated activations with one of them, at a place drawn from the seed, set to `sigma`: shown beside the gate,
/// never gated. One outlier takes the resolution away from all others; by nature accuracy falls to about 99.6
/// at 50 and 99.4 at 100 ([`OUTLIER_SIGMAS`]).
pub fn outlier_activations(seed: u64, sigma: f32) -> Vec<f32> {
    let mut x = gated_activations(seed);
    let at = Rng::for_part(seed, "accuracy/outlier").below(GATED_COLS as u64) as usize;
    x[at] = sigma;
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitnet::quant::absmax::quantize_row;

    const SCALE: f32 = 0.7;

    /// `docs/NUMERICS.md`, linear, with a scale per row so that a bad quantiser can be planted.
    fn linear(codes: &[i8], row_scale: impl Fn(usize) -> f32, x: &[f32]) -> Vec<f32> {
        let mut q = vec![0; x.len()];
        let activation = quantize_row(x, &mut q).unwrap();
        let rows = codes.chunks_exact(x.len()).enumerate();
        rows.map(|(row, codes)| {
            let dot: i32 = codes.iter().zip(&q).map(|(&w, &q)| i32::from(w) * i32::from(q)).sum();
            dot as f32 / activation.scale * row_scale(row)
        })
        .collect()
    }

    fn percent(codes: &[i8], row_scale: impl Fn(usize) -> f32, seed: u64) -> f64 {
        let x = gated_activations(seed);
        let y64 = reference_product(&gated_codes(seed), SCALE, &x).unwrap();
        accuracy(&linear(codes, row_scale, &x), &y64).unwrap().accuracy_percent
    }

    #[test]
    fn a_right_quantiser_is_above_every_floor() {
        for seed in 0..5 {
            let right = percent(&gated_codes(seed), |_| SCALE, seed);
            assert!(WeightFormat::ALL.into_iter().all(|format| right >= floor_percent(format)), "{right}");
            assert!(right < 100.0, "int8 activations must cost something");
        }
    }

    #[test]
    fn planted_quantisers_fall_below_the_floor() {
        let lowest = WeightFormat::ALL.into_iter().map(floor_percent).fold(f64::INFINITY, f64::min);
        for seed in 0..5 {
            let codes = gated_codes(seed);
            let wrong_row_scales =
                percent(&codes, |row| if row % 2 == 0 { SCALE } else { 1.5 * SCALE }, seed);
            let no_signs: Vec<i8> = codes.iter().map(|code| code.abs()).collect();
            let dropped_sign = percent(&no_signs, |_| SCALE, seed);
            let mut shifted = codes;
            for row in shifted.chunks_exact_mut(GATED_COLS) {
                row[..128].rotate_right(1);
            }
            let shifted_block = percent(&shifted, |_| SCALE, seed);
            for (what, percent) in
                [("row scales", wrong_row_scales), ("sign", dropped_sign), ("shifted block", shifted_block)]
            {
                assert!(percent < lowest, "{what}: {percent}");
            }
        }
    }

    #[test]
    fn outliers_cost_what_the_requirement_says() {
        let codes = gated_codes(42);
        let measured = OUTLIER_SIGMAS.map(|sigma| {
            let x = outlier_activations(42, sigma);
            assert_eq!(x.iter().filter(|&&x| x == sigma).count(), 1);
            let y64 = reference_product(&codes, SCALE, &x).unwrap();
            accuracy(&linear(&codes, |_| SCALE, &x), &y64).unwrap().accuracy_percent
        });
        assert!((measured[0] - 99.6).abs() < 0.2 && (measured[1] - 99.4).abs() < 0.2, "{measured:?}");
    }

    #[test]
    fn formulas_by_hand() {
        let found = accuracy(&[3.0, 0.0], &[4.0, 3.0]).unwrap();
        assert_eq!(found.accuracy_percent, 100.0 * 12.0 / (3.0 * 5.0));
        assert_eq!(found.relative_l2_error, 10.0_f64.sqrt() / 5.0);
        assert!((found.snr_db - 10.0 * 2.5_f64.log10()).abs() < 1e-12);
        assert_eq!(found.max_abs_error, 3.0);
        assert_eq!(accuracy(&[-1.0], &[2.0]).unwrap().accuracy_percent, -100.0);
    }

    #[test]
    fn a_common_factor_shows_in_the_relative_error_only() {
        let found = accuracy(&[2.0, 4.0], &[1.0, 2.0]).unwrap();
        assert!((found.accuracy_percent - 100.0).abs() < 1e-12);
        assert_eq!(found.relative_l2_error, 1.0);
    }

    #[test]
    fn zero_vectors_are_defined() {
        let of = |y: f32, y64: f64| {
            let found = accuracy(&[y; 3], &[y64; 3]).unwrap();
            (found.accuracy_percent, found.relative_l2_error, found.snr_db, found.max_abs_error)
        };
        assert_eq!(of(0.0, 0.0), (100.0, 0.0, f64::INFINITY, 0.0));
        assert_eq!(of(2.0, 0.0), (0.0, f64::INFINITY, f64::NEG_INFINITY, 2.0));
        assert_eq!(of(0.0, 2.0), (0.0, 1.0, 0.0, 2.0));
    }

    #[test]
    fn nothing_and_nonsense_are_errors() {
        assert_eq!(accuracy(&[], &[]), Err(QuantError::Empty { what: "y" }));
        assert!(matches!(accuracy(&[f32::NAN], &[1.0]), Err(QuantError::NonFinite { what: "y", .. })));
        assert!(matches!(accuracy(&[1.0], &[f64::INFINITY]), Err(QuantError::NonFinite { what: "y64", .. })));
        assert!(matches!(accuracy(&[1.0], &[1.0, 2.0]), Err(QuantError::Length { .. })));
        assert!(exact_code_share(&[], &[]).is_err());
        assert_eq!(exact_code_share(&[1, 0, -1, 1], &[1, 0, -1, 0]), Ok(0.75));
        assert!(reference_product(&[1, 0, 1], 1.0, &[1.0, 2.0]).is_err());
        assert!(reference_product(&[1], 1.0, &[]).is_err());
    }
}
