//! Rule by rule: does the evidence show that it holds, that it is broken, or neither?

use super::compare::{self, Setting};
use super::policy::Policy;
use super::roles::{ORACLE, over_a_file, required_backends, required_subject, skipped_reason};
use super::verdict::{Against, AgreementSummary, Answer, Comparison, RuleAnswer, Severity};
use super::{Baseline, history};
use crate::record::{Accuracy, Recording, Series};
use crate::stats;

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
    let subject = required_subject(recording, policy);
    let takes_part = |name: &&String| recording.plan.backends.iter().any(|backend| backend.name == **name);
    let required: Vec<&String> = required_backends(recording, policy).iter().filter(takes_part).collect();
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
    let judged = comparisons.iter().filter(|comparison| comparison.against == Against::Reference);
    sum_up(name, judged, "nothing was timed against the C++ reference")
}

/// Builds against accepted recordings of builds: without one there is nothing to judge by.
pub(super) fn build_time(baseline: &Baseline<'_>, comparisons: &[Comparison]) -> RuleAnswer {
    let name = "build-time";
    match baseline {
        Baseline::NotAsked => rule(name, Some(Answer::Neutral), "no baseline was given".into()),
        Baseline::Missing { reason, command } => {
            rule(name, Some(Answer::Neutral), format!("{reason}; `{command}` records one"))
        }
        Baseline::Sessions { void: Some(why), .. } => {
            rule(name, Some(Answer::Neutral), format!("not comparable: {why}"))
        }
        Baseline::Sessions { .. } | Baseline::Revision { .. } => {
            sum_up(name, comparisons.iter(), "no build was compared")
        }
    }
}

/// The C++ rule where instructions were counted: it is about time.
pub(super) fn speed_not_judged() -> RuleAnswer {
    let reason = "instruction counts are no speed: --counts wall or cpu judges it";
    rule("reference-speed", None, reason.into())
}

/// No required workload became slower by a severity that fails.
pub(super) fn regression(
    baseline: &Baseline<'_>,
    comparisons: &[Comparison],
    policy: &Policy,
    noise: Option<f64>,
) -> RuleAnswer {
    let name = "regression";
    let against = match baseline {
        Baseline::NotAsked => return rule(name, None, "no baseline was given".into()),
        Baseline::Missing { reason, command } => {
            let reason = format!("{reason}; `{command}` records one");
            return rule(name, Some(Answer::Neutral), reason);
        }
        Baseline::Sessions { void: Some(why), .. } => {
            return rule(name, Some(Answer::Neutral), format!("not comparable: {why}"));
        }
        Baseline::Sessions { .. } => Against::Baseline,
        Baseline::Revision { .. } => Against::Revision,
    };
    let judged = || comparisons.iter().filter(move |comparison| comparison.against == against);
    let mut answer = sum_up(name, judged(), "nothing was compared with it");
    let changes: Vec<f64> = judged()
        .filter(|comparison| comparison.required)
        .filter_map(|comparison| comparison.ratio.map(f64::ln))
        .collect();
    let noise = noise.unwrap_or(policy.severity.minor.ln_1p() / 3.0);
    if let Ok(Some(shift)) = stats::suite_shift(&changes, noise) {
        let factor = shift.median.exp();
        answer.reason = format!(
            "{}; suite-wide shift: {:.0} % of the workloads moved together by {factor:.3}, look at the machine and the build flags first",
            answer.reason,
            shift.share * 100.0
        );
    }
    answer
}

/// Fails if one of them fails, is neutral if one of them is, passes if all do.
fn sum_up<'a>(name: &str, comparisons: impl Iterator<Item = &'a Comparison>, none: &str) -> RuleAnswer {
    let judged: Vec<(&Comparison, Answer)> =
        comparisons.filter_map(|comparison| comparison.verdict.map(|answer| (comparison, answer))).collect();
    let of = |wanted: Answer| {
        judged.iter().filter(move |(_, answer)| *answer == wanted).map(|(comparison, _)| *comparison)
    };
    let (failed, unsure) = (of(Answer::Fail).count(), of(Answer::Neutral).count());
    let worst = |answer| {
        let worst = of(answer).max_by(|a, b| a.ratio.unwrap_or(0.0).total_cmp(&b.ratio.unwrap_or(0.0)));
        worst.map(|c| format!("{} on {}: {}", c.workload, c.subject, c.reason)).unwrap_or_default()
    };
    let n = judged.len();
    if n == 0 {
        rule(name, Some(Answer::Neutral), none.into())
    } else if failed > 0 {
        let reason = format!("{failed} of {n} comparisons are too slow; worst {}", worst(Answer::Fail));
        rule(name, Some(Answer::Fail), reason)
    } else if unsure > 0 {
        let reason = format!("{unsure} of {n} comparisons are undecided; worst {}", worst(Answer::Neutral));
        rule(name, Some(Answer::Neutral), reason)
    } else {
        rule(name, Some(Answer::Pass), format!("{n} of {n} comparisons are within the limit"))
    }
}

/// Peak memory against the accepted recordings.
pub(super) fn memory(recording: &Recording, baseline: &Baseline<'_>, policy: &Policy) -> RuleAnswer {
    let name = "memory";
    let Baseline::Sessions { sessions, void: None, .. } = baseline else {
        return rule(name, None, "no accepted recording to compare peak memory with".into());
    };
    let growth = match history::peak_memory(recording, sessions) {
        Ok(ratio) => ratio - 1.0,
        Err(missing) => {
            return rule(name, Some(Answer::Neutral), format!("peak memory was not measured ({missing})"));
        }
    };
    let percent = growth * 100.0;
    let limit = policy.memory.growth * 100.0;
    let (answer, words) = match growth > policy.memory.growth {
        true if policy.fail_on.core > Severity::Minor => {
            (Answer::Pass, "a minor regression, not red by fail_on")
        }
        true => (Answer::Fail, "a minor regression"),
        false => (Answer::Pass, "within the limit"),
    };
    rule(name, Some(answer), format!("peak memory {percent:+.1} % (allowed {limit:+.0} %): {words}"))
}

/// The best SIMD backend must be surely ahead of the scalar one wherever both were timed on products.
pub(super) fn simd_ahead(setting: &Setting<'_>, subject: Option<&str>) -> RuleAnswer {
    let recording = setting.recording;
    let name = "simd-ahead-of-scalar";
    let Some(subject) = subject.filter(|subject| *subject != ORACLE) else {
        return rule(name, None, "no SIMD backend takes part".into());
    };
    let (mut slowest, mut n): (Option<(f64, String)>, usize) = (None, 0);
    let meter = &recording.plan.meter;
    let judged = recording.series.iter().filter(|series| series.meter == *meter && series.backend == subject);
    for series in
        judged.filter(|series| series.workload.contains("matmul/") || series.workload.contains("linear/"))
    {
        let scalar = recording.series.iter().find(|other| {
            other.workload == series.workload && other.backend == ORACLE && other.meter == *meter
        });
        let Some(scalar) = scalar else { continue };
        let Some([lower, upper]) = compare::interval(setting, series, scalar) else { continue };
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

/// A GPU must be worth it: at most half the time of the best CPU backend wherever both were timed.
pub(super) fn gpu_ahead(setting: &Setting<'_>, subject: Option<&str>) -> RuleAnswer {
    let (name, recording) = ("gpu", setting.recording);
    let Some(subject) = subject.filter(|_| recording.series.iter().any(|series| series.backend == GPU))
    else {
        let why = skipped_reason(recording, GPU).unwrap_or("nothing was timed on it");
        return rule(name, None, format!("skipped: GPU unavailable ({why})"));
    };
    let meter = &recording.plan.meter;
    let of = |backend: &str, workload: &str| {
        let wanted = |s: &&Series| s.meter == *meter && s.backend == backend && s.workload == workload;
        recording.series.iter().find(wanted)
    };
    let (mut n, mut unsure) = (0, None);
    for gpu in recording.series.iter().filter(|series| series.meter == *meter && series.backend == GPU) {
        let Some(cpu) = of(subject, &gpu.workload) else { continue };
        let Some([lower, upper]) = compare::interval(setting, gpu, cpu) else { continue };
        n += 1;
        if lower > GPU_SHARE {
            let reason = format!(
                "no benefit on {}: at least {lower:.3} of the time of {subject}, allowed {GPU_SHARE}",
                gpu.workload
            );
            return rule(name, Some(Answer::Fail), reason);
        }
        if upper > GPU_SHARE {
            unsure = Some(gpu.workload.clone());
        }
    }
    match (n, unsure) {
        (0, _) => {
            rule(name, Some(Answer::Neutral), format!("{GPU} and {subject} were timed on no common workload"))
        }
        (_, Some(workload)) => {
            rule(name, Some(Answer::Neutral), format!("{GPU} is not surely twice as fast on {workload}"))
        }
        (n, None) => {
            rule(name, Some(Answer::Pass), format!("at least twice as fast as {subject} on {n} workloads"))
        }
    }
}

/// The GPU's backend.
const GPU: &str = "cuda";

/// Share of the best CPU backend's time that the GPU may take.
const GPU_SHARE: f64 = 0.5;

fn rule(name: &str, verdict: Option<Answer>, reason: String) -> RuleAnswer {
    RuleAnswer { name: name.into(), verdict, reason }
}
