//! One process, many blocks: how far consecutive batches of them differ.
//!
//! ```text
//! cut the series into B batches of consecutive values, u_j = centre of batch j
//! half width = t(B-1, 1-alpha) sd(u) / sqrt(B)
//! unpaired: each side is cut apart, centre = median, half width = t(2(B-1)) sqrt(var_1 / B + var_2 / B)
//! ```
//!
//! Estimates: the half width of the centre of an autocorrelated series. Unit: that of the values. Assumes: batches are
//! long against whatever makes neighbours alike. The signed-rank interval is right for any noise that hits both sides
//! alike, but not when one side alone is in another state for many blocks; batches see that, as far as it changes
//! within the series. A reader may not conclude anything about another process.
//! Source: the method of batch means (Conway 1963; Law and Kelton, "Simulation Modeling and Analysis", 9.5).
//! Oracle: hand-computed values here, coverage by simulation in `tests/statistics.rs`.

use super::effect::deviation;
use super::{StatsError, hodges_lehmann, median, student_quantile};

/// Half width of the Hodges-Lehmann centre of a series by its batches; `None` with fewer than two batches of two.
///
/// # Errors
/// [`StatsError::NotFinite`], [`StatsError::Probability`], [`StatsError::TooMany`].
pub fn batch_half_width(values: &[f64], batches: usize, alpha: f64) -> Result<Option<f64>, StatsError> {
    let Some(pieces) = cut(values, batches) else { return Ok(None) };
    let centres = pieces.into_iter().map(hodges_lehmann).collect::<Result<Vec<_>, _>>()?;
    let centres: Vec<f64> = centres.into_iter().flatten().collect();
    let Some(scatter) = deviation(&centres) else { return Ok(None) };
    let n = centres.len() as f64;
    Ok(Some(student_quantile(1.0 - alpha, n - 1.0)? * scatter / n.sqrt()))
}

/// Difference of medians of two series that were not interleaved (second less first) and its half width by batches.
///
/// # Errors
/// As [`batch_half_width`].
pub fn unpaired_difference(
    first: &[f64],
    second: &[f64],
    batches: usize,
    alpha: f64,
) -> Result<Option<(f64, f64)>, StatsError> {
    let (Some(ours), Some(theirs)) = (cut(first, batches), cut(second, batches)) else { return Ok(None) };
    let variance = |pieces: Vec<&[f64]>| -> Result<Option<(f64, f64)>, StatsError> {
        let centres = pieces.into_iter().map(median).collect::<Result<Vec<_>, _>>()?;
        let centres: Vec<f64> = centres.into_iter().flatten().collect();
        let n = centres.len() as f64;
        Ok(deviation(&centres).map(|scatter| (scatter * scatter / n, n - 1.0)))
    };
    let (Some((one, freedom)), Some((two, more))) = (variance(ours)?, variance(theirs)?) else {
        return Ok(None);
    };
    let centre = median(second)?.zip(median(first)?).map(|(second, first)| second - first);
    let half = student_quantile(1.0 - alpha, freedom + more)? * (one + two).sqrt();
    Ok(centre.map(|centre| (centre, half)))
}

/// At most `batches` pieces of nearly equal length, each of at least two values.
fn cut(values: &[f64], batches: usize) -> Option<Vec<&[f64]>> {
    let pieces = batches.min(values.len() / 2);
    let at = |i: usize| i * values.len() / pieces;
    (pieces >= 2).then(|| (0..pieces).map(|i| &values[at(i)..at(i + 1)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Batches 0 0, 2 2, 4 4: sd 2, t(2, 0.95) = 2.919986, over sqrt(3).
        let half =
            batch_half_width(&[0.0, 0.0, 2.0, 2.0, 4.0, 4.0], 3, 0.05).expect("finite").expect("enough");
        assert!((half - 2.919_985_580_353_7 * 2.0 / 3_f64.sqrt()).abs() < 1e-9, "{half}");
        assert_eq!(batch_half_width(&[1.0, 2.0, 3.0], 5, 0.05), Ok(None));
        assert!(batch_half_width(&[f64::NAN; 8], 2, 0.05).is_err());
        // Both sides: batches of sd sqrt(2), t(2, 0.95), variances 2 / 2 each.
        let (difference, half) = unpaired_difference(&[0.0, 0.0, 2.0, 2.0], &[5.0, 5.0, 7.0, 7.0], 2, 0.05)
            .expect("finite")
            .expect("enough");
        assert_eq!(difference, 5.0);
        assert!((half - 2.919_985_580_353_7 * 2_f64.sqrt()).abs() < 1e-9, "{half}");
        assert_eq!(unpaired_difference(&[1.0; 9], &[1.0; 3], 2, 0.05), Ok(None));
    }

    /// A series that jumps once: signed ranks would be sure, batches are not.
    #[test]
    fn a_jump_of_one_side_is_seen() {
        let steady: Vec<f64> = (0..60).map(|i| 0.001 * f64::from(i % 3)).collect();
        let jump: Vec<f64> =
            steady.iter().enumerate().map(|(i, d)| d + if i < 30 { 0.0 } else { 0.08 }).collect();
        let half = |values: &[f64]| batch_half_width(values, 10, 0.05).expect("finite").expect("enough");
        assert!(half(&steady) < 0.001 && half(&jump) > 0.02, "{} {}", half(&steady), half(&jump));
    }
}
