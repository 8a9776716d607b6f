//! Floats to int8 activations, one scale per row (token): the largest magnitude becomes 127
//! (`docs/NUMERICS.md`). The rules of I2_S and of TL1 and TL2 differ in where the division is rounded and in
//! what happens to rows of (nearly) zero.

use super::{QuantError, check_finite, check_length};

/// The smallest magnitude that the rule of I2_S divides by, an f64.
const MIN_ABSMAX: f64 = 1e-5;

/// What a quantised row is, besides its codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// 127 / absmax: activations were multiplied by it; products are divided by it.
    pub scale: f32,
    /// Sum of the codes; exact for up to 2^24 of them, modulo 2^32 beyond.
    pub sum: i32,
}

/// Quantises the row `x` to `q`, of the same length, by the rule of I2_S: `m = max(1e-5, max |x|)` in f64,
/// `scale = f32(127 / m)`.
///
/// (The detour through f64 changes no bit: a quotient of two f32 rounded to 53 bits and then to 24 is the quotient
/// rounded to 24, since 53 >= 2 * 24 + 2; and both floors give 1.27e7.)
pub fn quantize_row(x: &[f32], q: &mut [i8]) -> Result<Activation, QuantError> {
    let absmax = checked_absmax(x, q)?;
    let scale = (127.0 / f64::from(absmax).max(MIN_ABSMAX)) as f32;
    Ok(round_row(x, scale, q))
}

/// Quantises the row `x` to `q`, of the same length, by the rule of TL1 and TL2: `scale = 127 / max |x|` in f32.
/// Where that is not finite (a row of zeros, or of nothing above 127 / `f32::MAX`) by the rule of I2_S.
pub fn quantize_row_tl(x: &[f32], q: &mut [i8]) -> Result<Activation, QuantError> {
    let scale = 127.0 / checked_absmax(x, q)?;
    if scale.is_finite() { Ok(round_row(x, scale, q)) } else { quantize_row(x, q) }
}

fn checked_absmax(x: &[f32], q: &[i8]) -> Result<f32, QuantError> {
    check_length("activation codes", x.len(), q.len())?;
    check_finite("activation", x)?;
    Ok(x.iter().fold(0.0, |max, x| x.abs().max(max)))
}

fn round_row(x: &[f32], scale: f32, q: &mut [i8]) -> Activation {
    let mut sum = 0_i32;
    for (q, &x) in q.iter_mut().zip(x) {
        *q = (x * scale).round_ties_even().clamp(-128.0, 127.0) as i8;
        sum = sum.wrapping_add(i32::from(*q));
    }
    Activation { scale, sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&[f32], &mut [i8]) -> Result<Activation, QuantError>;
    const RULES: [Rule; 2] = [quantize_row, quantize_row_tl];

    fn by(rule: Rule, x: &[f32]) -> (Vec<i8>, Activation) {
        let mut q = vec![99; x.len()];
        let activation = rule(x, &mut q).unwrap();
        (q, activation)
    }

    #[test]
    fn ties_go_to_even_and_the_largest_becomes_127() {
        for rule in RULES {
            let (q, activation) = by(rule, &[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0]);
            assert_eq!(q, [127, 0, 2, 2, 0, -2, -127]);
            assert_eq!(activation, Activation { scale: 1.0, sum: 2 });
        }
    }

    #[test]
    fn zero_rows_have_the_scale_of_the_floor() {
        for rule in RULES {
            for zero in [0.0, -0.0, f32::from_bits(1)] {
                let expected = Activation { scale: (127.0 / 1e-5_f64) as f32, sum: 0 };
                assert_eq!(by(rule, &[zero; 5]), (vec![0; 5], expected));
            }
        }
    }

    /// Where the rules part: rows below the floor, and the rounding of the division.
    #[test]
    fn the_rules_differ_below_the_floor() {
        let (q, i2s) = by(quantize_row, &[4e-6, -1e-6]);
        assert_eq!((q, i2s.scale), (vec![51, -13], 1.27e7)); // 50.8 and 12.7
        let (q, tl) = by(quantize_row_tl, &[4e-6, -1e-6]);
        assert_eq!((q, tl.scale), (vec![127, -32], 127.0 / 4e-6));
        // The smallest row that the rule of TL scales by itself, and the largest that it leaves to I2_S.
        let limit = 127.0 / f32::MAX;
        let scale = |x: f32| by(quantize_row_tl, &[x]).1.scale;
        assert!(scale(limit * 1.001) > 3e38 && by(quantize_row_tl, &[limit * 1.001]).0 == [127]);
        assert_eq!(scale(limit * 0.999), 1.27e7);
    }

    #[test]
    fn extremes_stay_in_range() {
        for rule in RULES {
            assert_eq!(by(rule, &[f32::MAX, f32::MIN, 1.0]).0, [127, -127, 0]);
            let mut rng = crate::rng::Rng::new(5);
            for _ in 0..2000 {
                let x = rng.normal() as f32;
                assert_eq!(by(rule, &[x, -x]).0, if x > 0.0 { [127, -127] } else { [-127, 127] });
            }
        }
    }

    #[test]
    fn bad_input_is_named_and_nothing_is_written() {
        for rule in RULES {
            let mut q = [7; 3];
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let error = rule(&[0.0, 1.0, bad], &mut q).unwrap_err();
                assert!(
                    matches!(error, QuantError::NonFinite { what: "activation", index: 2, .. }),
                    "{error}"
                );
            }
            assert!(matches!(rule(&[1.0], &mut q), Err(QuantError::Length { expected: 1, actual: 3, .. })));
            assert_eq!(q, [7; 3]);
        }
    }
}
