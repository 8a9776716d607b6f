//! Is the evidence whole? One named condition each, asked before any verdict.
//!
//! A condition that is not met makes the verdict neutral, with its reason: what was not measured cannot pass.

use super::policy::Policy;
use super::roles::{
    ORACLE, over_a_file, required_backends, required_reference, required_subject, skipped_reason,
};
use super::samples::launches;
use super::verdict::{Answer, RuleAnswer, Validation};
use super::{Baseline, roles};
use crate::record::{PlannedWorkload, Recording};
use std::collections::BTreeSet;

/// Every condition on the evidence of one recording.
pub(super) fn conditions(recording: &Recording, baseline: &Baseline<'_>, policy: &Policy) -> Vec<Validation> {
    let planned = &recording.plan.workloads;
    let revision = matches!(baseline, Baseline::Revision { .. });
    let mut found = vec![
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
        condition("synthetic", synthetic(recording), "no sample looks made up".into()),
        condition(
            "requested",
            missing_request(recording),
            "every backend asked for by name was compared".into(),
        ),
        condition(
            "crossval-data",
            missing_agreement(recording, policy),
            "every planned workload of every required backend was compared with the oracle".into(),
        ),
    ];
    if revision {
        found.push(condition(
            "timing-data",
            missing_revision(recording),
            "every planned workload was timed".into(),
        ));
    } else {
        found.extend([
            condition(
                "subject",
                missing_backend(recording, required_subject(recording, policy), "Rust backend"),
                format!("the verdict is about {}", required_subject(recording, policy).unwrap_or_default()),
            ),
            condition(
                "reference",
                missing_backend(recording, required_reference(recording, policy), "C++ reference"),
                format!("compared with {}", required_reference(recording, policy).unwrap_or_default()),
            ),
            condition("feature-combinations", missing_feature(recording), features(recording)),
            condition(
                "accuracy-data",
                missing_accuracy(recording, policy),
                "accuracy of every format is present".into(),
            ),
            condition(
                "timing-data",
                missing_timing(recording, policy),
                "every planned workload was timed".into(),
            ),
        ]);
    }
    found.push(condition("launches", missing_launches(recording), launches_done(recording)));
    found.push(condition("gpu-capability", unstated_gpu(recording), gpu(recording)));
    if let Baseline::Sessions { sessions, void, .. } = baseline {
        let fine = format!("{} accepted recordings of this machine, builds and plan", sessions.len());
        found.push(condition("baseline-compatible", void.clone(), fine));
        let vanished = vanished(recording, sessions);
        found.push(condition(
            "expected-workloads",
            vanished,
            "no workload of the baseline is missing".into(),
        ));
    }
    found
}

/// The rule that sums up the conditions.
pub(super) fn completeness(validation: &[Validation]) -> RuleAnswer {
    let (verdict, reason) = match validation.iter().find(|condition| !condition.ok) {
        Some(condition) => (Answer::Neutral, format!("{}: {}", condition.name, condition.reason)),
        None => (Answer::Pass, "everything required was measured".to_owned()),
    };
    RuleAnswer { name: "completeness".into(), verdict: Some(verdict), reason }
}

fn condition(name: &str, problem: Option<String>, fine: String) -> Validation {
    Validation { name: name.into(), ok: problem.is_none(), reason: problem.unwrap_or(fine) }
}

/// A required category counts when work on weights of it was planned; a call's overhead alone is no kernel.
fn missing_category(recording: &Recording, policy: &Policy) -> Option<String> {
    let on_weights = |workload: &PlannedWorkload| {
        let kinds = ["quantize/", "dequantize/", "matmul/", "linear/", "prefill/", "decode/"];
        kinds.iter().any(|kind| workload.id.contains(kind))
    };
    let covered = |wanted: &String| {
        recording.plan.workloads.iter().any(|workload| workload.category == *wanted && on_weights(workload))
    };
    let missing = policy.required.categories.iter().find(|wanted| !covered(wanted))?;
    Some(format!("no workload on weights of the required category {missing} was planned"))
}

/// Imported numbers that look computed, not measured, are no evidence.
fn synthetic(recording: &Recording) -> Option<String> {
    let of_series =
        recording.series.iter().find_map(|series| Some((series.label(), series.extra.get("suspect")?)));
    let whole = recording.extra.get("suspect").map(|why| ("the recording".to_owned(), why));
    let (what, why) = whole.or(of_series)?;
    Some(format!("{what} is suspect: {}", why.as_str().unwrap_or("marked so")))
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
fn missing_agreement(recording: &Recording, policy: &Policy) -> Option<String> {
    if recording.agreements.is_empty() {
        return Some("nothing was compared with the oracle".into());
    }
    for name in required_backends(recording, policy).iter().filter(|name| *name != ORACLE) {
        let compared =
            |id: &str| recording.agreements.iter().any(|row| row.workload == id && row.backend == *name);
        if let Some(workload) = recording.plan.workloads.iter().find(|workload| !compared(&workload.id)) {
            return Some(format!("{} of {name} was not compared with the oracle", workload.id));
        }
    }
    None
}

fn missing_accuracy(recording: &Recording, policy: &Policy) -> Option<String> {
    if over_a_file(recording) {
        return None;
    }
    let present = |format: &str| {
        let prefix = format!("accuracy/{format}/");
        recording.accuracy.iter().any(|row| row.workload.starts_with(&prefix))
    };
    let missing = policy.accuracy.floor_percent.keys().find(|format| !present(format))?;
    Some(format!("accuracy of {missing} was not measured"))
}

/// A planned workload that the subject was not timed on. Over a file only one tensor of each shape is timed.
fn missing_timing(recording: &Recording, policy: &Policy) -> Option<String> {
    let subject = required_subject(recording, policy)
        .filter(|_| recording.plan.launches > 0 && !over_a_file(recording))?;
    let timed =
        |id: &str| recording.series.iter().any(|series| series.workload == id && series.backend == subject);
    let workload = recording.plan.workloads.iter().find(|workload| !timed(&workload.id))?;
    Some(format!("{} was not timed on {subject}", workload.id))
}

/// A planned workload on which no build was timed against another.
fn missing_revision(recording: &Recording) -> Option<String> {
    let timed = |id: &str| {
        recording.series.iter().any(|series| series.workload == id && series.backend != series.reference)
    };
    let workload = recording.plan.workloads.iter().find(|workload| !timed(&workload.id))?;
    Some(format!("{} was not timed on both builds", workload.id))
}

/// A timed workload that fewer launches measured than were planned. One that was decided early needs no more.
fn missing_launches(recording: &Recording) -> Option<String> {
    let first = launches(recording, 1);
    let planned = recording.plan.launches as usize;
    let stops_early = recording.plan.stop_rule == roles::ALWAYS_VALID;
    let least = if stops_early { planned.min(roles::LEAST_LAUNCHES) } else { planned };
    let timed = recording.series.iter().filter(|series| series.meter == recording.plan.meter);
    for series in timed.filter(|series| series.backend == series.reference) {
        let done: BTreeSet<u32> =
            series.launch.iter().copied().filter(|launch| first.contains(launch)).collect();
        if done.len() < least {
            let reason = format!("{} was measured in {} of {planned} launches", series.workload, done.len());
            return Some(reason);
        }
    }
    None
}

fn launches_done(recording: &Recording) -> String {
    match (launches(recording, 1).len(), launches(recording, 2).len()) {
        (0, _) => "nothing was timed".into(),
        (first, 0) => format!("{first} fresh processes"),
        (first, second) => format!("{first} fresh processes, and {second} for what looked too slow"),
    }
}

/// A cargo feature that is built in and brought no backend.
fn missing_feature(recording: &Recording) -> Option<String> {
    let sides = [("cpu", "rust-"), ("ffi", "cpp-")];
    let built_in = |feature: &str| recording.tool.features.iter().any(|name| name == feature);
    let compared =
        |prefix: &str| recording.plan.backends.iter().any(|backend| backend.name.starts_with(prefix));
    let (feature, _) = sides.into_iter().find(|(feature, prefix)| built_in(feature) && !compared(prefix))?;
    let why = skipped_reason(recording, "cpp-*").filter(|_| feature == "ffi");
    Some(format!(
        "feature {feature} is built in and was not measured: {}",
        why.unwrap_or("no backend of it took part")
    ))
}

fn features(recording: &Recording) -> String {
    let features = recording.tool.features.join(", ");
    format!("measured with {}", if features.is_empty() { "no feature" } else { &features })
}

/// Whether there is a GPU is said, one way or the other.
fn unstated_gpu(recording: &Recording) -> Option<String> {
    let stated = recording.fingerprint.gpu.is_some() || skipped_reason(recording, "cuda").is_some();
    (!stated).then(|| "the recording does not say whether there is a GPU".into())
}

fn gpu(recording: &Recording) -> String {
    match (&recording.fingerprint.gpu, skipped_reason(recording, "cuda")) {
        (Some(gpu), _) => gpu.clone(),
        (None, why) => format!("method: cpu-fallback; reason: {}", why.unwrap_or("GPU unavailable")),
    }
}

/// A workload of the newest accepted recording that is not in today's plan. Choosing workloads is no vanishing.
fn vanished(recording: &Recording, sessions: &[Recording]) -> Option<String> {
    let newest = sessions.last()?;
    let chosen = recording.plan.profile_workloads as usize > recording.plan.workloads.len();
    let here = |id: &str| recording.plan.workloads.iter().any(|workload| workload.id == id);
    let missing: Vec<&str> =
        newest.plan.workloads.iter().map(|workload| workload.id.as_str()).filter(|id| !here(id)).collect();
    let first = missing.first()?;
    let how = if chosen { " (workloads were chosen)" } else { "" };
    Some(format!("{} workloads of the baseline were not measured{how}; first {first}", missing.len()))
}
