//! How large a rate may be that showed itself so rarely: the exact upper bound of Clopper and Pearson.
//!
//! Estimates: the largest p for which k or fewer of n are seen with probability at least alpha. Unit: a share. Assumes:
//! independent trials. Source: Clopper and Pearson, Biometrika 26 (1934). Oracle: closed forms for k = 0 and k = n - 1.

/// The upper bound, wrong with probability at most `alpha`; `None` of no trials, or of more hits than trials.
pub fn binomial_upper(k: usize, n: usize, alpha: f64) -> Option<f64> {
    if n == 0 || k > n {
        return None;
    }
    if k == n {
        return Some(1.0);
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..100 {
        let p = f64::midpoint(low, high);
        if at_most(k, n, p) >= alpha { low = p } else { high = p }
    }
    Some(high)
}

/// P(X <= k) for n trials of probability 0 < p < 1.
fn at_most(k: usize, n: usize, p: f64) -> f64 {
    let ln_choose = |k: usize| {
        libm::lgamma(n as f64 + 1.0) - libm::lgamma(k as f64 + 1.0) - libm::lgamma((n - k) as f64 + 1.0)
    };
    let ln_probability = |i: usize| ln_choose(i) + i as f64 * p.ln() + (n - i) as f64 * (-p).ln_1p();
    (0..=k).map(|i| ln_probability(i).exp()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        for n in [1, 10, 198, 644] {
            let none = 1.0 - 0.05_f64.powf(1.0 / n as f64);
            assert!((binomial_upper(0, n, 0.05).expect("trials") - none).abs() < 1e-9, "{n}");
            let all_but_one = (1.0 - 0.05_f64).powf(1.0 / n as f64);
            assert!((binomial_upper(n - 1, n, 0.05).expect("trials") - all_but_one).abs() < 1e-9, "{n}");
        }
        assert_eq!(
            (binomial_upper(5, 5, 0.05), binomial_upper(0, 0, 0.05), binomial_upper(6, 5, 0.05)),
            (Some(1.0), None, None)
        );
    }
}
