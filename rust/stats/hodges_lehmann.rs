//! The Hodges-Lehmann estimate of a centre: the median of all pairwise means.
//!
//! Estimates: the centre of symmetry of the observations, median of (d_i + d_j) / 2 over i <= j.
//! Unit: that of the observations. Assumes: they scatter symmetrically about the centre, which block
//! log-ratios do because the order of the sides is a fair coin. 29 % of them may be arbitrarily wrong.
//! A reader may not conclude: how sure it is; that is the interval's business.
//! Source: Hodges and Lehmann, "Estimates of location based on rank tests", Ann. Math. Statist. 34 (1963).
//! Oracle: NumPy, `tests/golden/stats/estimates.json`.

use super::StatsError;
use super::quantile::{finite, median};

/// More observations are refused: their pairs would need more than 64 MiB.
pub const MAX_OBSERVATIONS: usize = 4096;

/// The Hodges-Lehmann estimate of `observations`, `None` of nothing.
///
/// # Errors
/// [`StatsError::NotFinite`], [`StatsError::TooMany`].
pub fn hodges_lehmann(observations: &[f64]) -> Result<Option<f64>, StatsError> {
    median(&walsh_averages(observations)?)
}

/// The n(n+1)/2 means of all pairs i <= j (Walsh averages), unsorted.
pub(super) fn walsh_averages(observations: &[f64]) -> Result<Vec<f64>, StatsError> {
    let n = observations.len();
    if n > MAX_OBSERVATIONS {
        return Err(StatsError::TooMany { n });
    }
    finite(observations)?;
    let mut averages = Vec::with_capacity(n * (n + 1) / 2);
    for (i, &first) in observations.iter().enumerate() {
        averages.extend(observations[i..].iter().map(|&second| first.midpoint(second)));
    }
    Ok(averages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_by_hand() {
        assert_eq!(hodges_lehmann(&[]), Ok(None));
        assert_eq!(hodges_lehmann(&[2.0]), Ok(Some(2.0)));
        // Walsh averages 1, 2.5, 4: the mean of two observations.
        assert_eq!(hodges_lehmann(&[4.0, 1.0]), Ok(Some(2.5)));
        // 0, 0.5, 1, 50, 50.5, 100: one wild value of three moves it, but not to 33.7, the mean.
        assert_eq!(hodges_lehmann(&[0.0, 1.0, 100.0]), Ok(Some(25.5)));
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(matches!(hodges_lehmann(&[0.0, f64::NAN]), Err(StatsError::NotFinite { index: 1, .. })));
        let many = vec![0.0; MAX_OBSERVATIONS + 1];
        assert_eq!(hodges_lehmann(&many), Err(StatsError::TooMany { n: MAX_OBSERVATIONS + 1 }));
        assert_eq!(hodges_lehmann(&[f64::MAX, f64::MAX]), Ok(Some(f64::MAX)), "no overflow");
    }
}
