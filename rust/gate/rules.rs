//! Rule by rule: does the evidence show that it holds, that it is broken, or neither?

use super::compare;
use super::policy::Policy;
use super::verdict::{AgreementSummary, Answer, Comparison, RuleAnswer, Validation};
use crate::record::{Meter, Recording};

/// The subject the verdict depends on: the last, that is fastest, Rust backend of the recording.
pub(super) fn required_subject(recording: &Recording) -> Option<&str> {
    let of_rust = |name: &&str| name.starts_with("rust-") && !name.contains('@');
    recording.plan.backends.iter().map(|backend| backend.name.as_str()).rev().find(of_rust)
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
    let mut lowest: Option<(f64, String)> = None;
    for (format, floor) in &policy.accuracy_floor_percent {
        let prefix = format!("accuracy/{format}/");
        let rows = recording
            .accuracy
            .iter()
            .filter(|row| row.workload.starts_with(&prefix) && row.workload.ends_with("/gated"));
        let mut seen = false;
        for row in rows {
            seen = true;
            let found = row.accuracy_percent;
            if found.is_nan() || found < *floor {
                let critical = if found >= policy.accuracy_critical_percent { "" } else { " (critical)" };
                let reason = format!(
                    "{} reaches {found:.4} % on {format}, at least {floor} % is required{critical}",
                    row.backend
                );
                return rule("accuracy", Some(Answer::Fail), reason);
            }
            if lowest.as_ref().is_none_or(|(least, _)| found < *least) {
                lowest = Some((found, format!("{format} on {}", row.backend)));
            }
        }
        if !seen {
            return rule("accuracy", Some(Answer::Neutral), format!("accuracy of {format} was not measured"));
        }
    }
    match lowest {
        Some((least, who)) => rule("accuracy", Some(Answer::Pass), format!("lowest {least:.4} % ({who})")),
        None => rule("accuracy", Some(Answer::Neutral), "accuracy was not measured".into()),
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
    let Some(subject) = subject.filter(|subject| *subject != "rust-scalar") else {
        return rule(name, None, "no SIMD backend takes part".into());
    };
    let (mut slowest, mut n): (Option<(f64, String)>, usize) = (None, 0);
    let wall =
        recording.series.iter().filter(|series| series.meter == Meter::WallNs && series.backend == subject);
    for series in
        wall.filter(|series| series.workload.contains("matmul/") || series.workload.contains("linear/"))
    {
        let scalar = recording.series.iter().find(|other| {
            other.workload == series.workload
                && other.backend == "rust-scalar"
                && other.meter == Meter::WallNs
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

/// Whether everything that was asked for was measured.
pub(super) fn completeness(recording: &Recording, subject: Option<&str>, policy: &Policy) -> Vec<Validation> {
    let mut found = Vec::new();
    let mut check = |name: &str, problem: Option<String>, fine: String| {
        found.push(Validation { name: name.into(), ok: problem.is_none(), reason: problem.unwrap_or(fine) });
    };
    check("interrupted", recording.incomplete.clone(), "the plan was carried out".into());
    let planned = &recording.plan.workloads;
    check(
        "empty-suite",
        planned.is_empty().then(|| "no workload was planned".into()),
        format!("{} workloads planned", planned.len()),
    );
    let missing_category = policy
        .required_categories
        .iter()
        .find(|wanted| !planned.iter().any(|workload| workload.category == **wanted));
    check(
        "categories",
        missing_category.map(|name| format!("no workload of the required category {name} was planned")),
        format!("required: {}", policy.required_categories.join(", ")),
    );
    check(
        "subject",
        subject.is_none().then(|| "no Rust backend took part".into()),
        format!("the verdict is about {}", subject.unwrap_or_default()),
    );
    let unagreed = planned.iter().find(|workload| {
        !recording
            .agreements
            .iter()
            .any(|row| row.workload == workload.id && Some(row.backend.as_str()) == subject)
    });
    let only_oracle = subject == Some("rust-scalar");
    check(
        "crossval-data",
        unagreed
            .filter(|_| !only_oracle)
            .map(|workload| format!("{} was not compared with the oracle", workload.id)),
        "every planned workload was compared with the oracle".into(),
    );
    let no_reference = recording.plan.backends.iter().all(|backend| !backend.name.starts_with("cpp-"));
    check(
        "reference",
        no_reference.then(|| {
            let why = skipped_reason(recording, "cpp-*").or_else(|| skipped_reason(recording, "cpp-avx2"));
            format!("no C++ reference took part: {}", why.unwrap_or("none is built in"))
        }),
        "the C++ reference took part".into(),
    );
    if let Some(subject) = subject.filter(|_| recording.plan.launches > 0 && !over_a_file(recording)) {
        let untimed = planned.iter().find(|workload| {
            !recording.series.iter().any(|series| series.workload == workload.id && series.backend == subject)
        });
        check(
            "timing-data",
            untimed.map(|workload| format!("{} was not timed on {subject}", workload.id)),
            format!("every planned workload was timed on {subject}"),
        );
    }
    found
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
