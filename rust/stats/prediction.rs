//! Is today like the earlier sessions: the interval of a change that was not measured in the same blocks.
//!
//! ```text
//! change = y_new - mean(y),   half width = t(m-1, 1-alpha) s_y sqrt(1 + 1/m), never below the floor
//! ```
//!
//! Estimates: the change of a quantity since m earlier sessions, each of which gave one value y. Unit: that of the
//! values, here ln of a ratio. Assumes: without a change, sessions scatter about one value independently and normally; a
//! machine that changed in between breaks that, which is why fingerprints are compared first. A reader may not
//! conclude from a few sessions what many would say: with three, t(2, 0.95) = 2.9.
//! Source: Hahn and Meeker, "Statistical Intervals" (1991), 4.7. Oracle: SciPy, `tests/golden/stats/estimates.json`.

use super::effect::deviation;
use super::quantile::finite;
use super::{StatsError, student_quantile};

/// A change with one-sided bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Today's value less the mean of the earlier ones.
    pub change: f64,
    /// Lower bound, wrong with probability at most alpha.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Earlier sessions.
    pub n: usize,
}

/// The change of `new` since the sessions of `history`; `None` below two sessions.
///
/// # Errors
/// [`StatsError::NotFinite`], [`StatsError::Probability`].
pub fn prediction_interval(
    history: &[f64],
    new: f64,
    alpha: f64,
    floor: f64,
) -> Result<Option<Prediction>, StatsError> {
    finite(history)?;
    finite(&[new])?;
    let Some(scatter) = deviation(history) else { return Ok(None) };
    let n = history.len();
    let m = n as f64;
    let half = student_quantile(1.0 - alpha, m - 1.0)? * scatter * (1.0 + 1.0 / m).sqrt();
    let half = half.max(floor);
    let change = new - history.iter().sum::<f64>() / m;
    Ok(Some(Prediction { change, lower: change - half, upper: change + half, n }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // mean 0.02, sd 0.01, t(2, 0.95) = 2.919986, times sqrt(4/3).
        let found =
            prediction_interval(&[0.01, 0.02, 0.03], 0.10, 0.05, 0.0).expect("finite").expect("three");
        assert!((found.change - 0.08).abs() < 1e-12 && found.n == 3);
        let half = 2.919_985_580_353_7 * 0.01 * (4.0_f64 / 3.0).sqrt();
        assert!((found.upper - found.change - half).abs() < 1e-10, "{found:?}");
        let floored =
            prediction_interval(&[0.01, 0.02, 0.03], 0.10, 0.05, 0.5).expect("finite").expect("three");
        assert!((floored.lower - (0.08 - 0.5)).abs() < 1e-12);
        assert_eq!(prediction_interval(&[0.1], 0.1, 0.05, 0.0), Ok(None));
        assert!(prediction_interval(&[0.1, f64::NAN], 0.1, 0.05, 0.0).is_err());
        assert!(prediction_interval(&[0.1, 0.2], f64::INFINITY, 0.05, 0.0).is_err());
    }
}
