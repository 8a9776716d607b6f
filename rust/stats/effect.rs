//! One effect out of several launches: how much, and how sure.
//!
//! ```text
//! estimate   Hodges-Lehmann over the log-ratios of all blocks
//! (a) within    signed-rank interval over all blocks
//! (b) between   t(L-1, 1-alpha) * sd(u) / sqrt(L), u = the estimate of each launch alone
//! (c) floor     what two instances of one build differ by
//! each bound is the widest of the three
//! ```
//!
//! Estimates: theta = ln(time of the subject / time of the other side). Unit: ln of a ratio. Assumes for (a) that
//! order within blocks was random; for (b) that launches are independent draws (layout, ASLR and page placement are one
//! draw per process) scattered about normally; for (c) that the A/A results come from the same design. None of the
//! three alone is enough: 100 blocks of one process are one draw, five launches say little of blocks, and neither sees
//! what the whole design hides. A reader may not conclude what one future process will show.
//! Source: Kalibera and Jones 2013 (levels of repetition); Hodges and Lehmann 1963; Schuemie et al. 2014 (the floor as
//! an empirical null). Oracle: `tests/statistics.rs`, known answers and calibration.

use super::normal::normal_quantile;
use super::{Interval, StatsError, hodges_lehmann, median, signed_rank_interval, student_quantile};
use std::collections::BTreeMap;

/// An estimate and its one-sided bounds, each wrong with probability at most alpha; all in ln of the ratio.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// Hodges-Lehmann over all blocks.
    pub estimate: f64,
    /// The lowest of the three lower bounds.
    pub lower: f64,
    /// The highest of the three upper bounds.
    pub upper: f64,
    /// Signed-rank bounds over all blocks.
    pub within: [f64; 2],
    /// Half width by the scatter of launches; `None` with one launch.
    pub between: Option<f64>,
    /// Half width by A/A results.
    pub floor: f64,
    /// Blocks used.
    pub n_blocks: usize,
    /// Launches used.
    pub n_launches: usize,
}

/// The effect of block log-ratios, entry i from launch `launch[i]`; `None` if the blocks are too few for any bound.
///
/// # Errors
/// [`StatsError::Length`], [`StatsError::NotFinite`], [`StatsError::TooMany`], [`StatsError::Probability`].
pub fn effect(
    log_ratio: &[f64],
    launch: &[u32],
    alpha: f64,
    floor: f64,
) -> Result<Option<Effect>, StatsError> {
    let centres = launch_centres(log_ratio, launch)?;
    let Interval::Bounds { lower, upper, .. } = signed_rank_interval(log_ratio, alpha)? else {
        return Ok(None);
    };
    let Some(estimate) = hodges_lehmann(log_ratio)? else { return Ok(None) };
    let between = match standard_error(&centres) {
        Some(error) => Some(student_quantile(1.0 - alpha, centres.len() as f64 - 1.0)? * error),
        None => None,
    };
    let half = floor.max(between.unwrap_or(0.0));
    Ok(Some(Effect {
        estimate,
        lower: lower.min(estimate - half),
        upper: upper.max(estimate + half),
        within: [lower, upper],
        between,
        floor,
        n_blocks: log_ratio.len(),
        n_launches: centres.len(),
    }))
}

/// The Hodges-Lehmann estimate of each launch, in the order of launch numbers.
pub(super) fn launch_centres(log_ratio: &[f64], launch: &[u32]) -> Result<Vec<f64>, StatsError> {
    if log_ratio.len() != launch.len() {
        return Err(StatsError::Length { blocks: launch.len(), values: log_ratio.len() });
    }
    let mut by_launch: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (&launch, &value) in launch.iter().zip(log_ratio) {
        by_launch.entry(launch).or_default().push(value);
    }
    let centres = by_launch.values().map(|values| hodges_lehmann(values));
    Ok(centres.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Standard deviation, with n - 1; `None` below two values.
pub(super) fn deviation(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    Some((values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}

fn standard_error(centres: &[f64]) -> Option<f64> {
    Some(deviation(centres)? / (centres.len() as f64).sqrt())
}

/// A/A results from which on their spread is used; below, too few say too little.
pub const ENOUGH_AA: usize = 8;

/// Half width of the floor where there are fewer than [`ENOUGH_AA`] results: 2 %.
pub const FEW_AA_FLOOR: f64 = 0.02;

/// s_AA is estimated by a MAD over about 12 values; this brings the miss rate back to alpha.
const SMALL_SAMPLE: f64 = 1.13;

/// Spread of A/A results about 0, 1.4826 times the median of their magnitudes; `None` of nothing.
///
/// # Errors
/// [`StatsError::NotFinite`].
pub fn aa_scale(history: &[f64]) -> Result<Option<f64>, StatsError> {
    let magnitudes: Vec<f64> = history.iter().map(|effect| effect.abs()).collect();
    Ok(median(&magnitudes)?.map(|median| 1.4826 * median))
}

/// The half width below which no interval goes: 1.13 z s_AA with at least 8 earlier A/A results, else the larger of
/// this run's own A/A result and 2 %. Unit: ln of a ratio.
///
/// # Errors
/// [`StatsError::NotFinite`], [`StatsError::Probability`].
pub fn aa_floor(history: &[f64], own: Option<f64>, alpha: f64) -> Result<f64, StatsError> {
    match aa_scale(history)? {
        Some(scale) if history.len() >= ENOUGH_AA => Ok(SMALL_SAMPLE * normal_quantile(1.0 - alpha)? * scale),
        _ => Ok(own.map_or(FEW_AA_FLOOR, |own| FEW_AA_FLOOR.max(own.abs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_the_widest_of_three() {
        // Two launches of six blocks: 0.00 +- 0.01 and 0.10 +- 0.01.
        let d: Vec<f64> = (0..12).map(|i| 0.10 * f64::from(i / 6) + 0.002 * f64::from(i % 6)).collect();
        let launch: Vec<u32> = (0..12).map(|i| i / 6).collect();
        let found = effect(&d, &launch, 0.05, 0.001).expect("finite").expect("enough");
        assert_eq!((found.n_blocks, found.n_launches), (12, 2));
        // u = 0.005 and 0.105: sd = 0.0707, times t(1, 0.95) = 6.314, over sqrt(2).
        let between = found.between.expect("two launches");
        assert!((between - 6.313_751_514_675_04 * 0.05).abs() < 1e-9, "{between}");
        assert!((found.upper - found.estimate - between).abs() < 1e-12 && found.within[1] < found.upper);
        // One launch has no between; the floor takes over.
        let found = effect(&d[..6], &launch[..6], 0.05, 0.2).expect("finite").expect("enough");
        assert_eq!(found.between, None);
        assert!((found.lower - (found.estimate - 0.2)).abs() < 1e-12);
        // Neither: the signed ranks.
        let found = effect(&d[..6], &launch[..6], 0.05, 0.0).expect("finite").expect("enough");
        assert_eq!([found.lower, found.upper], found.within);
        assert_eq!(effect(&d[..4], &launch[..4], 0.05, 0.0), Ok(None));
        assert!(matches!(effect(&d, &launch[..3], 0.05, 0.0), Err(StatsError::Length { .. })));
    }

    #[test]
    fn the_floor_learns_from_eight_results_on() {
        let history = [0.01, -0.01, 0.02, -0.02, 0.01, 0.03, -0.005, 0.015];
        assert_eq!(aa_floor(&history[..7], None, 0.05), Ok(0.02));
        assert_eq!(aa_floor(&history[..7], Some(-0.05), 0.05), Ok(0.05));
        assert_eq!(aa_floor(&[], Some(0.001), 0.05), Ok(0.02));
        // Magnitudes have the median 0.0125.
        let floor = aa_floor(&history, Some(0.5), 0.05).expect("finite");
        assert!((floor - 1.13 * 1.644_853_626_951_472_2 * 1.4826 * 0.0125).abs() < 1e-12, "{floor}");
        assert!(aa_floor(&[f64::NAN; 9], None, 0.05).is_err());
    }
}
