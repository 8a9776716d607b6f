//! Floats to ternary weights: the two rules of `docs/NUMERICS.md`, one scale for the whole matrix.
//!
//! [`absmean`] is the converter's rule, for arbitrary floats (BitNet b1.58: Ma et al., "The Era of 1-bit LLMs",
//! 2024): divide by the mean magnitude, round half to even, clamp to -1..=1. [`max_abs`] is bitnet.cpp's packer,
//! which expects weights that already are 0 or +-s: it keeps the signs, and s is the largest magnitude.

use super::{QuantError, check_finite, check_length};

/// The smallest mean that is divided by.
const MIN_MEAN: f32 = 1e-5;
/// Below this magnitude, compared as f64, [`max_abs`] writes code 0.
const MIN_WEIGHT: f64 = 1e-6;

/// Quantises `src` to `codes` of the same length and returns the scale: what a code of +1 stands for, close to
/// mean |w|, and 0 where every code is 0.
///
/// The mean is summed in f64 in index order, so a part of the matrix cannot be quantised alone. A mean within two
/// ulp of `f32::MAX` has an infinite scale, which packing refuses.
pub fn absmean(src: &[f32], codes: &mut [i8]) -> Result<f32, QuantError> {
    check_length("codes", src.len(), codes.len())?;
    check_finite("weight", src)?;
    let sum: f64 = src.iter().map(|&w| f64::from(w.abs())).sum();
    let mean = (sum / src.len() as f64) as f32;
    let inverse = 1.0 / mean.max(MIN_MEAN);
    for (code, &w) in codes.iter_mut().zip(src) {
        *code = (w * inverse).round_ties_even().clamp(-1.0, 1.0) as i8;
    }
    Ok(if codes.iter().all(|&code| code == 0) { 0.0 } else { 1.0 / inverse })
}

/// Quantises weights that already are 0 or +-s: `codes`, of the same length, get their signs; returns max |w|,
/// 0 for an all-zero matrix. Magnitudes below 1e-6 count as zero; everything else as +-s, however small.
pub fn max_abs(src: &[f32], codes: &mut [i8]) -> Result<f32, QuantError> {
    check_length("codes", src.len(), codes.len())?;
    check_finite("weight", src)?;
    for (code, &w) in codes.iter_mut().zip(src) {
        *code = if f64::from(w.abs()) < MIN_WEIGHT { 0 } else { w.signum() as i8 };
    }
    Ok(src.iter().fold(0.0, |max, w| w.abs().max(max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(rule: fn(&[f32], &mut [i8]) -> Result<f32, QuantError>, src: &[f32]) -> (Vec<i8>, f32) {
        let mut codes = vec![99; src.len()];
        let scale = rule(src, &mut codes).unwrap();
        (codes, scale)
    }

    #[test]
    fn absmean_divides_by_the_mean_and_rounds_half_to_even() {
        // Mean 1: 0.5 and 1.5 are ties.
        let src = [0.5, -0.5, 1.5, -1.5, 1.0, -1.0, f32::from_bits(0.5_f32.to_bits() + 1), 1.5];
        let (codes, scale) = by(absmean, &[&src[..6], &[0.0, 2.0]].concat());
        assert_eq!((codes, scale), (vec![0, 0, 1, -1, 1, -1, 0, 1], 1.0));
        // Above the tie, the mean pulled below 1: rounds up.
        let (codes, _) = by(absmean, &src[6..7]);
        assert_eq!(codes, [1]);
    }

    #[test]
    fn the_mean_has_a_floor_and_zero_matrices_have_scale_zero() {
        assert_eq!(by(absmean, &[0.0, -0.0, 0.0]), (vec![0, 0, 0], 0.0));
        assert_eq!(by(absmean, &[1e-6, -4e-6]), (vec![0, 0], 0.0));
        let (codes, scale) = by(absmean, &[9e-6, -9e-6, f32::from_bits(1)]);
        assert_eq!((codes, scale), (vec![1, -1, 0], 1.0 / (1.0 / 1e-5)));
        assert_eq!(by(absmean, &[]), (vec![], 0.0));
    }

    /// The kept scale is 1 / (1 / mean), two roundings, not the mean itself.
    #[test]
    fn the_scale_is_the_inverse_of_the_inverse() {
        let mut rng = crate::rng::Rng::new(3);
        let twice_rounded = (0..100).filter(|_| {
            let w = (rng.unit_f64() + 0.1) as f32;
            let (_, scale) = by(absmean, &[w]);
            assert_eq!(scale, 1.0 / (1.0 / w));
            scale != w
        });
        assert!(twice_rounded.count() > 0);
    }

    #[test]
    fn huge_weights_do_not_overflow_the_mean() {
        assert_eq!(by(absmean, &[3e38, -3e38, 3e38]).0, [1, -1, 1]);
    }

    #[test]
    fn max_abs_keeps_signs_above_a_millionth() {
        let millionth = 1e-6_f32; // as f64 slightly below 1e-6
        let above = f32::from_bits(millionth.to_bits() + 1);
        assert!(f64::from(millionth) < 1e-6 && f64::from(above) > 1e-6);
        let (codes, scale) = by(max_abs, &[millionth, above, -above, -0.0, -2.0, 0.5]);
        assert_eq!((codes, scale), (vec![0, 1, -1, 0, -1, 1], 2.0));
        assert_eq!(by(max_abs, &[0.0, -0.0]), (vec![0, 0], 0.0));
    }

    #[test]
    fn bad_input_is_named_and_nothing_is_written() {
        for rule in [absmean, max_abs] {
            let mut codes = [7; 3];
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let error = rule(&[1.0, bad, bad], &mut codes).unwrap_err();
                assert!(matches!(error, QuantError::NonFinite { what: "weight", index: 1, .. }), "{error}");
            }
            let error = rule(&[1.0, 2.0], &mut codes).unwrap_err();
            assert_eq!(error, QuantError::Length { what: "codes", expected: 2, actual: 3 });
            assert_eq!(codes, [7; 3]);
        }
    }
}
