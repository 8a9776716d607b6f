//! Quantiles of a sample, for tables.
//!
//! Estimates: the value below which a share p of the sample lies; linear between order statistics, type 7 of
//! Hyndman and Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996).
//! Unit: that of the values. Assumes: nothing. A reader may not conclude: anything about the next run; the
//! spread of samples within one process is not the uncertainty of a comparison.
//! Oracle: `numpy.quantile(method="linear")`, `tests/golden/stats/estimates.json`.

use super::StatsError;

/// The `p` quantile of `values` in any order, `None` of nothing.
///
/// # Errors
/// [`StatsError::NotFinite`]; [`StatsError::Probability`] unless 0 <= p <= 1.
pub fn quantile(values: &[f64], p: f64) -> Result<Option<f64>, StatsError> {
    if !(0.0..=1.0).contains(&p) {
        return Err(StatsError::Probability { value: p, expected: "0 to 1" });
    }
    let mut sorted = finite(values)?.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return Ok(None) };
    let position = p * last as f64;
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let weight = position - below as f64;
    Ok(Some(sorted[below] * (1.0 - weight) + sorted[above] * weight))
}

/// The median of `values`, `None` of nothing.
///
/// # Errors
/// [`StatsError::NotFinite`].
pub fn median(values: &[f64]) -> Result<Option<f64>, StatsError> {
    quantile(values, 0.5)
}

/// The values themselves, if all are finite.
pub(super) fn finite(values: &[f64]) -> Result<&[f64], StatsError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(StatsError::NotFinite { index, value: values[index] }),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_by_hand() {
        assert_eq!(median(&[]), Ok(None));
        assert_eq!(median(&[3.0]), Ok(Some(3.0)));
        assert_eq!(median(&[4.0, 1.0]), Ok(Some(2.5)));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Ok(Some(4.0)));
        assert_eq!(quantile(&[0.0, 10.0], 0.25), Ok(Some(2.5)));
        assert_eq!(quantile(&[5.0, 7.0], 0.0), Ok(Some(5.0)));
        assert_eq!(quantile(&[5.0, 7.0], 1.0), Ok(Some(7.0)));
    }

    #[test]
    fn what_has_no_quantile_is_an_error() {
        assert!(matches!(median(&[1.0, f64::NAN]), Err(StatsError::NotFinite { index: 1, .. })));
        assert!(matches!(median(&[f64::INFINITY]), Err(StatsError::NotFinite { index: 0, .. })));
        for p in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(quantile(&[1.0], p), Err(StatsError::Probability { .. })), "{p}");
        }
    }
}
