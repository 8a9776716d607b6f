//! The speed table: one row for each workload and subject, times turned into the rate people think in.
//!
//! Rates are work divided by the typical call (the median over blocks of the block's fastest call): GB/s of packed
//! weight bytes where reading weights is the work, GOP/s (2 operations per weight and activation row) from 4
//! rows on, G elements/s for quantising and dequantising, ns per call for the overhead.

use crate::gate::Verdict;
use crate::gate::verdict::Comparison;
use crate::record::{AgreementRow, Recording, Work};
use serde::Serialize;

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Workload id.
    pub workload: String,
    /// The backend this row is about.
    pub subject: String,
    /// The reference.
    pub other: String,
    /// Whether the verdict depends on it.
    pub required: bool,
    /// `exact`, `within bounds`, `DIFFERS`, `not compared`.
    pub agreement: &'static str,
    /// Rate or time of the subject.
    pub subject_value: Option<f64>,
    /// The same of the reference.
    pub other_value: Option<f64>,
    /// `GB/s`, `GOP/s`, `Gelem/s`, `ns`, `s`.
    pub unit: &'static str,
    /// Typical call of the subject, in ns.
    pub subject_ns: Option<f64>,
    /// The same of the reference.
    pub other_ns: Option<f64>,
    /// Blocks that both sides have.
    pub n_blocks: usize,
    /// Time of the subject over time of the reference.
    pub ratio: Option<f64>,
    /// Bounds of it.
    pub interval: Option<[f64; 2]>,
    /// `pass`, `neutral`, `fail`, or `-` where no rule applies.
    pub verdict: &'static str,
    /// Why.
    pub reason: String,
}

/// Rows in the order of the plan; workloads that were compared but not timed are left to the agreement summary,
/// except those that disagree.
pub fn rows(recording: &Recording, verdict: &Verdict) -> Vec<Row> {
    let mut rows = Vec::new();
    for planned in &recording.plan.workloads {
        let agreements = || recording.agreements.iter().filter(|row| row.workload == planned.id);
        for comparison in verdict.comparisons.iter().filter(|comparison| comparison.workload == planned.id) {
            let agreement = agreements().find(|row| row.backend == comparison.subject);
            rows.push(timed(comparison, agreement, &planned.work));
        }
        for row in agreements().filter(|row| !row.holds()) {
            rows.push(disagreeing(row));
        }
    }
    rows
}

fn timed(comparison: &Comparison, agreement: Option<&AgreementRow>, work: &Work) -> Row {
    let (unit, amount) = unit_of(&comparison.workload, work);
    let value = |ns: Option<f64>| match unit {
        "s" => ns.map(|ns| ns * 1e-9),
        _ => ns.map(|ns| amount.map_or(ns, |amount| amount / ns)),
    };
    Row {
        workload: comparison.workload.clone(),
        subject: comparison.subject.clone(),
        other: comparison.other.clone(),
        required: comparison.required,
        agreement: match agreement {
            // The oracle is what the others are compared with.
            None if comparison.subject == "rust-scalar" => "oracle",
            None => "not compared",
            Some(row) if row.exact => "exact",
            Some(row) if row.holds() => "within bounds",
            Some(_) => "DIFFERS",
        },
        subject_value: value(comparison.subject_ns),
        other_value: value(comparison.other_ns),
        unit,
        subject_ns: comparison.subject_ns,
        other_ns: comparison.other_ns,
        n_blocks: comparison.n_blocks,
        ratio: comparison.ratio,
        interval: comparison.interval,
        verdict: comparison.verdict.map_or("-", |answer| answer.name()),
        reason: comparison.reason.clone(),
    }
}

fn disagreeing(row: &AgreementRow) -> Row {
    let place = row.first_mismatch.as_ref().map_or(String::new(), |first| {
        format!("; first at {}: expected {}, got {}", first.index, first.expected, first.actual)
    });
    let cause = row.cause.as_deref().unwrap_or("cause unknown");
    Row {
        workload: row.workload.clone(),
        subject: row.backend.clone(),
        other: "rust-scalar".into(),
        required: true,
        agreement: "DIFFERS",
        subject_value: None,
        other_value: None,
        unit: "",
        subject_ns: None,
        other_ns: None,
        n_blocks: 0,
        ratio: None,
        interval: None,
        verdict: "fail",
        reason: format!("{cause}: {} of {} values differ{place}", row.mismatches, row.compared),
    }
}

/// The unit of a workload, and the amount of work whose quotient by nanoseconds is in it; `None`: the time itself.
fn unit_of(workload: &str, work: &Work) -> (&'static str, Option<f64>) {
    let id =
        workload.split_once('/').filter(|(head, _)| head.starts_with("file:")).map_or(workload, |(_, id)| id);
    let kind = id.split('/').next().unwrap_or_default();
    match kind {
        "quantize" | "dequantize" | "activation" => ("Gelem/s", Some(work.weights as f64)),
        "matmul" | "linear" if work.ops >= 8 * work.weights => ("GOP/s", Some(work.ops as f64)),
        "matmul" | "linear" => ("GB/s", Some(work.bytes as f64)),
        "build" => ("s", None),
        _ => ("ns", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_the_work() {
        let work = |weights, ops| Work { weights, bytes: weights / 4, ops, ..Work::default() };
        assert_eq!(unit_of("matmul/i2_s/2560x2560/b1/t1/hot", &work(100, 200)), ("GB/s", Some(25.0)));
        assert_eq!(unit_of("matmul/i2_s/2560x2560/b4/t1/hot", &work(100, 800)), ("GOP/s", Some(800.0)));
        assert_eq!(
            unit_of("file:0123abcd/linear/i2_s/256x256/b1/t1/hot+tensor=x", &work(100, 200)).0,
            "GB/s"
        );
        assert_eq!(unit_of("activation/int8/2560x1", &work(100, 0)), ("Gelem/s", Some(100.0)));
        assert_eq!(unit_of("overhead/call", &work(128, 256)), ("ns", None));
    }
}
