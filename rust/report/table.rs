//! The speed table: one row for each workload and subject, times turned into the rate people think in.
//!
//! Rates are work divided by the typical call: the median over blocks of the block's fastest call.

use super::quantity::Quantity;
use crate::gate::Verdict;
use crate::gate::verdict::{Comparison, Efficiency};
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
    /// As [`Quantity`] names it; empty where nothing was timed.
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
    /// Share of the ceiling that binds which the subject's fastest call reaches; `None` where it was not measured.
    pub efficiency: Option<f64>,
    /// The ceiling's name.
    pub binds: Option<String>,
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
            let efficiency = verdict
                .efficiencies
                .iter()
                .find(|row| row.workload == planned.id && row.backend == comparison.subject);
            rows.push(timed(comparison, (agreement, efficiency), &planned.work));
        }
        for row in agreements().filter(|row| !row.holds()) {
            rows.push(disagreeing(row));
        }
    }
    rows
}

fn timed(
    comparison: &Comparison,
    (agreement, efficiency): (Option<&AgreementRow>, Option<&Efficiency>),
    work: &Work,
) -> Row {
    let quantity = Quantity::of(&comparison.workload, work, comparison.subject_ns);
    let value = |ns: Option<f64>| ns.map(|ns| quantity.value(ns));
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
        unit: quantity.unit,
        subject_ns: comparison.subject_ns,
        other_ns: comparison.other_ns,
        n_blocks: comparison.n_blocks,
        ratio: comparison.ratio,
        interval: comparison.interval,
        efficiency: efficiency.map(|row| row.share),
        binds: efficiency.map(|row| row.binds.clone()),
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
        efficiency: None,
        binds: None,
        verdict: "fail",
        reason: format!("{cause}: {} of {} values differ{place}", row.mismatches, row.compared),
    }
}
