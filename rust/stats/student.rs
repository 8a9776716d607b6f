//! Student's t distribution: probabilities and quantiles.
//!
//! Computes: P(T <= t) for T with `freedom` degrees, and t with P(T <= t) = p. Unit: standard errors. Assumes: nothing.
//! The tail is half of the regularised incomplete beta function I_x(freedom/2, 1/2) at x = freedom / (freedom + t^2),
//! by its continued fraction (modified Lentz); the quantile bisects the tail, so it is as exact as that.
//! Source: Abramowitz and Stegun 26.5.8 and 26.7.1; Press et al., "Numerical Recipes", 6.4.
//! Oracle: `scipy.stats.t`, `tests/golden/stats/estimates.json`.

use super::StatsError;

/// P(T > t) for t >= 0.
pub fn student_tail(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The quantile `p` of Student's t with `freedom` degrees of freedom.
///
/// # Errors
/// [`StatsError::Probability`] unless 0 < p < 1; [`StatsError::NotPositive`] unless `freedom` is positive.
pub fn student_quantile(p: f64, freedom: f64) -> Result<f64, StatsError> {
    if !(p > 0.0 && p < 1.0) {
        return Err(StatsError::Probability { value: p, expected: "above 0 and below 1" });
    }
    if !(freedom > 0.0 && freedom.is_finite()) {
        return Err(StatsError::NotPositive { index: 0, value: freedom });
    }
    let tail = p.min(1.0 - p);
    let (mut low, mut high) = (0.0, 1.0);
    while student_tail(high, freedom) > tail && high < 1e300 {
        high *= 2.0;
    }
    // Doubles between low and high are halved each time: 200 rounds reach the last bit from any start.
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if student_tail(middle, freedom) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(f64::midpoint(low, high).copysign(p - 0.5))
}

/// I_x(a, b) for 0 <= x <= 1.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let ln_front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (-x).ln_1p();
    // The fraction converges fast on one side of the mean only; the other side is its mirror.
    if x < (a + 1.0) / (a + b + 2.0) {
        ln_front.exp() * continued_fraction(a, b, x) / a
    } else {
        1.0 - ln_front.exp() * continued_fraction(b, a, 1.0 - x) / b
    }
}

fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let nonzero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / nonzero(1.0 + term * d);
            c = nonzero(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closed forms: one degree is Cauchy, two degrees have an algebraic quantile.
    #[test]
    fn one_and_two_degrees_have_closed_forms() {
        for p in [0.6, 0.9, 0.95, 0.975, 0.999] {
            let cauchy = (std::f64::consts::PI * (p - 0.5)).tan();
            let one = student_quantile(p, 1.0).expect("fine");
            assert!((one / cauchy - 1.0).abs() < 1e-12, "{p}: {one} {cauchy}");
            let algebraic = (2.0 * p - 1.0) * (1.0 / (2.0 * p * (1.0 - p))).sqrt();
            let two = student_quantile(p, 2.0).expect("fine");
            assert!((two / algebraic - 1.0).abs() < 1e-12, "{p}: {two} {algebraic}");
            assert_eq!(student_quantile(1.0 - p, 2.0).expect("fine").signum(), -1.0);
        }
        assert_eq!(student_quantile(0.5, 3.0).map(f64::abs).map(|t| t < 1e-15), Ok(true));
    }

    #[test]
    fn what_has_no_quantile_is_an_error() {
        for p in [0.0, 1.0, f64::NAN] {
            assert!(matches!(student_quantile(p, 4.0), Err(StatsError::Probability { .. })));
        }
        for freedom in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(student_quantile(0.9, freedom), Err(StatsError::NotPositive { .. })));
        }
    }
}
