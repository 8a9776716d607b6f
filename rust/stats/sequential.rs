//! Bounds that hold at whatever block one stops.
//!
//! ```text
//! for a value v after n blocks, S = number of observations above v
//! E = 2^n B(S + 1/2, n - S + 1/2) / B(1/2, 1/2)        bets on heads or tails by the Krichevsky-Trofimov mixture
//! v is excluded once E >= 1 / alpha
//! ```
//!
//! Estimates: a lower and an upper bound of the median that are *both* right, at every n at once, with probability
//! at least 1 - alpha (Ville's inequality): stopping because of what the bounds show is allowed, and no plan of looks is
//! needed. Unit: that of the observations. Assumes: the sign of each d_i - median is a fair coin given the past, which
//! random order gives. They are order statistics, wider than signed ranks: the price of looking whenever one likes.
//! A reader may not conclude that they cover what differs between processes.
//! Source: Howard and Ramdas 2022; Waudby-Smith and Ramdas 2024; Krichevsky and Trofimov 1981.
//! Oracle: exact enumeration and simulation in `tests/statistics.rs`.

use super::StatsError;
use super::quantile::finite;

/// Lower and upper bound of the median of `observations`; `None` before any value can be excluded.
///
/// # Errors
/// [`StatsError::NotFinite`]; [`StatsError::Probability`] unless 0 < alpha < 1.
pub fn always_valid_bounds(observations: &[f64], alpha: f64) -> Result<Option<[f64; 2]>, StatsError> {
    if !(alpha > 0.0 && alpha < 1.0) {
        return Err(StatsError::Probability { value: alpha, expected: "above 0 and below 1" });
    }
    let mut sorted = finite(observations)?.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    // A value just below the k-th smallest (from 1) has n - k + 1 observations above it.
    let excluded = |k: usize| ln_e_value(n, n - k + 1) >= -alpha.ln();
    let Some(k) = (1..=n.div_ceil(2)).rev().find(|&k| excluded(k)) else { return Ok(None) };
    Ok(Some([sorted[k - 1], sorted[n - k]]))
}

/// ln E with `above` of `n` observations above the value.
fn ln_e_value(n: usize, above: usize) -> f64 {
    let ln_beta = |a: f64, b: f64| libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
    let (n, above) = (n as f64, above as f64);
    n * std::f64::consts::LN_2 + ln_beta(above + 0.5, n - above + 0.5) - ln_beta(0.5, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_values_by_hand() {
        // One observation: 2 B(3/2, 1/2) / B(1/2, 1/2) = 1. Two above of two: 4 * 3/8 = 3/2; one above: 4 * 1/8.
        assert!(ln_e_value(1, 1).abs() < 1e-12);
        assert!((ln_e_value(2, 2).exp() - 1.5).abs() < 1e-12);
        assert!((ln_e_value(2, 1).exp() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn bounds_tighten_and_need_enough() {
        let d: Vec<f64> = (0..60).map(f64::from).collect();
        // All n above a value: E = 2^n C(2n, n) / 4^n = 14.4 at n = 6, 26.8 at n = 7.
        assert_eq!(always_valid_bounds(&d[..6], 0.05), Ok(None));
        assert_eq!(always_valid_bounds(&d[..7], 0.05), Ok(Some([0.0, 6.0])));
        let Ok(Some([lower, upper])) = always_valid_bounds(&d, 0.05) else { panic!("enough") };
        assert!(lower > 15.0 && upper < 44.0 && (lower + upper - 59.0).abs() < 1e-12, "{lower} {upper}");
        let Ok(Some([wider, _])) = always_valid_bounds(&d, 0.01) else { panic!("enough") };
        assert!(wider < lower);
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(matches!(always_valid_bounds(&[f64::NAN], 0.05), Err(StatsError::NotFinite { .. })));
        assert!(matches!(always_valid_bounds(&[1.0], 0.0), Err(StatsError::Probability { .. })));
        assert_eq!(always_valid_bounds(&[], 0.05), Ok(None));
    }
}
