//! From raw samples to effects: subject over other side, with an interval, by `stats`.
//!
//! Nothing is dropped: a series without a partner, or with too few blocks, becomes a comparison without a number
//! and with the reason.

use super::policy::Policy;
use super::verdict::{Answer, Certainty, Comparison, SeverityRange};
use crate::record::{Meter, Recording, Series};
use crate::stats::{self, Column, Interval};

/// Every subject of the recording against the reference it was interleaved with.
pub(super) fn all(recording: &Recording, policy: &Policy, required_subject: Option<&str>) -> Vec<Comparison> {
    let wall = |series: &&Series| series.meter == Meter::WallNs;
    let subjects = recording.series.iter().filter(wall).filter(|series| series.backend != series.reference);
    subjects
        .map(|subject| {
            let reference = recording
                .series
                .iter()
                .filter(wall)
                .find(|other| other.workload == subject.workload && other.backend == subject.reference);
            let category = recording.plan.workloads.iter().find(|planned| planned.id == subject.workload);
            let category = category.map_or("", |planned| planned.category.as_str());
            let required = required_subject == Some(subject.backend.as_str());
            let margin = policy.reference_limit(category).filter(|_| required).map(f64::ln);
            let mut comparison = pair(subject, reference, policy);
            comparison.required = required;
            conclude(&mut comparison, margin, policy);
            comparison
        })
        .collect()
}

/// One pair of series, undecided.
pub(super) fn pair(subject: &Series, other: Option<&Series>, policy: &Policy) -> Comparison {
    let mut comparison = Comparison {
        workload: subject.workload.clone(),
        subject: subject.backend.clone(),
        against: "reference".into(),
        other: other.map_or(subject.reference.clone(), |other| other.backend.clone()),
        required: false,
        verdict: None,
        ratio: None,
        interval: None,
        certainty: Certainty::Inconclusive,
        severity: None,
        mde: None,
        subject_ns: None,
        other_ns: None,
        n_blocks: 0,
        n_launches: 0,
        stage: 1,
        reason: String::new(),
    };
    let Some(other) = other else {
        comparison.reason = format!("no samples of {} to compare with", subject.reference);
        return comparison;
    };
    if let Err(reason) = estimate(subject, other, policy, &mut comparison) {
        comparison.reason = reason;
    }
    comparison
}

fn estimate(subject: &Series, other: &Series, policy: &Policy, into: &mut Comparison) -> Result<(), String> {
    let (subject_calls, other_calls) = (Calls::of(subject)?, Calls::of(other)?);
    let ratios = stats::block_minima_log_ratios(other_calls.column(), subject_calls.column());
    let ratios = ratios.map_err(|why| why.to_string())?;
    let mut launches: Vec<u32> = subject.launch.clone();
    launches.sort_unstable();
    launches.dedup();
    into.n_blocks = ratios.log_ratio.len();
    into.n_launches = launches.len();
    into.subject_ns = subject_calls.typical_ns()?;
    into.other_ns = other_calls.typical_ns()?;
    into.ratio = stats::hodges_lehmann(&ratios.log_ratio).map_err(|why| why.to_string())?.map(f64::exp);
    match stats::signed_rank_interval(&ratios.log_ratio, policy.alpha).map_err(|why| why.to_string())? {
        Interval::Bounds { lower, upper, .. } => into.interval = Some([lower.exp(), upper.exp()]),
        Interval::NotEnough { .. } => {
            return Err(format!("{} blocks are too few for an interval", into.n_blocks));
        }
    }
    Ok(())
}

/// Answers by the margin (ln of the largest allowed ratio); without one only the severity is filled in.
fn conclude(comparison: &mut Comparison, margin: Option<f64>, policy: &Policy) {
    let (Some(ratio), Some([lower, upper])) = (comparison.ratio, comparison.interval) else {
        comparison.verdict = margin.map(|_| Answer::Neutral);
        return;
    };
    comparison.severity = Some(SeverityRange {
        most_likely: policy.severity.severity(ratio),
        at_least: policy.severity.severity(lower),
    });
    let Some(margin) = margin else {
        comparison.reason = "shown, not judged".into();
        return;
    };
    let limit = margin.exp();
    let (verdict, certainty, reason) = if lower > limit {
        (
            Answer::Fail,
            Certainty::Confirmed,
            format!("at least {lower:.3} times the reference's time, allowed {limit:.3}"),
        )
    } else if upper < limit {
        (
            Answer::Pass,
            Certainty::Confirmed,
            format!("at most {upper:.3} times the reference's time, allowed {limit:.3}"),
        )
    } else if lower > 1.0 && ratio > limit {
        let answer = if policy.strict { Answer::Neutral } else { Answer::Fail };
        (
            answer,
            Certainty::Likely,
            format!("slower than the reference, probably beyond {limit:.3}: {ratio:.3}"),
        )
    } else {
        let reason = format!(
            "the interval {lower:.3} to {upper:.3} holds the limit {limit:.3}: more blocks would settle it"
        );
        (Answer::Neutral, Certainty::Inconclusive, reason)
    };
    comparison.verdict = Some(verdict);
    comparison.certainty = certainty;
    comparison.reason = reason;
}

/// A series as time per call, blocks numbered across launches.
struct Calls {
    block: Vec<u64>,
    call_ns: Vec<f64>,
}

impl Calls {
    fn of(series: &Series) -> Result<Self, String> {
        if series.iterations.contains(&0) {
            return Err(format!("{} has a sample of 0 iterations", series.label()));
        }
        let block = series.launch.iter().zip(&series.block);
        let calls = series.value_ns.iter().zip(&series.iterations);
        Ok(Self {
            block: block.map(|(&launch, &block)| u64::from(launch) << 32 | u64::from(block)).collect(),
            call_ns: calls.map(|(&ns, &iterations)| ns as f64 / iterations as f64).collect(),
        })
    }

    fn column(&self) -> Column<'_> {
        Column { block: &self.block, value: &self.call_ns }
    }

    /// Median over blocks of the block's fastest call.
    fn typical_ns(&self) -> Result<Option<f64>, String> {
        let mut minima = std::collections::BTreeMap::new();
        for (&block, &ns) in self.block.iter().zip(&self.call_ns) {
            let fastest = minima.entry(block).or_insert(ns);
            *fastest = ns.min(*fastest);
        }
        stats::median(&minima.into_values().collect::<Vec<_>>()).map_err(|why| why.to_string())
    }
}
