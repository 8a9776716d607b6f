//! What a design can see: before a run from earlier spread, after it from its own.
//!
//! ```text
//! s_d^2 = s2_between + s2_within / n_l                        variance of one launch's estimate
//! MDE   = exp(m + max(t(L-1, 1-alpha) s_d / sqrt(L), floor) + t(L-1, power) s_d / sqrt(L)) - 1
//! ```
//!
//! Estimates: the smallest slow-down (ratio - 1) that L launches of n_l blocks confirm beyond the margin m with the
//! wanted power. Unit: a share, 0.1 is 10 %. Assumes: launches scatter normally, and as much next time as they did. A
//! reader may not conclude that a smaller slow-down is absent. Source: Kalibera and Jones 2013; `docs/STATISTICS.md`.
//! Oracle: hand-computed values here, power by simulation in `tests/statistics.rs`.

use super::effect::{deviation, launch_centres};
use super::{StatsError, median, student_quantile};
use std::collections::BTreeMap;

/// How block log-ratios scatter; standard deviations in ln of a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Between launches, beyond what blocks explain; 0 with one launch.
    pub between: f64,
    /// Of one block within its launch, robust (MAD).
    pub within: f64,
}

/// The spread of block log-ratios, entry i from launch `launch[i]`; `None` of nothing.
///
/// # Errors
/// [`StatsError::Length`], [`StatsError::NotFinite`], [`StatsError::TooMany`].
pub fn spread(log_ratio: &[f64], launch: &[u32]) -> Result<Option<Spread>, StatsError> {
    let centres = launch_centres(log_ratio, launch)?;
    let mut numbers: Vec<u32> = launch.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let centre: BTreeMap<u32, f64> = numbers.into_iter().zip(centres.iter().copied()).collect();
    let off: Vec<f64> = launch.iter().zip(log_ratio).map(|(launch, d)| (d - centre[launch]).abs()).collect();
    let Some(within) = median(&off)?.map(|mad| 1.4826 * mad) else { return Ok(None) };
    let per_launch = log_ratio.len() as f64 / centres.len() as f64;
    let explained = within * within / per_launch;
    let between = deviation(&centres).map_or(0.0, |sd| (sd * sd - explained).max(0.0).sqrt());
    Ok(Some(Spread { between, within }))
}

/// A way of measuring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// Fresh processes, at least 2 for an answer.
    pub launches: usize,
    /// Blocks in each.
    pub blocks_per_launch: usize,
    /// One-sided error probability of a bound.
    pub alpha: f64,
    /// Wanted probability of confirming.
    pub power: f64,
    /// Half width below which no interval goes, ln.
    pub floor: f64,
}

impl Spread {
    fn of_launch(&self, blocks: usize) -> f64 {
        (self.between.powi(2) + self.within.powi(2) / blocks.max(1) as f64).sqrt()
    }
}

/// The smallest slow-down (ratio - 1) confirmed beyond `margin` (ln); `None` below two launches.
///
/// # Errors
/// [`StatsError::Probability`].
pub fn minimum_detectable_effect(
    spread: &Spread,
    margin: f64,
    design: &Design,
) -> Result<Option<f64>, StatsError> {
    if design.launches < 2 {
        return Ok(None);
    }
    let freedom = design.launches as f64 - 1.0;
    let error = spread.of_launch(design.blocks_per_launch) / (design.launches as f64).sqrt();
    let bound = (student_quantile(1.0 - design.alpha, freedom)? * error).max(design.floor);
    let reach = student_quantile(design.power, freedom)? * error;
    Ok(Some((margin + bound + reach).exp_m1()))
}

/// The fewest launches, up to 1000, with which a slow-down of `effect` (ratio - 1) is confirmed beyond `margin` (ln);
/// `None` if no number of launches does, because the floor is in the way or the effect is not beyond the margin.
///
/// # Errors
/// [`StatsError::Probability`].
pub fn launches_needed(
    spread: &Spread,
    margin: f64,
    effect: f64,
    design: &Design,
) -> Result<Option<usize>, StatsError> {
    for launches in 2..=1000 {
        let reached = minimum_detectable_effect(spread, margin, &Design { launches, ..*design })?;
        if reached.is_some_and(|reached| reached <= effect) {
            return Ok(Some(launches));
        }
    }
    Ok(None)
}

/// Blocks per launch that give the least variance for the time spent: sqrt(cost of a launch / cost of a block x
/// s2_within / s2_between); `None` where launches do not differ and one long launch is best.
pub fn best_blocks_per_launch(spread: &Spread, launch_cost: f64, block_cost: f64) -> Option<f64> {
    (spread.between > 0.0).then(|| (launch_cost / block_cost).sqrt() * spread.within / spread.between)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESIGN: Design = Design { launches: 5, blocks_per_launch: 12, alpha: 0.05, power: 0.8, floor: 0.0 };

    #[test]
    fn known_values() {
        // t(4, .95) = 2.131847, t(4, .80) = 0.940965; s_d = sqrt(0.01^2 + 0.0346410^2 / 12) = 0.0141421.
        let spread = Spread { between: 0.01, within: 0.034_641_016_151_377_54 };
        let mde = minimum_detectable_effect(&spread, 0.05, &DESIGN).expect("fine").expect("five launches");
        let expected =
            (0.05 + (2.131_846_786_326_65 + 0.940_964_577_228_9) * 0.014_142_135_623_73 / 5_f64.sqrt()).exp()
                - 1.0;
        assert!((mde - expected).abs() < 1e-9, "{mde} {expected}");
        // A floor above the bound takes its place.
        let floored = Design { floor: 0.10, ..DESIGN };
        let mde = minimum_detectable_effect(&spread, 0.05, &floored).expect("fine").expect("five launches");
        assert!(mde > (0.15_f64).exp_m1());
        assert_eq!(launches_needed(&spread, 0.05, 0.10, &floored), Ok(None));
        assert_eq!(minimum_detectable_effect(&spread, 0.05, &Design { launches: 1, ..DESIGN }), Ok(None));
        let needed = launches_needed(&spread, 0.0488, 0.10, &DESIGN).expect("fine").expect("reachable");
        let at = |launches| {
            minimum_detectable_effect(&spread, 0.0488, &Design { launches, ..DESIGN })
                .expect("fine")
                .expect("two")
        };
        assert!(at(needed) <= 0.10 && (needed == 2 || at(needed - 1) > 0.10), "{needed}");
        assert_eq!(best_blocks_per_launch(&spread, 8.0, 2.0).map(|n| (n * 100.0).round()), Some(693.0));
        assert_eq!(best_blocks_per_launch(&Spread { between: 0.0, within: 1.0 }, 8.0, 2.0), None);
    }

    #[test]
    fn spread_is_split_between_and_within() {
        let d: Vec<f64> = (0..24).map(|i| 0.1 * f64::from(i / 6) + 0.01 * f64::from(i % 2)).collect();
        let launch: Vec<u32> = (0..24).map(|i| i / 6).collect();
        let found = spread(&d, &launch).expect("fine").expect("something");
        // Every block is 0.005 from its launch's centre; centres are 0.1 apart: sd 0.1291.
        assert!((found.within - 1.4826 * 0.005).abs() < 1e-12, "{found:?}");
        let expected = (0.1_f64.powi(2) * 5.0 / 3.0 - found.within.powi(2) / 6.0).sqrt();
        assert!((found.between - expected).abs() < 1e-12, "{found:?}");
        assert_eq!(spread(&[], &[]), Ok(None));
        assert!(spread(&d, &launch[..3]).is_err());
    }
}
