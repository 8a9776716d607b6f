//! Numbers that look computed, not measured. A mark, not an error: the numbers are kept and are no evidence.

use super::super::{Meter, Origin, Recording, Series};
use std::collections::HashMap;

/// Fewer samples say nothing of repetition.
const FEWEST: usize = 5;

/// Longest pattern looked for.
const LONGEST_PATTERN: usize = 64;

/// Marks series that repeat: one value throughout, one pattern over and over, or another benchmark's samples.
pub(super) fn mark(recording: &mut Recording, origin: &mut Origin) {
    let mut seen: HashMap<(Vec<u64>, Vec<u64>), usize> = HashMap::new();
    let mut found: Vec<(usize, String)> = Vec::new();
    for (i, series) in recording.series.iter().enumerate().filter(|(_, series)| series.meter == Meter::WallNs)
    {
        if let Some(why) = repeats(series) {
            found.push((i, why));
        }
        if series.len() < FEWEST {
            continue;
        }
        let columns = (series.iterations.clone(), series.value_ns.clone());
        if let Some(first) = seen.insert(columns, i) {
            let other = |j: usize| {
                format!("the samples are those of {} to the last digit", recording.series[j].workload)
            };
            found.extend([(i, other(first)), (first, other(i))]);
        }
    }
    for (i, why) in found {
        let series = &mut recording.series[i];
        let why = format!("synthetic: {why}");
        series.extra.entry("suspect").or_insert_with(|| why.clone().into());
        if let Some(benchmark) = origin.benchmarks.get_mut(&series.workload) {
            benchmark.suspect.get_or_insert(why);
        }
    }
}

fn repeats(series: &Series) -> Option<String> {
    let calls: Vec<f64> =
        series.value_ns.iter().zip(&series.iterations).map(|(&ns, &n)| ns as f64 / n as f64).collect();
    let n = calls.len();
    if n < FEWEST {
        return None;
    }
    if calls.iter().all(|ns| *ns == calls[0]) {
        return Some(format!("all {n} samples are equal to the last digit"));
    }
    let pattern = (2..=LONGEST_PATTERN.min(n / 3))
        .find(|&length| n >= 2 * FEWEST && (length..n).all(|i| calls[i] == calls[i - length]))?;
    Some(format!("the same {pattern} samples repeat verbatim"))
}

/// Percentiles that are round multiples of the mean: p95 = 1.2 x, p99 = 1.5 x.
pub(super) fn percentiles(mean: f64, p95: f64, p99: f64) -> Option<String> {
    let round = |value: f64| {
        let twentieths = value / mean * 20.0;
        (twentieths - twentieths.round()).abs() < 1e-9 && twentieths.is_finite()
    };
    (round(p95) && round(p99)).then(|| {
        format!("synthetic: p95 and p99 are exactly {:.2} and {:.2} times the mean", p95 / mean, p99 / mean)
    })
}
