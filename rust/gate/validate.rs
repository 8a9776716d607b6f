//! Is the evidence whole? One named condition each, asked before any verdict.
//!
//! A condition that is not met makes the verdict neutral, with its reason: what was not measured cannot pass.

use super::policy::Policy;
use super::roles::{
    ORACLE, is_bystander, over_a_file, required_backends, required_reference, required_subject,
    skipped_reason,
};
use super::samples::launches;
use super::verdict::{Answer, RuleAnswer, Validation};
use super::{Baseline, roles};
use crate::record::{Meter, PlannedWorkload, Recording, Series};
use std::collections::BTreeSet;

/// Every condition on the evidence of one recording.
pub(super) fn conditions(recording: &Recording, baseline: &Baseline<'_>, policy: &Policy) -> Vec<Validation> {
    let planned = &recording.plan.workloads;
    if roles::of_builds(recording) {
        return of_builds(recording, baseline);
    }
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
    found.extend([
        condition("optimised-builds", unoptimised(recording), "every timed build is optimised".into()),
        condition("units", units(recording), "times are of a plausible size".into()),
    ]);
    found.push(condition("launches", missing_launches(recording, policy), launches_done(recording)));
    found.push(condition("gpu-capability", unstated_gpu(recording), gpu(recording)));
    found.extend(against(recording, baseline));
    found
}

/// What accepted recordings must be.
fn against(recording: &Recording, baseline: &Baseline<'_>) -> Vec<Validation> {
    let mut found = Vec::new();
    if let Baseline::Sessions { sessions, void, .. } = baseline {
        let fine = format!("{} accepted recordings of this machine, builds and plan", sessions.len());
        found.push(condition("baseline-compatible", void.clone(), fine));
        found.push(condition(
            "independent-measurements",
            repeated(recording, sessions),
            "today and the accepted recordings were measured apart".into(),
        ));
        let vanished = vanished(recording, sessions);
        found.push(condition(
            "expected-workloads",
            vanished,
            "no workload of the baseline is missing".into(),
        ));
    }
    found
}

/// What of it applies to builds: no backend took part.
fn of_builds(recording: &Recording, baseline: &Baseline<'_>) -> Vec<Validation> {
    let repeats = recording.plan.launches as usize;
    let times = |id: &str| recording.series.iter().find(|s| s.workload == id).map_or(0, Series::len);
    let short = recording.plan.workloads.iter().find(|workload| times(&workload.id) < repeats.max(1));
    let short = short.map(|w| format!("{} was timed {} of {repeats} times", w.id, times(&w.id)));
    let mut found = vec![
        condition("interrupted", recording.incomplete.clone(), "the plan was carried out".into()),
        condition("synthetic", synthetic(recording), "no sample looks made up".into()),
        condition("timing-data", short, format!("every build was timed {repeats} times")),
    ];
    found.extend(against(recording, baseline));
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
    let meter = &recording.plan.meter;
    let judged = |series: &Series| series.meter == *meter && series.backend == subject;
    let measured = |id: &str| recording.series.iter().any(|series| series.workload == id && judged(series));
    let workload = recording.plan.workloads.iter().find(|workload| !measured(&workload.id))?;
    let done = match meter {
        Meter::Instructions => "counted",
        Meter::ThreadCpuNs => "timed by CPU time",
        _ => "timed",
    };
    Some(format!("{} was not {done} on {subject}", workload.id))
}

/// A planned workload on which no build was timed against another.
fn missing_revision(recording: &Recording) -> Option<String> {
    let timed = |id: &str| {
        recording.series.iter().any(|series| series.workload == id && series.backend != series.reference)
    };
    let workload = recording.plan.workloads.iter().find(|workload| !timed(&workload.id))?;
    Some(format!("{} was not timed on both builds", workload.id))
}

/// A timed workload that fewer launches measured than were planned. One that was decided early needs no more, and whom
/// no rule depends on is timed in the first launch alone.
fn missing_launches(recording: &Recording, policy: &Policy) -> Option<String> {
    let first = launches(recording, 1);
    let planned = recording.plan.launches as usize;
    let stops_early = recording.plan.stop_rule == roles::ALWAYS_VALID;
    let least = if stops_early { planned.min(roles::LEAST_LAUNCHES) } else { planned };
    let timed = recording.series.iter().filter(|series| series.meter == recording.plan.meter);
    let judged = |reference: &str| {
        let of_it = |series: &&Series| series.reference == reference && series.backend != reference;
        recording.series.iter().filter(of_it).any(|series| !is_bystander(recording, policy, &series.backend))
    };
    for series in timed.filter(|series| series.backend == series.reference && judged(&series.reference)) {
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

/// Each feature combination: measured, or why it is not part of this verdict.
fn features(recording: &Recording) -> String {
    let built_in = |feature: &str| recording.tool.features.iter().any(|name| name == feature);
    let here = |prefix: &str| recording.plan.backends.iter().any(|backend| backend.name.starts_with(prefix));
    let sides = [("cpu", "rust-", "rust-*"), ("ffi", "cpp-", "cpp-*"), ("gpu", "cuda", "cuda")];
    let one = |(feature, prefix, what): (&str, &str, &str)| match (here(prefix), built_in(feature)) {
        (true, _) => format!("{feature}: measured"),
        (false, false) => format!("{feature}: skipped (not built in)"),
        (false, true) => {
            format!("{feature}: skipped ({})", skipped_reason(recording, what).unwrap_or("no backend"))
        }
    };
    let mut all: Vec<String> = sides.into_iter().map(one).collect();
    all.push("wasm: skipped (a run of its own on wasm32)".into());
    all.join(", ")
}

/// Whether there is a GPU is said, one way or the other, and fits who took part.
fn unstated_gpu(recording: &Recording) -> Option<String> {
    let skipped = skipped_reason(recording, "cuda");
    let took_part = recording.plan.backends.iter().any(|backend| backend.name == "cuda")
        || recording.series.iter().any(|series| series.backend == "cuda");
    match (&recording.fingerprint.gpu, skipped) {
        (None, _) if took_part => Some("cuda took part, and the machine has no GPU".into()),
        (Some(gpu), None) if !took_part => {
            Some(format!("there is a GPU ({gpu}), cuda did not take part, and no reason was recorded"))
        }
        (None, None) => Some("the recording does not say whether there is a GPU".into()),
        _ => None,
    }
}

/// A build without optimisation, or one that does not say, among those that were timed.
fn unoptimised(recording: &Recording) -> Option<String> {
    let timed = |name: &str| recording.series.iter().any(|series| series.backend == name);
    let level = |level: &str| level.trim().trim_start_matches('-').trim_start_matches(['O', 'o']).to_owned();
    let found =
        recording.plan.backends.iter().find(|backend| {
            timed(&backend.name) && matches!(level(&backend.optimisation).as_str(), "0" | "g")
        })?;
    Some(format!("{} was built with optimisation level {:?}", found.name, found.optimisation))
}

/// More bytes in a nanosecond than any memory moves: a unit was mistaken.
const MOST_BYTES_PER_NS: f64 = 10_000.0;

/// Times that cannot be in nanoseconds: too short for the work, or CPU time beyond wall time for work of one thread.
fn units(recording: &Recording) -> Option<String> {
    let work = |id: &str| recording.plan.workloads.iter().find(|workload| workload.id == id).map(|w| &w.work);
    let per_call = |series: &Series| {
        let (total, calls): (u64, u64) = (series.value_ns.iter().sum(), series.iterations.iter().sum());
        (calls > 0).then(|| total as f64 / calls as f64)
    };
    let wall = recording.series.iter().filter(|series| series.meter == Meter::WallNs && !series.is_empty());
    for series in wall {
        let ns = per_call(series)?;
        if ns == 0.0 {
            return Some(format!("{} took no time at all", series.label()));
        }
        let rate = work(&series.workload).map_or(0.0, |work| work.bytes as f64 / ns);
        if rate > MOST_BYTES_PER_NS {
            return Some(format!("{} moves {rate:.0} bytes in a nanosecond: are these ns?", series.label()));
        }
        let cpu = recording.series.iter().find(|other| {
            other.meter == Meter::ThreadCpuNs
                && (&other.workload, &other.backend, &other.reference)
                    == (&series.workload, &series.backend, &series.reference)
        });
        if let Some(cpu_ns) = cpu.and_then(per_call).filter(|cpu_ns| *cpu_ns > 2.0 * ns) {
            let times = cpu_ns / ns;
            return Some(format!(
                "{}: the thread's CPU time is {times:.1} times its wall time",
                series.label()
            ));
        }
    }
    None
}

/// Two recordings that are one: today's is an accepted one, or an accepted one stands twice. Times never repeat to the last
/// digit; counts may, and are told apart by when their launches started.
fn repeated(recording: &Recording, sessions: &[Recording]) -> Option<String> {
    const SAME: usize = 5;
    let started = |one: &Recording| one.launches.iter().map(|launch| launch.started).collect::<Vec<_>>();
    let timed = |one: &Recording| -> Vec<(String, Vec<u64>)> {
        let times = one.series.iter().filter(|series| series.meter != Meter::Instructions);
        let long = times.filter(|series| series.len() >= SAME);
        long.map(|series| (series.label(), series.value_ns.clone())).collect()
    };
    let same = |one: &Recording, other: &Recording| {
        let times = timed(other);
        timed(one).iter().any(|series| times.contains(series))
            || (one.plan.meter == Meter::Instructions
                && one.created == other.created
                && started(one) == started(other))
    };
    if sessions.iter().any(|session| same(recording, session)) {
        return Some("today's samples are those of an accepted recording, to the last digit".into());
    }
    let twice =
        (1..sessions.len()).find(|&i| sessions[..i].iter().any(|earlier| same(earlier, &sessions[i])))?;
    Some(format!("accepted recording {} of {} stands there twice", twice + 1, sessions.len()))
}

fn gpu(recording: &Recording) -> String {
    match (&recording.fingerprint.gpu, skipped_reason(recording, "cuda")) {
        (Some(gpu), _) => gpu.clone(),
        (None, why) => {
            format!(
                "method: cpu-fallback; reason: GPU unavailable ({})",
                why.unwrap_or("no reason was recorded")
            )
        }
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
