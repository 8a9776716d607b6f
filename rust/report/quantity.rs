//! Times as the rates people think in: which unit, follows from the work that the recording counted.
//!
//! ```text
//! tokens counted                    tok/s     tokens per second
//! values but no operations          Gelem/s   values quantised or dequantised
//! 4 rows or more for each weight    GOP/s     2 operations per weight and activation row
//! fewer                             GB/s      packed weight bytes
//! no work, or a call's own cost     ns to s   the time itself
//! ```

use crate::record::Work;

/// How a time in ns is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    /// `tok/s`, `GB/s`, `GOP/s`, `Gelem/s`, `ns`, `us`, `ms`, `s`.
    pub unit: &'static str,
    /// A rate is `scale / ns`, a time is `ns * scale`.
    scale: f64,
    /// Whether more is better.
    pub is_rate: bool,
}

impl Quantity {
    /// What the times of a workload are shown as; `typical_ns` chooses among units of time.
    pub fn of(workload: &str, work: &Work, typical_ns: Option<f64>) -> Self {
        let rate = |unit, scale: f64| Self { unit, scale, is_rate: true };
        // The point of these is how long one takes, whatever it works on.
        let time_itself = matches!(kind(workload), "overhead" | "ttft" | "build");
        match *work {
            _ if time_itself => Self::time(typical_ns),
            Work { tokens: 1.., .. } => rate("tok/s", 1e9 * work.tokens as f64),
            Work { ops: 0, weights: 1.., .. } => rate("Gelem/s", work.weights as f64),
            Work { ops, weights, .. } if weights > 0 && ops / 8 >= weights => rate("GOP/s", ops as f64),
            Work { bytes: 1.., .. } => rate("GB/s", work.bytes as f64),
            Work { ops: 1.., .. } => rate("GOP/s", work.ops as f64),
            _ => Self::time(typical_ns),
        }
    }

    fn time(typical_ns: Option<f64>) -> Self {
        let (unit, scale) = match typical_ns.unwrap_or(0.0) {
            ns if ns < 1e4 => ("ns", 1.0),
            ns if ns < 1e7 => ("us", 1e-3),
            ns if ns < 1e10 => ("ms", 1e-6),
            _ => ("s", 1e-9),
        };
        Self { unit, scale, is_rate: false }
    }

    /// The value of a call that takes `ns`.
    pub fn value(&self, ns: f64) -> f64 {
        if self.is_rate { self.scale / ns } else { ns * self.scale }
    }

    /// The same with its unit.
    pub fn text(&self, ns: f64) -> String {
        format!("{} {}", number(self.value(ns)), self.unit)
    }

    /// The relative change of the shown value that belongs to a ratio of times.
    pub fn change(&self, time_ratio: f64) -> f64 {
        if self.is_rate { 1.0 / time_ratio - 1.0 } else { time_ratio - 1.0 }
    }
}

/// The first part of a workload's id, without the file it comes from.
fn kind(workload: &str) -> &str {
    let of_file = workload.split_once('/').filter(|(head, _)| head.starts_with("file:"));
    of_file.map_or(workload, |(_, id)| id).split('/').next().unwrap_or_default()
}

/// A ceiling's name without its unit, and the unit: `l2_read_t1`, `GB/s`.
pub fn ceiling(name: &str) -> (&str, &'static str) {
    let units = [("_gb_per_s", "GB/s"), ("_gop_per_s", "GOP/s")];
    let known = units.into_iter().find_map(|(suffix, unit)| Some((name.strip_suffix(suffix)?, unit)));
    known.unwrap_or((name, ""))
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A share as signed percent.
pub fn percent(share: f64) -> String {
    let text = format!("{:+.1}%", share * 100.0);
    if text == "-0.0%" { "+0.0%".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_the_work() {
        let of = |workload, weights, ops, tokens| {
            let work = Work { weights, bytes: weights / 4, ops, tokens, ..Work::default() };
            let found = Quantity::of(workload, &work, Some(50.0));
            (found.unit, found.value(50.0))
        };
        assert_eq!(of("matmul/i2_s/2560x2560/b1/t1/hot", 100, 200, 0), ("GB/s", 0.5));
        assert_eq!(of("matmul/i2_s/2560x2560/b4/t1/hot", 100, 800, 0), ("GOP/s", 16.0));
        assert_eq!(of("file:0123abcd/linear/i2_s/256x256/b1/t1/hot+tensor=x", 100, 200, 0).0, "GB/s");
        assert_eq!(of("activation/int8/2560x1", 100, 0, 0), ("Gelem/s", 2.0));
        assert_eq!(of("decode/2b4t/i2_s/tg32/t1", 100, 800, 32), ("tok/s", 32e9 / 50.0));
        assert_eq!(of("ttft/2b4t/i2_s/pp32/t1", 100, 800, 32), ("ns", 50.0));
        assert_eq!(of("overhead/call", 128, 256, 0), ("ns", 50.0));
        assert_eq!(of("something/new", 0, 0, 0), ("ns", 50.0));
    }

    #[test]
    fn ceilings_tell_their_unit() {
        assert_eq!(ceiling("l2_read_t1_gb_per_s"), ("l2_read_t1", "GB/s"));
        assert_eq!(ceiling("int8_dot_avx2_t2_gop_per_s"), ("int8_dot_avx2_t2", "GOP/s"));
        assert_eq!(ceiling("something_new"), ("something_new", ""));
    }

    #[test]
    fn times_are_readable_at_every_size_and_change_in_their_own_direction() {
        let of = |ns| Quantity::of("build/clean", &Work::default(), Some(ns)).text(ns);
        assert_eq!([20.0, 2e4, 2e7, 2e10].map(of), ["20.0 ns", "20.0 us", "20.0 ms", "20.0 s"]);
        assert_eq!([0.05, -0.0001, -0.2].map(percent), ["+5.0%", "+0.0%", "-20.0%"]);
        let time = Quantity::of("build/clean", &Work::default(), None);
        let rate = Quantity::of("matmul/x", &Work { bytes: 1, ..Work::default() }, None);
        assert!((time.change(1.25) - 0.25).abs() < 1e-12 && (rate.change(1.25) + 0.20).abs() < 1e-12);
    }
}
