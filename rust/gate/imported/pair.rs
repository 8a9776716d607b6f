//! One benchmark then and now.
//!
//! ```text
//! samples on both sides   `trial`, mode seq: difference of medians of ln block minima, batches, floor 3 %, guard 13 %
//! a summary on a side     theta = ln(now / then), of a rate -ln; half width t sqrt(cv_then^2 + cv_now^2)
//!                         red (likely) only if theta - half > margin and theta > guard; never green
//! ```
//!
//! The half width of a summary is that of two single samples, not of two means: samples of one run are alike, so n of them
//! are worth anything between one and n, and a summary does not say how much. The guard is what two runs of one build are
//! known to differ by when they come one after the other. That is why a mean with a small deviation is no proof of equal
//! speed: its deviation is within one process, and processes differ (Georges, Buytaert and Eeckhout, OOPSLA 2007; Kalibera
//! and Jones, ISMM 2013).

use super::super::policy::Policy;
use super::super::trial::{Calibration, GUARD_SEQ, TrialPolicy, judge_trial};
use super::super::verdict::{Answer, Certainty, Comparison, SeverityRange};
use super::{EARLIER, ImportedCase, Pair, Side, blank, undecided};
use crate::record::trial::{Mode, Trial, TrialSide};
use crate::record::{Meter, Series, Summary};
use crate::stats;

/// Reasons not to look at the numbers, then the samples, then what a summary allows.
pub(super) fn compared(
    case: &ImportedCase<'_>,
    then: &Side<'_>,
    now: &Side<'_>,
    pair: &Pair<'_>,
) -> Comparison {
    let blank = blank(case, now, pair);
    if let Some(why) = no_evidence(then, now, pair) {
        return undecided(blank, why);
    }
    match (then.main_series(pair.then), now.main_series(pair.now)) {
        (Some(old), Some(new)) if old.meter != new.meter => {
            undecided(blank, format!("not comparable: {} then, {} now", old.meter.name(), new.meter.name()))
        }
        (Some(old), Some(new)) => {
            let cpu = |side: &Side<'_>, id| side.series(id, &Meter::ThreadCpuNs).map(per_call);
            let trial = Trial {
                baseline: TrialSide { wall_ns: per_call(old), cpu_ns: cpu(then, pair.then) },
                candidate: TrialSide { wall_ns: per_call(new), cpu_ns: cpu(now, pair.now) },
                launch: Vec::new(),
                mode: Some(Mode::Seq),
                id: None,
            };
            from_samples(case, blank, &trial)
        }
        (old, new) => {
            let summary = |side: &Side<'_>, id: &str, series: Option<&Series>| {
                side.benchmark(id)
                    .and_then(|known| known.summary.clone())
                    .or_else(|| series.and_then(moments))
            };
            match summary(then, pair.then, old).zip(summary(now, pair.now, new)) {
                Some((old, new)) => from_summaries(case, blank, &old, &new),
                None => undecided(blank, "no samples and no summary on both sides".into()),
            }
        }
    }
}

/// Why a pair is no evidence, whatever its numbers are.
fn no_evidence(then: &Side<'_>, now: &Side<'_>, pair: &Pair<'_>) -> Option<String> {
    for (side, id, when) in [(then, pair.then, EARLIER), (now, pair.now, "later")] {
        if let Some(why) = side.skipped(id) {
            return Some(format!("the {when} result is missing: {why}"));
        }
        if let Some(why) = side.benchmark(id).and_then(|known| known.suspect.as_ref()) {
            return Some(format!("the {when} result is suspect: {why}"));
        }
    }
    let (old, new) = (then.benchmark(pair.then)?, now.benchmark(pair.now)?);
    let columns = |series: &Series| (series.iterations.clone(), series.value_ns.clone());
    let series = then.main_series(pair.then).zip(now.main_series(pair.now));
    let summaries = old.summary.as_ref().zip(new.summary.as_ref());
    let same = series.map(|(old, new)| columns(old) == columns(new));
    let same = same.or(summaries.map(|(old, new)| (old.value, old.stddev) == (new.value, new.stddev)));
    if same == Some(true) {
        let why = "the later result equals the earlier one to the last digit";
        return Some(format!("suspect: synthetic, or the same run twice: {why}"));
    }
    if pair.named || then.origin.tool != now.origin.tool {
        return None;
    }
    let differs = |(field, was): (&String, &serde_json::Value)| {
        let is = new.setting.get(field).filter(|is| *is != was)?;
        Some(format!("{field} was {} and is {}", shown(was), shown(is)))
    };
    let fields: Vec<String> = old.setting.iter().filter_map(differs).collect();
    (!fields.is_empty()).then(|| format!("not comparable: {}", fields.join(", ")))
}

/// A value of a file, cut where it is long.
fn shown(value: &serde_json::Value) -> String {
    value.to_string().chars().take(60).collect()
}

fn per_call(series: &Series) -> Vec<f64> {
    series.value_ns.iter().zip(&series.iterations).map(|(&ns, &n)| ns as f64 / n as f64).collect()
}

fn from_samples(case: &ImportedCase<'_>, mut comparison: Comparison, trial: &Trial) -> Comparison {
    let margin = comparison.limit.unwrap_or(1.0) - 1.0;
    let Policy { alpha, strict, severity, .. } = case.policy;
    let policy = TrialPolicy { margin, alpha: *alpha, strict: *strict, edges: *severity };
    let answer = judge_trial(trial, &Calibration::default(), &policy);
    if answer.meter == "cpu" {
        comparison.meter = Meter::ThreadCpuNs;
    }
    let typical = |side: &TrialSide| {
        let times = side.cpu_ns.as_ref().filter(|_| answer.meter == "cpu").unwrap_or(&side.wall_ns);
        stats::median(times).ok().flatten()
    };
    (comparison.other_ns, comparison.subject_ns) = (typical(&trial.baseline), typical(&trial.candidate));
    (comparison.verdict, comparison.certainty) = (Some(answer.verdict), answer.certainty);
    (comparison.ratio, comparison.interval) = (answer.ratio, answer.interval);
    (comparison.severity, comparison.mde) = (answer.severity, answer.mde);
    (comparison.n_blocks, comparison.n_launches) = (answer.n_blocks, answer.n_launches);
    comparison.reason = format!("unpaired samples: {}", answer.reason);
    comparison
}

/// Mean and standard deviation of samples, for a comparison with a side that has nothing else.
fn moments(series: &Series) -> Option<Summary> {
    let calls = per_call(series);
    let n = calls.len() as f64;
    if series.meter != Meter::WallNs || calls.len() < 2 {
        return None;
    }
    let mean = calls.iter().sum::<f64>() / n;
    let variance = calls.iter().map(|ns| (ns - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Some(Summary {
        statistic: "mean".into(),
        unit: "ns".into(),
        value: mean,
        stddev: Some(variance.sqrt()),
        n: Some(calls.len() as u64),
        ..Summary::default()
    })
}

fn from_summaries(
    case: &ImportedCase<'_>,
    mut comparison: Comparison,
    then: &Summary,
    now: &Summary,
) -> Comparison {
    if (&then.unit, then.rate) != (&now.unit, now.rate) {
        return undecided(comparison, format!("not comparable: {} then, {} now", then.unit, now.unit));
    }
    if then.statistic != now.statistic {
        let why = format!("not comparable: {} then, {} now", then.statistic, now.statistic);
        return undecided(comparison, why);
    }
    let change = (now.value / then.value).ln() * if now.rate { -1.0 } else { 1.0 };
    if !change.is_finite() {
        return undecided(comparison, format!("{} and {} have no ratio", then.value, now.value));
    }
    comparison.ratio = Some(change.exp());
    if then.unit == "ns" {
        (comparison.other_ns, comparison.subject_ns) = (Some(then.value), Some(now.value));
    }
    let edges = &case.policy.severity;
    let told =
        format!("summaries alone ({} of each side): {:.3} times the time", now.statistic, change.exp());
    let Some(half) = half_width(then, now, case.policy.alpha) else {
        return undecided(comparison, format!("{told}, without a spread that could be judged"));
    };
    let [low, high] = [change - half, change + half].map(f64::exp);
    comparison.interval = Some([low, high]);
    let severity = SeverityRange { most_likely: edges.severity(change.exp()), at_least: edges.severity(low) };
    comparison.severity = Some(severity);
    let margin = comparison.limit.unwrap_or(1.0).ln();
    if change - half > margin && change > GUARD_SEQ {
        comparison.certainty = Certainty::Likely;
        comparison.verdict = Some(if case.policy.strict { Answer::Neutral } else { Answer::Fail });
        comparison.reason = format!("{told}, at least {low:.3} by the spread of single samples");
        return comparison;
    }
    let why = format!(
        "{told}; a summary shows slow-downs beyond its spread ({low:.3} to {high:.3}) and {:.3}, and never equality",
        GUARD_SEQ.exp()
    );
    undecided(comparison, why)
}

/// That of two single samples: t sqrt(cv_then^2 + cv_now^2); with an unknown number of samples t of one degree.
fn half_width(then: &Summary, now: &Summary, alpha: f64) -> Option<f64> {
    let share = |summary: &Summary| {
        summary.stddev.filter(|spread| *spread > 0.0).map(|spread| spread / summary.value)
    };
    let (old, new) = share(then).zip(share(now))?;
    let freedom = |summary: &Summary| summary.n.unwrap_or(2).saturating_sub(1).max(1) as f64;
    let t = stats::student_quantile(1.0 - alpha, freedom(then).min(freedom(now))).ok()?;
    Some(t * old.hypot(new))
}
