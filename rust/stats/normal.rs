//! Quantiles of the standard normal distribution.
//!
//! Computes: z with P(Z <= z) = p, relative error about 1e-15. Unit: standard deviations. Assumes: nothing.
//! Source: Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics
//! 37 (1988), routine PPND16. Oracle: `scipy.stats.norm.ppf`, `tests/golden/stats/estimates.json`.

use super::StatsError;

/// Rational approximation in three regions: |p - 1/2| <= 0.425, then r = sqrt(-ln min(p, 1-p)) up to 5, beyond.
const CENTRAL: [[f64; 8]; 2] = [
    [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ],
    [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_545,
    ],
];
const MIDDLE: [[f64; 8]; 2] = [
    [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        7.745_450_142_783_414e-4,
    ],
    [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ],
];
const TAIL: [[f64; 8]; 2] = [
    [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ],
    [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ],
];

/// The standard normal quantile of `p`.
///
/// # Errors
/// [`StatsError::Probability`] unless 0 < p < 1.
pub fn normal_quantile(p: f64) -> Result<f64, StatsError> {
    if !(p > 0.0 && p < 1.0) {
        return Err(StatsError::Probability { value: p, expected: "above 0 and below 1" });
    }
    let from_half = p - 0.5;
    if from_half.abs() <= 0.425 {
        return Ok(from_half * ratio(&CENTRAL, 0.180_625 - from_half * from_half));
    }
    let r = (-p.min(1.0 - p).ln()).sqrt();
    let magnitude = if r <= 5.0 { ratio(&MIDDLE, r - 1.6) } else { ratio(&TAIL, r - 5.0) };
    Ok(magnitude.copysign(from_half))
}

/// Quotient of two polynomials, coefficients in ascending order.
fn ratio(coefficients: &[[f64; 8]; 2], x: f64) -> f64 {
    let [above, below] =
        coefficients.map(|polynomial| polynomial.iter().rev().fold(0.0, |sum, &c| sum * x + c));
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symmetric_and_bounded() {
        assert_eq!(normal_quantile(0.5), Ok(0.0));
        for p in [0.3, 0.01, 1e-4, 1e-9] {
            let (low, high) = (normal_quantile(p).expect("p is fine"), normal_quantile(1.0 - p));
            assert!((low + high.expect("p is fine")).abs() < 1e-6, "{p}: 1 - p itself is rounded");
        }
        for p in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(normal_quantile(p).is_err());
        }
    }
}
