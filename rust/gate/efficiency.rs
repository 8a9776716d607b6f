//! How much of what the machine allows a product reaches.
//!
//! ```text
//! bound       the larger of  bytes / bandwidth of where the weights lie  and  operations / peak of the instruction set
//! efficiency  bound / fastest call: 1 where nothing could be faster
//! ```
//!
//! Ceilings are maxima, so the fastest call of all launches is held against them. Where weights lie follows from their
//! bytes: in memory if the workload is cold, else in the nearest cache that holds them (of the two nearest levels each
//! thread needs to hold its own share). More than 1 is possible: the ceiling was measured in a worse moment, or part of the
//! weights lay nearer. It is shown as it is.
//!
//! The rule, first: nobody is far beyond the ceilings. A product that is, was not computed (remembered, skipped), or the
//! ceiling is wrong; either way there is no evidence, with accepted recordings or without.
//! The rule, second: no product of the subject falls by a class since the accepted recordings. A fall within `noise` is none,
//! whatever the class. Efficiency also falls where the ceiling rose and the kernel stayed: that is undecided, not red.

use super::policy::{EfficiencyPolicy, Policy};
use super::verdict::{Answer, Efficiency, RuleAnswer};
use super::{Baseline, roles};
use crate::record::{Meter, PlannedWorkload, Recording, arithmetic_name, bandwidth_name};
use crate::stats;

const NAME: &str = "simd-efficiency";

/// Efficiency of every backend on every product, in the order of the plan; where a ceiling is missing there is none.
pub(super) fn efficiencies(recording: &Recording) -> Vec<Efficiency> {
    let of_product = |planned| {
        let backends = recording.plan.backends.iter();
        backends.filter_map(move |backend| efficiency(recording, planned, &backend.name).ok())
    };
    products(recording).flat_map(of_product).collect()
}

/// Planned products of matrices.
fn products(recording: &Recording) -> impl Iterator<Item = &PlannedWorkload> {
    let counted = |planned: &&PlannedWorkload| planned.work.ops > 0 && planned.work.bytes > 0;
    recording.plan.workloads.iter().filter(counted).filter(|planned| arithmetic_of(&planned.id).is_some())
}

/// What a product computes with, by its id.
fn arithmetic_of(workload: &str) -> Option<&'static str> {
    let native = workload.ends_with("+arithmetic=native");
    let kind = |part: &str| match part {
        "matmul" | "linear" => Some("int8_dot"),
        "mixed_precision" if native && workload.contains("/bf16/") => Some("bf16_dot"),
        "mixed_precision" if native => Some("f16_fma"),
        "mixed_precision" => Some("f32_fma"),
        _ => None,
    };
    // Of a file's tensor the first part names the file.
    workload.split('/').take(2).find_map(kind)
}

/// The instruction set whose arithmetic a backend has, by its name: `rust-avx2`, `rust-avx2@new`. Plain loops have none:
/// what a compiler makes of one of them bounds no other.
fn isa_of<'b>(backend: &'b str, arithmetic: &str) -> Option<&'b str> {
    // A callable of Python computes with whatever it calls.
    let (name, origin) = backend.split_once('@').unwrap_or((backend, ""));
    let (_, isa) = name.split_once('-').filter(|_| origin != "python")?;
    match isa {
        "scalar" | "portable" => None,
        // They add nothing for floats.
        "avxvnni" if arithmetic == "f32_fma" => Some("avx2"),
        "neondotprod" if arithmetic == "f32_fma" => Some("neon"),
        isa => Some(isa),
    }
}

/// Efficiency of one backend on one product, or what is missing.
fn efficiency(recording: &Recording, planned: &PlannedWorkload, backend: &str) -> Result<Efficiency, String> {
    let fastest_ns = fastest_call_ns(recording, &planned.id, backend).ok_or("not timed")?;
    let arithmetic = arithmetic_of(&planned.id).ok_or("not a product")?;
    let isa = isa_of(backend, arithmetic).ok_or("no instruction set of its own")?;
    let threads = roles::threads(&planned.id);
    let bandwidth = bandwidth_name(level(recording, planned, threads)?, threads);
    let peak = arithmetic_name(&format!("{arithmetic}_{isa}"), threads);
    let at_most = |ceiling: &str, amount: u64| {
        let rate = recording.ceilings.get(ceiling).filter(|rate| **rate > 0.0);
        rate.map(|rate| amount as f64 / rate).ok_or(format!("no ceiling {ceiling}"))
    };
    let reading_ns = at_most(&bandwidth, planned.work.bytes)?;
    let computing_ns = at_most(&peak, planned.work.ops)?;
    let bound_ns = reading_ns.max(computing_ns);
    Ok(Efficiency {
        workload: planned.id.clone(),
        backend: backend.to_owned(),
        share: bound_ns / fastest_ns,
        binds: if reading_ns >= computing_ns { bandwidth.clone() } else { peak.clone() },
        bandwidth,
        peak,
        bound_ns,
        fastest_ns,
    })
}

/// Time of the fastest call of all launches.
fn fastest_call_ns(recording: &Recording, workload: &str, backend: &str) -> Option<f64> {
    let own = recording.series.iter().filter(|series| {
        series.meter == Meter::WallNs && series.workload == workload && series.backend == backend
    });
    let calls = own.flat_map(|series| series.value_ns.iter().zip(&series.iterations));
    let call_ns = calls.map(|(value, iterations)| *value as f64 / *iterations as f64);
    call_ns.filter(|ns| ns.is_finite() && *ns > 0.0).reduce(f64::min)
}

/// The cache level from which the weights are read; `None`: from memory.
fn level(recording: &Recording, planned: &PlannedWorkload, threads: u32) -> Result<Option<u32>, String> {
    let setting = recording.ceiling_setting.as_ref().ok_or("no cache sizes")?;
    let id = planned.id.split('+').next().unwrap_or_default();
    if id.ends_with("/cold") {
        return Ok(None);
    }
    if setting.caches.is_empty() {
        return Err("no cache sizes".into());
    }
    let holds = |level: u32, size_bytes: u64| match level {
        1 | 2 => size_bytes.saturating_mul(u64::from(threads)) >= planned.work.bytes,
        _ => size_bytes >= planned.work.bytes,
    };
    Ok(setting.caches.iter().find(|cache| holds(cache.level, cache.size_bytes)).map(|cache| cache.level))
}

/// The subject's efficiency against the accepted recordings.
pub(super) fn rule(
    recording: &Recording,
    baseline: &Baseline<'_>,
    policy: &Policy,
    subject: Option<&str>,
) -> RuleAnswer {
    let answer = |verdict, reason: String| RuleAnswer { name: NAME.into(), verdict, reason };
    let skipped = |reason: &str| answer(None, format!("skipped: {reason}"));
    if let Some(reason) = impossible(recording, policy.efficiency.beyond) {
        return answer(Some(Answer::Neutral), reason);
    }
    let Some(subject) = subject.filter(|subject| *subject != roles::ORACLE) else {
        return skipped("no SIMD backend takes part");
    };
    let Baseline::Sessions { sessions, void: None, .. } = baseline else {
        return skipped("no accepted recording to compare efficiency with");
    };
    let least = policy.baseline.min_sessions;
    let sessions = &sessions[sessions.len().saturating_sub(policy.baseline.sessions)..];
    if recording.ceilings.is_empty() {
        if sessions.iter().filter(|session| !session.ceilings.is_empty()).count() >= least {
            let reason = "the accepted recordings hold ceilings of the machine, and this one none";
            return answer(Some(Answer::Neutral), reason.into());
        }
        return skipped("this recording holds no measured ceilings of the machine");
    }
    let (mut found, mut unmeasured, mut uncovered) = (Vec::new(), Vec::new(), 0);
    for planned in products(recording) {
        let then: Vec<Efficiency> =
            sessions.iter().filter_map(|session| efficiency(session, planned, subject).ok()).collect();
        if then.len() < least {
            // Some hold it and others lost it: that is no history that is missing, but a ceiling.
            let timed =
                sessions.iter().filter(|s| fastest_call_ns(s, &planned.id, subject).is_some()).count();
            match then.len() {
                1.. if timed >= least => {
                    let n = then.len();
                    unmeasured.push(format!("{}: in {n} of {timed} accepted recordings alone", planned.id));
                }
                _ => uncovered += 1,
            }
            continue;
        }
        match efficiency(recording, planned, subject) {
            Ok(now) => found.extend(Change::new(now, &then, &policy.efficiency)),
            Err(why) => unmeasured.push(format!("{}: {why}", planned.id)),
        }
    }
    if found.is_empty() && unmeasured.is_empty() {
        return skipped(&format!("no product has ceilings and times in {least} accepted recordings"));
    }
    let rest = if uncovered > 0 { format!("; {uncovered} more have no history") } else { String::new() };
    let worst = |kind: Kind| {
        let of_kind = found.iter().filter(|change| change.kind == kind);
        of_kind.min_by(|a, b| (a.now.share / a.then).total_cmp(&(b.now.share / b.then)))
    };
    let n = found.len();
    if let Some(worst) = worst(Kind::Fell) {
        return answer(Some(Answer::Fail), format!("{}{rest}", worst.words(subject)));
    }
    if let Some(worst) = worst(Kind::CeilingRose) {
        let words = worst.words(subject);
        let reason = format!("{words}, but its calls are as fast: the ceiling was measured higher{rest}");
        return answer(Some(Answer::Neutral), reason);
    }
    if let Some(first) = unmeasured.first() {
        let reason = format!("{} products have no efficiency to compare; first {first}", unmeasured.len());
        return answer(Some(Answer::Neutral), reason);
    }
    answer(Some(Answer::Pass), format!("{subject} kept its class on {n} of {n} products{rest}"))
}

/// The first half of the rule alone, for two builds: they have no accepted recordings.
pub(super) fn plausible(recording: &Recording, policy: &Policy) -> RuleAnswer {
    let beyond = policy.efficiency.beyond;
    let (verdict, reason) = match impossible(recording, beyond) {
        Some(reason) => (Some(Answer::Neutral), reason),
        None if recording.ceilings.is_empty() => {
            (None, "skipped: no measured ceilings of the machine".to_owned())
        }
        None if products(recording).next().is_none() => (None, "skipped: no product was timed".to_owned()),
        None => (Some(Answer::Pass), format!("nobody is beyond {beyond} times the measured ceilings")),
    };
    RuleAnswer { name: NAME.into(), verdict, reason }
}

/// Whoever is more than `beyond` times as fast as the ceilings allow, if anybody is: than any cache can be read, or than
/// the ceiling that binds.
fn impossible(recording: &Recording, beyond: f64) -> Option<String> {
    for planned in products(recording) {
        let suffix = bandwidth_name(None, roles::threads(&planned.id));
        let of_threads = suffix.trim_start_matches("dram");
        let rates = recording.ceilings.iter().filter(|(name, _)| name.ends_with(of_threads));
        let nearest = rates.map(|(_, rate)| *rate).reduce(f64::max);
        for backend in &recording.plan.backends {
            let Some(fastest_ns) = fastest_call_ns(recording, &planned.id, &backend.name) else { continue };
            let rate = planned.work.bytes as f64 / fastest_ns;
            if let Some(nearest) = nearest.filter(|nearest| rate > beyond * nearest) {
                return Some(format!(
                    "{} took {} at {rate:.0} GB/s, and no cache here is read faster than {nearest:.0}: it did not read its weights, or that ceiling is wrong",
                    backend.name, planned.id
                ));
            }
            if let Ok(found) = efficiency(recording, planned, &backend.name)
                && found.share > beyond
            {
                return Some(format!(
                    "{} reached {:.1} times {} on {}: it did not do the work, or that ceiling is wrong",
                    backend.name,
                    found.share.min(1e3),
                    found.binds,
                    planned.id
                ));
            }
        }
    }
    None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kept,
    Fell,
    CeilingRose,
}

/// One product, today and in the accepted recordings.
struct Change {
    now: Efficiency,
    /// Median share of the accepted recordings.
    then: f64,
    classes: [usize; 2],
    n_classes: usize,
    kind: Kind,
}

impl Change {
    /// `None` where `then` is empty.
    fn new(now: Efficiency, then: &[Efficiency], policy: &EfficiencyPolicy) -> Option<Self> {
        let median = |value: fn(&Efficiency) -> f64| {
            stats::median(&then.iter().map(value).collect::<Vec<_>>()).ok().flatten()
        };
        let (share_then, fastest_then) = (median(|one| one.share)?, median(|one| one.fastest_ns)?);
        let classes = [share_then, now.share].map(|share| policy.class(share));
        let fell = classes[1] < classes[0] && now.share < share_then * (1.0 - policy.noise);
        let slower = now.fastest_ns > fastest_then * (1.0 + policy.noise);
        let kind = match (fell, slower) {
            (false, _) => Kind::Kept,
            (true, true) => Kind::Fell,
            (true, false) => Kind::CeilingRose,
        };
        Some(Self { now, then: share_then, classes, n_classes: policy.classes.len() + 1, kind })
    }

    fn words(&self, subject: &str) -> String {
        let [then, now] = self.classes.map(|class| class + 1);
        format!(
            "{subject} fell from {:.0} to {:.0} % of {} on {}: from class {then} to class {now} of {}",
            self.then * 100.0,
            self.now.share * 100.0,
            self.now.binds,
            self.now.workload,
            self.n_classes
        )
    }
}

#[cfg(test)]
mod tests;
