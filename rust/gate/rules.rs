//! Rule by rule: does the evidence show that it holds, that it is broken, or neither?

use super::compare;
use super::policy::Policy;
use super::verdict::{AgreementSummary, Answer, Comparison, RuleAnswer, Validation};
use crate::record::{Accuracy, Meter, PlannedWorkload, Recording};

/// What everybody is compared with.
const ORACLE: &str = "rust-scalar";

/// The subject the verdict depends on: the fastest Rust backend that could run, whether or not it took part.
pub(super) fn required_subject(recording: &Recording) -> Option<&str> {
    recording.plan.required.iter().map(String::as_str).find(|name| name.starts_with("rust-"))
}

/// The reference the verdict depends on, likewise.
fn required_reference(recording: &Recording) -> Option<&str> {
    recording.plan.required.iter().map(String::as_str).find(|name| name.starts_with("cpp-"))
}

/// Every agreement of the recording, in numbers.
pub(super) fn agreement_summary(recording: &Recording) -> AgreementSummary {
    AgreementSummary {
        n: recording.agreements.len(),
        exact: recording.agreements.iter().filter(|row| row.exact).count(),
        failures: recording.agreements.iter().filter(|row| !row.holds()).cloned().collect(),
    }
}

pub(super) fn agreement(summary: &AgreementSummary) -> RuleAnswer {
    let (verdict, reason) = match (summary.n, summary.failures.first()) {
        (0, _) => (Answer::Neutral, "nothing was compared".to_owned()),
        (n, None) => {
            (Answer::Pass, format!("{n} of {n} results agree with the oracle, {} to the bit", summary.exact))
        }
        (n, Some(first)) => {
            let cause = first.cause.as_deref().unwrap_or("cause unknown");
            let reason = format!(
                "{} of {n} results disagree with the oracle; first {} on {}: {cause}",
                summary.failures.len(),
                first.backend,
                first.workload
            );
            (Answer::Fail, reason)
        }
    };
    rule("agreement", Some(verdict), reason)
}

pub(super) fn accuracy(recording: &Recording, policy: &Policy) -> RuleAnswer {
    if over_a_file(recording) {
        return rule("accuracy", None, "measured on seeded weights, not on a model file".into());
    }
    // The oracle's own accuracy says nothing of the others: each required backend that takes part brings its own;
    // one that does not take part is the business of completeness.
    let subject = required_subject(recording);
    let takes_part = |name: &&String| recording.plan.backends.iter().any(|backend| backend.name == **name);
    let required: Vec<&String> = recording.plan.required.iter().filter(takes_part).collect();
    let mut lowest: Option<(f64, &str)> = None;
    for (format, floor) in &policy.accuracy.floor_percent {
        let prefix = format!("accuracy/{format}/");
        let gated = |row: &&Accuracy| row.workload.starts_with(&prefix) && row.workload.ends_with("/gated");
        let rows: Vec<&Accuracy> = recording.accuracy.iter().filter(gated).collect();
        for row in &rows {
            let found = row.accuracy_percent;
            if found.is_nan() || found < *floor {
                let critical = if found >= policy.accuracy.critical_percent { "" } else { " (critical)" };
                let reason = format!(
                    "{} reaches {found:.4} % on {format}, at least {floor} % is required{critical}",
                    row.backend
                );
                return rule("accuracy", Some(Answer::Fail), reason);
            }
            if Some(row.backend.as_str()) == subject && lowest.is_none_or(|(least, _)| found < least) {
                lowest = Some((found, format));
            }
        }
        if let Some(missing) = required.iter().find(|name| !rows.iter().any(|row| row.backend == ***name)) {
            let reason = format!("accuracy of {format} was not measured on {missing}");
            return rule("accuracy", Some(Answer::Neutral), reason);
        }
    }
    match (lowest, subject) {
        (Some((least, format)), Some(subject)) => {
            rule("accuracy", Some(Answer::Pass), format!("lowest {least:.4} % ({format} on {subject})"))
        }
        _ => rule("accuracy", Some(Answer::Neutral), "accuracy was not measured".into()),
    }
}

/// The C++ rule: the required subject against the reference.
pub(super) fn reference_speed(recording: &Recording, comparisons: &[Comparison]) -> RuleAnswer {
    let name = "reference-speed";
    if let Some(reason) = skipped_reason(recording, "cpp-*") {
        return rule(name, Some(Answer::Neutral), format!("not judged: {reason}"));
    }
    let judged: Vec<(&Comparison, Answer)> = comparisons
        .iter()
        .filter_map(|comparison| comparison.verdict.map(|answer| (comparison, answer)))
        .collect();
    let of = |wanted: Answer| {
        judged.iter().filter(move |(_, answer)| *answer == wanted).map(|(comparison, _)| *comparison)
    };
    let (failed, unsure, passed) =
        (of(Answer::Fail).count(), of(Answer::Neutral).count(), of(Answer::Pass).count());
    let first =
        |answer| of(answer).next().map(|c| format!("{}: {}", c.workload, c.reason)).unwrap_or_default();
    if failed > 0 {
        let reason =
            format!("{failed} of {} workloads are too slow; first {}", judged.len(), first(Answer::Fail));
        rule(name, Some(Answer::Fail), reason)
    } else if judged.is_empty() {
        rule(name, Some(Answer::Neutral), "nothing was timed against the C++ reference".into())
    } else if unsure > 0 {
        let reason =
            format!("{unsure} of {} workloads are undecided; first {}", judged.len(), first(Answer::Neutral));
        rule(name, Some(Answer::Neutral), reason)
    } else {
        rule(name, Some(Answer::Pass), format!("{passed} of {passed} workloads are within the limit"))
    }
}

/// The best SIMD backend must be surely ahead of the scalar one wherever both were timed on products.
pub(super) fn simd_ahead(recording: &Recording, subject: Option<&str>, policy: &Policy) -> RuleAnswer {
    let name = "simd-ahead-of-scalar";
    let Some(subject) = subject.filter(|subject| *subject != ORACLE) else {
        return rule(name, None, "no SIMD backend takes part".into());
    };
    let (mut slowest, mut n): (Option<(f64, String)>, usize) = (None, 0);
    let wall =
        recording.series.iter().filter(|series| series.meter == Meter::WallNs && series.backend == subject);
    for series in
        wall.filter(|series| series.workload.contains("matmul/") || series.workload.contains("linear/"))
    {
        let scalar = recording.series.iter().find(|other| {
            other.workload == series.workload && other.backend == ORACLE && other.meter == Meter::WallNs
        });
        let Some(scalar) = scalar else { continue };
        let comparison = compare::pair(series, Some(scalar), policy);
        let Some([lower, upper]) = comparison.interval else { continue };
        n += 1;
        if lower >= 1.0 {
            let reason = format!(
                "{subject} is not faster than rust-scalar on {}: {lower:.3} times its time",
                series.workload
            );
            return rule(name, Some(Answer::Fail), reason);
        }
        if slowest.as_ref().is_none_or(|(most, _)| upper > *most) {
            slowest = Some((upper, series.workload.clone()));
        }
    }
    match slowest {
        None => rule(
            name,
            Some(Answer::Neutral),
            format!("{subject} and rust-scalar were timed on no common product"),
        ),
        Some((upper, workload)) if upper >= 1.0 => {
            rule(name, Some(Answer::Neutral), format!("{subject} is not surely faster on {workload}"))
        }
        Some((upper, workload)) => {
            let reason = format!(
                "{subject} is at least {:.1} times as fast on all {n} products (least on {workload})",
                1.0 / upper
            );
            rule(name, Some(Answer::Pass), reason)
        }
    }
}

/// Whether everything that was asked for was measured: one named condition each.
pub(super) fn completeness(recording: &Recording, policy: &Policy) -> Vec<Validation> {
    let planned = &recording.plan.workloads;
    let condition = |name: &str, problem: Option<String>, fine: String| Validation {
        name: name.into(),
        ok: problem.is_none(),
        reason: problem.unwrap_or(fine),
    };
    vec![
        condition("interrupted", recording.incomplete.clone(), "the plan was carried out".into()),
        condition(
            "empty-suite",
            planned.is_empty().then(|| "no workload was planned".into()),
            format!("{} workloads planned", planned.len()),
        ),
        condition(
            "categories",
            missing_category(recording, policy),
            format!("required: {}", policy.required.categories.join(", ")),
        ),
        condition(
            "subject",
            missing_backend(recording, required_subject(recording), "Rust backend"),
            format!("the verdict is about {}", required_subject(recording).unwrap_or_default()),
        ),
        condition(
            "reference",
            missing_backend(recording, required_reference(recording), "C++ reference"),
            format!("compared with {}", required_reference(recording).unwrap_or_default()),
        ),
        condition(
            "requested",
            missing_request(recording),
            "every backend asked for by name was compared".into(),
        ),
        condition(
            "crossval-data",
            missing_agreement(recording),
            "every planned workload of every required backend was compared with the oracle".into(),
        ),
        condition("timing-data", missing_timing(recording), "every planned workload was timed".into()),
    ]
}

/// A required category counts when work on weights of it was planned; a call's overhead alone is no kernel.
fn missing_category(recording: &Recording, policy: &Policy) -> Option<String> {
    let on_weights = |workload: &PlannedWorkload| {
        ["quantize/", "dequantize/", "matmul/", "linear/"].iter().any(|kind| workload.id.contains(kind))
    };
    let covered = |wanted: &String| {
        recording.plan.workloads.iter().any(|workload| workload.category == *wanted && on_weights(workload))
    };
    let missing = policy.required.categories.iter().find(|wanted| !covered(wanted))?;
    Some(format!("no workload on weights of the required category {missing} was planned"))
}

fn missing_backend(recording: &Recording, required: Option<&str>, what: &str) -> Option<String> {
    let Some(name) = required else {
        let why = skipped_reason(recording, "cpp-*").unwrap_or("none can run here");
        return Some(format!("no {what} took part: {why}"));
    };
    if recording.plan.backends.iter().any(|backend| backend.name == name) {
        return None;
    }
    let why = skipped_reason(recording, name).or_else(|| skipped_reason(recording, "cpp-*"));
    Some(format!("{name} did not take part: {}", why.unwrap_or("no reason was recorded")))
}

/// A backend asked for by name, for which nothing was compared. The oracle is compared with nobody.
fn missing_request(recording: &Recording) -> Option<String> {
    let compared = |name: &String| {
        name == ORACLE || recording.agreements.iter().any(|row| row.backend == *name && row.compared > 0)
    };
    let missing = recording.plan.requested.iter().find(|name| !compared(name))?;
    let why = skipped_reason(recording, missing).unwrap_or("it supports nothing that was asked");
    Some(format!("{missing} was asked for and nothing was compared: {why}"))
}

/// A planned workload that a required backend was not compared on.
fn missing_agreement(recording: &Recording) -> Option<String> {
    for name in recording.plan.required.iter().filter(|name| *name != ORACLE) {
        let compared =
            |id: &str| recording.agreements.iter().any(|row| row.workload == id && row.backend == *name);
        if let Some(workload) = recording.plan.workloads.iter().find(|workload| !compared(&workload.id)) {
            return Some(format!("{} of {name} was not compared with the oracle", workload.id));
        }
    }
    None
}

/// A planned workload that the subject was not timed on. Over a file only one tensor of each shape is timed.
fn missing_timing(recording: &Recording) -> Option<String> {
    let subject =
        required_subject(recording).filter(|_| recording.plan.launches > 0 && !over_a_file(recording))?;
    let timed =
        |id: &str| recording.series.iter().any(|series| series.workload == id && series.backend == subject);
    let workload = recording.plan.workloads.iter().find(|workload| !timed(&workload.id))?;
    Some(format!("{} was not timed on {subject}", workload.id))
}

/// The rule that sums up the validations.
pub(super) fn completeness_rule(validation: &[Validation]) -> RuleAnswer {
    match validation.iter().find(|condition| !condition.ok) {
        Some(condition) => {
            rule("completeness", Some(Answer::Neutral), format!("{}: {}", condition.name, condition.reason))
        }
        None => rule("completeness", Some(Answer::Pass), "everything required was measured".into()),
    }
}

/// The reason under which `what` was skipped.
fn skipped_reason<'a>(recording: &'a Recording, what: &str) -> Option<&'a str> {
    recording.skipped.iter().find(|skipped| skipped.what == what).map(|skipped| skipped.reason.as_str())
}

/// Whether the weights came from a model file.
pub(super) fn over_a_file(recording: &Recording) -> bool {
    recording.plan.workloads.iter().any(|workload| workload.id.starts_with("file:"))
}

fn rule(name: &str, verdict: Option<Answer>, reason: String) -> RuleAnswer {
    RuleAnswer { name: name.into(), verdict, reason }
}
