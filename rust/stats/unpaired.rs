//! Two series that were taken one after the other: nothing in them belongs together in pairs.
//!
//! ```text
//! theta = median(ln b) - median(ln a)
//! SE    = standard deviation of theta over moving-block bootstrap samples of each side, block length sqrt(n)
//! half  = t(n / length - 1, 1 - alpha) SE
//! ```
//!
//! Estimates: ln of the ratio of typical values. Unit: ln of a ratio. Assumes: each series is stationary, and what is
//! sqrt(n) values apart is nearly independent; blocks keep the correlation of neighbours. A reader may not
//! conclude that the sides differ by what the interval shows: between the two series the machine may have changed, and
//! nothing in them says so; only earlier results of the same design do (the floor). Source: Künsch, "The jackknife and
//! the bootstrap for general stationary observations", Ann. Statist. 17 (1989). Oracle: coverage on noise of known
//! kinds, `tests/statistics.rs`.

use super::quantile::finite;
use super::{StatsError, median, student_quantile};
use crate::rng::Rng;

/// Bootstrap samples: the standard deviation of so many is known to 3.5 %.
const RESAMPLES: usize = 400;

/// Values per side below which there are too few blocks to draw from.
const LEAST: usize = 8;

/// A difference of medians with the half width of a one-sided bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unpaired {
    /// median(subject) - median(reference).
    pub estimate: f64,
    /// The bootstrap's standard error.
    pub error: f64,
    /// One-sided half width.
    pub half: f64,
}

/// The difference of two series of log values; `None` below eight values on a side. Equal inputs, equal result.
///
/// # Errors
/// [`StatsError::NotFinite`], [`StatsError::Probability`].
pub fn unpaired(reference: &[f64], subject: &[f64], alpha: f64) -> Result<Option<Unpaired>, StatsError> {
    let centres = median(finite(subject)?)?.zip(median(finite(reference)?)?);
    let fewest = reference.len().min(subject.len());
    let Some((new, old)) = centres.filter(|_| fewest >= LEAST) else { return Ok(None) };
    let mut rng = Rng::for_part(1989, "moving blocks");
    let error = variance_of_median(reference, &mut rng) + variance_of_median(subject, &mut rng);
    let error = error.sqrt();
    let freedom = fewest as f64 / block_length(fewest) as f64 - 1.0;
    let half = student_quantile(1.0 - alpha, freedom)? * error;
    Ok(Some(Unpaired { estimate: new - old, error, half }))
}

fn block_length(n: usize) -> usize {
    (n as f64).sqrt().round() as usize
}

/// Variance of the median of a series, by resampling blocks of neighbours.
fn variance_of_median(values: &[f64], rng: &mut Rng) -> f64 {
    let n = values.len();
    let length = block_length(n);
    let mut sample = Vec::with_capacity(n + length);
    let (mut sum, mut squares) = (0.0, 0.0);
    // About the first value: squares of differences keep their digits.
    let origin = values[0];
    for _ in 0..RESAMPLES {
        sample.clear();
        while sample.len() < n {
            let start = rng.below((n - length + 1) as u64) as usize;
            sample.extend_from_slice(&values[start..start + length]);
        }
        sample.truncate(n);
        let (_, middle, _) = sample.select_nth_unstable_by(n / 2, f64::total_cmp);
        sum += *middle - origin;
        squares += (*middle - origin).powi(2);
    }
    let count = RESAMPLES as f64;
    ((squares - sum * sum / count) / (count - 1.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Independent normal values: the median's standard error is sqrt(pi / 2) sd / sqrt(n) in the limit.
    #[test]
    fn independent_noise_has_the_textbook_error() {
        let mut rng = Rng::new(5);
        let mut draw = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f64>>();
        let (mut mean, rounds) = (0.0, 20);
        for _ in 0..rounds {
            mean += unpaired(&draw(200), &draw(200), 0.05).expect("finite").expect("enough").error;
        }
        mean /= f64::from(rounds);
        let theory = (std::f64::consts::FRAC_PI_2 * 2.0 / 200.0).sqrt();
        assert!((mean / theory - 1.0).abs() < 0.15, "{mean} {theory}");
    }

    #[test]
    fn constant_few_and_bad_values() {
        let found = unpaired(&[1.0; 10], &[1.5; 9], 0.05).expect("finite").expect("enough");
        assert_eq!((found.estimate, found.error, found.half), (0.5, 0.0, 0.0));
        assert_eq!(unpaired(&[1.0; 7], &[1.0; 90], 0.05), Ok(None));
        assert!(unpaired(&[f64::NAN; 9], &[1.0; 9], 0.05).is_err());
        assert!(unpaired(&[1.0; 9], &[1.0; 9], 0.0).is_err());
    }
}
