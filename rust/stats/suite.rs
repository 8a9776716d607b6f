//! Many workloads at once: which of many alarms to believe, and whether the whole suite moved.
//!
//! Benjamini and Hochberg: of the alarms kept, at most a share q is false on average. For dashboards and history; a
//! gate that must be green for every workload needs no correction (intersection-union: Berger 1982), and its red needs a
//! second measurement instead.
//! Suite-wide shift: more than 60 % of at least 8 workloads move the same way by a similar factor, and the median
//! moves beyond 3 s_AA. Many equal causes are unlikely; one common one (machine, build flags) is not. A reader may not
//! conclude that a shift is harmless: a lost target feature slows everything down and is a real regression.
//! Unit: p values; ln of a ratio. Assumes for the first: p values are independent or positively dependent.
//! Source: Benjamini and Hochberg, JRSS B 57 (1995). Oracle: `scipy.stats.false_discovery_control`.

use super::{StatsError, median};

/// Which of the hypotheses with these p values are rejected at false discovery rate `q`.
pub fn benjamini_hochberg(p: &[f64], q: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let allowed = |rank: usize| q * (rank + 1) as f64 / p.len() as f64;
    let last = (0..order.len()).rev().find(|&rank| p[order[rank]] <= allowed(rank));
    let mut rejected = vec![false; p.len()];
    if let Some(last) = last {
        order[..=last].iter().for_each(|&i| rejected[i] = true);
    }
    rejected
}

/// A movement of the whole suite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// Median of the effects, ln of a ratio.
    pub median: f64,
    /// Share of the workloads that moved the same way and lie within 3 s_AA of the median.
    pub share: f64,
}

/// Workloads below which a common movement means nothing.
const ENOUGH_WORKLOADS: usize = 8;

/// Share of the workloads that must have moved together.
const MOST: f64 = 0.6;

/// Whether the effects `theta` (ln of ratios, one per workload) moved together; `s_aa` is the spread of A/A results.
///
/// # Errors
/// [`StatsError::NotFinite`].
pub fn suite_shift(theta: &[f64], s_aa: f64) -> Result<Option<Shift>, StatsError> {
    let Some(centre) = median(theta)?.filter(|_| theta.len() >= ENOUGH_WORKLOADS) else { return Ok(None) };
    let together =
        |effect: &&f64| effect.signum() == centre.signum() && (**effect - centre).abs() <= 3.0 * s_aa;
    let share = theta.iter().filter(together).count() as f64 / theta.len() as f64;
    Ok((centre.abs() > 3.0 * s_aa && share > MOST).then_some(Shift { median: centre, share }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn false_discoveries_by_hand() {
        // Limits at q = 0.1 over five: 0.02, 0.04, 0.06, 0.08, 0.10; 0.055 pulls 0.045 in with it.
        let kept = benjamini_hochberg(&[0.9, 0.045, 0.001, 0.5, 0.055], 0.1);
        assert_eq!(kept, [false, true, true, false, true]);
        assert_eq!(benjamini_hochberg(&[0.2, 0.9], 0.1), [false, false]);
        assert!(benjamini_hochberg(&[], 0.1).is_empty());
        assert_eq!(benjamini_hochberg(&[f64::NAN, 0.01], 0.1), [false, true]);
    }

    #[test]
    fn a_shift_needs_many_together() {
        let moved = [0.10, 0.11, 0.09, 0.10, 0.10, 0.105, 0.095, 0.0];
        let shift = suite_shift(&moved, 0.01).expect("finite").expect("a shift");
        assert_eq!((shift.median, shift.share), (0.10, 7.0 / 8.0));
        assert_eq!(suite_shift(&moved[..7], 0.01), Ok(None), "seven are too few");
        assert_eq!(suite_shift(&moved, 0.04), Ok(None), "within the noise");
        let spread: Vec<f64> = (0..10).map(|i| 0.05 * f64::from(i)).collect();
        assert_eq!(suite_shift(&spread, 0.01), Ok(None), "they moved by different factors");
        assert!(suite_shift(&[f64::NAN; 9], 0.01).is_err());
    }
}
