//! How sure: the interval that inverts Wilcoxon's signed-rank test.
//!
//! ```text
//! sort the M = n(n+1)/2 Walsh averages W_(1) <= ... <= W_(M)
//! K = the largest k with P(T+ <= k-1) <= alpha, where T+ is the signed-rank statistic of n fair signs
//! lower = W_(K), upper = W_(M+1-K)
//! ```
//!
//! Estimates: a lower and an upper bound of the centre, each wrong with probability at most alpha.
//! Unit: that of the observations.
//! Assumes: about the true centre, the sign of every observation is a fair coin, independent of the others and
//! of all magnitudes. Random order within blocks makes it so (design-based: Fisher, Pitman) for any noise
//! that depends on time only, however autocorrelated or heavy-tailed; no normality. It fails, and
//! `tests/statistics.rs` shows how, when the order is fixed, and when one side alone is in another state for
//! many blocks (memory layout, a cache that one side keeps): several processes must answer that.
//! A reader may not conclude: that another process would give a centre inside; that a centre inside a margin
//! is no effect.
//! Ties only make it wider. The null distribution is counted exactly up to n = 200 (a table of 20 is usual;
//! counting costs n^3/4 additions, under a millisecond for the n of a run); beyond, the normal approximation
//! K = floor(n(n+1)/4 - z sqrt(n(n+1)(2n+1)/24)), whose error a test bounds by the next Edgeworth term.
//! Source: Hollander, Wolfe and Chicken, "Nonparametric Statistical Methods", 3rd ed. (2014), 3.1 and 3.3.
//! Oracle: inverting `scipy.stats.wilcoxon`, `tests/golden/stats/estimates.json`.

use super::StatsError;
use super::hodges_lehmann::walsh_averages;
use super::normal::normal_quantile;

/// Up to so many observations the null distribution is counted exactly.
pub const EXACT_UP_TO: usize = 200;

/// Two one-sided bounds, or the statement that there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interval {
    /// The centre lies above `lower` and below `upper`, each but for a probability of at most `tail`.
    Bounds {
        /// Lower bound.
        lower: f64,
        /// Upper bound.
        upper: f64,
        /// Probability that one of them is wrong: reached exactly up to [`EXACT_UP_TO`] observations, nominal beyond.
        tail: f64,
    },
    /// Even if all observations lay on one side, so few could be chance.
    NotEnough {
        /// Observations there are.
        n: usize,
        /// Observations needed for any bound at this alpha.
        needed: usize,
    },
}

/// The signed-rank interval of the centre of `observations`; each bound is wrong with probability at most
/// `alpha`, both together twice that (0.05 gives a 90 % interval).
///
/// # Errors
/// [`StatsError::NotFinite`], [`StatsError::TooMany`]; [`StatsError::Probability`] unless 0 < alpha < 0.5.
pub fn signed_rank_interval(observations: &[f64], alpha: f64) -> Result<Interval, StatsError> {
    if !(alpha > 0.0 && alpha < 0.5) {
        return Err(StatsError::Probability { value: alpha, expected: "above 0 and below 0.5" });
    }
    let mut averages = walsh_averages(observations)?;
    let n = observations.len();
    let (rank, tail) = if n <= EXACT_UP_TO { exact_rank(n, alpha) } else { normal_rank(n, alpha)? };
    if rank == 0 {
        // P(T+ = 0) = 2^-n is the smallest probability there is.
        let needed = (-alpha.log2()).ceil() as usize;
        return Ok(Interval::NotEnough { n, needed });
    }
    averages.sort_by(f64::total_cmp);
    Ok(Interval::Bounds { lower: averages[rank - 1], upper: averages[averages.len() - rank], tail })
}

/// K and P(T+ <= K-1) by counting.
fn exact_rank(n: usize, alpha: f64) -> (usize, f64) {
    let (mut rank, mut tail, mut cumulated) = (0, 0.0, 0.0);
    for probability in null_probabilities(n) {
        cumulated += probability;
        if cumulated > alpha {
            break;
        }
        rank += 1;
        tail = cumulated;
    }
    (rank, tail)
}

/// P(T+ = t) for t from 0 to the middle of the range: of the 2^n sets of the ranks 1..=n, those that sum to t.
/// Half of the probability lies there, so an alpha below 1/2 never asks for more.
fn null_probabilities(n: usize) -> Vec<f64> {
    let mut probabilities = vec![0.0; n * (n + 1) / 4 + 1];
    probabilities[0] = (-(n as f64)).exp2();
    for rank in 1..=n {
        for sum in (rank..probabilities.len()).rev() {
            probabilities[sum] += probabilities[sum - rank];
        }
    }
    probabilities
}

/// K by the normal approximation.
fn normal_rank(n: usize, alpha: f64) -> Result<(usize, f64), StatsError> {
    let n = n as f64;
    let mean = n * (n + 1.0) / 4.0;
    let deviation = (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt();
    let rank = (mean - normal_quantile(1.0 - alpha)? * deviation).floor();
    Ok((rank.max(0.0) as usize, alpha))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Critical values of the one-sided test, table A.4 of Hollander and Wolfe as everybody prints it.
    #[test]
    fn ranks_match_the_printed_table() {
        let critical_at_5_percent =
            [(5, 0), (6, 2), (7, 3), (8, 5), (9, 8), (10, 10), (12, 17), (15, 30), (20, 60), (30, 151)];
        for (n, critical) in critical_at_5_percent {
            assert_eq!(exact_rank(n, 0.05).0, critical + 1, "n = {n}");
        }
        assert_eq!(exact_rank(5, 0.05).1, 1.0 / 32.0);
    }

    #[test]
    fn too_few_observations_give_no_number() {
        let observations = [0.1, 0.2, 0.3, 0.4, 0.5];
        for n in 0..5 {
            let interval = signed_rank_interval(&observations[..n], 0.05);
            assert_eq!(interval, Ok(Interval::NotEnough { n, needed: 5 }));
        }
        let interval = signed_rank_interval(&observations, 0.05);
        assert_eq!(interval, Ok(Interval::Bounds { lower: 0.1, upper: 0.5, tail: 1.0 / 32.0 }));
        assert_eq!(signed_rank_interval(&observations, 0.01), Ok(Interval::NotEnough { n: 5, needed: 7 }));
    }

    #[test]
    fn bad_input_is_an_error() {
        for alpha in [0.0, 0.5, 1.0, -0.1, f64::NAN] {
            assert!(matches!(signed_rank_interval(&[0.0; 9], alpha), Err(StatsError::Probability { .. })));
        }
        assert!(matches!(signed_rank_interval(&[f64::NAN], 0.05), Err(StatsError::NotFinite { .. })));
    }

    /// Where both can be computed, the probability that the approximation really leaves outside differs from
    /// alpha by what it neglects. First the lattice: K = floor(x) without a continuity correction looks at
    /// x - 3/2 to x - 1/2, that is alpha less one step of phi(z) / sd, give or take half a step. Then the next
    /// Edgeworth term, phi(z) |kappa| |z^3 - 3z| / 24 with the excess kurtosis kappa = -2 sum r^4 / (sum r^2)^2
    /// of T+, and half as much again for the terms after it.
    #[test]
    fn approximation_is_as_good_as_theory_says() {
        for n in [50, 100, 200] {
            let probabilities = null_probabilities(n);
            let power_sum = |power| (1..=n).map(|rank| (rank as f64).powi(power)).sum::<f64>();
            let kurtosis = 2.0 * power_sum(4) / power_sum(2).powi(2);
            let deviation = power_sum(2).sqrt() / 2.0;
            for alpha in [0.1, 0.05, 0.025, 0.01, 0.005] {
                let (rank, _) = normal_rank(n, alpha).expect("valid alpha");
                let tail: f64 = probabilities[..rank].iter().sum();
                let z = normal_quantile(1.0 - alpha).expect("valid alpha");
                let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let edgeworth = density * kurtosis * (z.powi(3) - 3.0 * z).abs() / 24.0;
                let step = density / deviation;
                let bound = 1.5 * edgeworth + 0.5 * step;
                let off = tail - (alpha - step);
                assert!(off.abs() <= bound, "n {n} alpha {alpha}: {tail} is off by {off}, bound {bound}");
            }
        }
    }

    /// A large sample takes the approximate branch and gives sensible bounds.
    #[test]
    fn large_samples_are_approximated() {
        let observations: Vec<f64> = (0..300).map(f64::from).collect();
        let Ok(Interval::Bounds { lower, upper, tail }) = signed_rank_interval(&observations, 0.05) else {
            panic!("300 observations are enough");
        };
        assert_eq!(tail, 0.05);
        assert!((lower + upper - 299.0).abs() < 1e-9, "symmetric about the centre: {lower} {upper}");
        // The mean's interval has half width 1.645 * 86.6 / sqrt(300) = 8.2; the efficiency is about 1.
        assert!((7.0..10.0).contains(&((upper - lower) / 2.0)), "{lower} {upper}");
    }
}
