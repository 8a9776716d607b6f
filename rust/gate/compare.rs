//! Sides that were interleaved in the same blocks: subject over other side, with an interval, and an answer.
//!
//! Nothing is dropped: a series without a partner, or with too few blocks, becomes a comparison without a number
//! and with the reason. Red needs two measurements: what the first stage finds too slow is measured afresh by fresh
//! launches, and those alone decide (`docs/STATISTICS.md`, suite).

use super::decide::{Bounds, decide};
use super::policy::{Edges, Policy};
use super::roles;
use super::samples::{Paired, Samples, launches, paired};
use super::verdict::{Against, Answer, Certainty, Comparison, FirstStage, SeverityRange};
use crate::record::{Meter, Recording, Series};
use crate::stats::{self, Design};
use std::collections::{BTreeMap, BTreeSet};

/// What every comparison of a recording needs.
pub(super) struct Setting<'a> {
    pub recording: &'a Recording,
    pub policy: &'a Policy,
    floors: Floors<'a>,
}

impl<'a> Setting<'a> {
    /// `sessions` are earlier recordings of the same machine and builds: their A/A results join this recording's own.
    pub fn new(recording: &'a Recording, sessions: &'a [Recording], policy: &'a Policy) -> Self {
        Self { recording, policy, floors: Floors::of(recording, sessions) }
    }

    /// One-sided error probability of each bound: half of the policy's where a workload was looked at twice, first
    /// after the planned launches and then with more.
    fn alpha(&self, n_launches: usize) -> f64 {
        let planned = self.recording.plan.launches as usize;
        if n_launches > planned { self.policy.alpha / 2.0 } else { self.policy.alpha }
    }

    /// Edges of severity of what is judged.
    pub fn edges(&self) -> &'a Edges {
        if roles::counts_instructions(self.recording) {
            &self.policy.instructions
        } else {
            &self.policy.severity
        }
    }

    /// Spread of A/A results; `None` without any.
    pub fn noise(&self) -> Option<f64> {
        stats::aa_scale(&self.floors.pool).ok().flatten()
    }

    /// Half width below which no interval goes, from A/A results.
    pub fn floor(&self, workload: &str, reference: &str, alpha: f64) -> f64 {
        self.floors.half_width(workload, reference, alpha)
    }
}

/// What two instances of one build gave against each other: the noise that no real difference explains.
struct Floors<'a> {
    /// Of every workload and session of this design.
    pool: Vec<f64>,
    own: BTreeMap<(&'a str, &'a str), f64>,
}

impl<'a> Floors<'a> {
    fn of(recording: &'a Recording, sessions: &'a [Recording]) -> Self {
        let meter = &recording.plan.meter;
        let own = Samples::of(recording, meter.clone()).twin_effects();
        let earlier = sessions.iter().flat_map(|session| Samples::of(session, meter.clone()).twin_effects());
        let pool = own.values().copied().chain(earlier.map(|(_, effect)| effect)).collect();
        Self { pool, own }
    }

    fn half_width(&self, workload: &str, reference: &str, alpha: f64) -> f64 {
        let own = self.own.get(&(workload, reference)).copied();
        // The pool holds finite numbers only, and alpha was checked with the policy.
        let floor = stats::aa_floor(&self.pool, own, alpha).unwrap_or(f64::INFINITY);
        floor.max(own.map_or(0.0, f64::abs))
    }
}

/// Every subject of the recording against the reference it was interleaved with; `required` ones are judged by the
/// C++ rule of their category.
pub(super) fn with_reference(setting: &Setting<'_>, required: Option<&str>) -> Vec<Comparison> {
    let subjects = Samples::of(setting.recording, setting.recording.plan.meter.clone()).subjects();
    let one = |subject: &Series| {
        let (category, _) = roles::kind_of(setting.recording, subject);
        // The C++ rule is about time; how two languages spend instructions says nothing of it.
        let judged = required == Some(subject.backend.as_str()) && subject.meter != Meter::Instructions;
        let limit = setting.policy.reference_limit(category).filter(|_| judged);
        let mut comparison = compare(setting, subject, Against::Reference, limit);
        comparison.required = required == Some(subject.backend.as_str());
        comparison
    };
    subjects.map(one).collect()
}

/// Every backend of the new build against the same backend of the old one; all are judged by severity.
pub(super) fn with_revision(setting: &Setting<'_>) -> Vec<Comparison> {
    let subjects = Samples::of(setting.recording, setting.recording.plan.meter.clone()).subjects();
    let one = |subject: &Series| {
        let (_, class) = roles::kind_of(setting.recording, subject);
        let limit = setting.policy.change_limit(setting.edges(), class);
        Comparison { required: true, ..compare(setting, subject, Against::Revision, Some(limit)) }
    };
    subjects.map(one).collect()
}

/// One subject against its reference: the first stage, and the second if there is one and the first was red.
pub(super) fn compare(
    setting: &Setting<'_>,
    subject: &Series,
    against: Against,
    limit: Option<f64>,
) -> Comparison {
    let samples = Samples::of(setting.recording, subject.meter.clone());
    let Some(other) = samples.find(&subject.workload, &subject.reference, &subject.reference) else {
        let mut comparison = blank(subject, &subject.reference, against, limit);
        comparison.reason = format!("no samples of {} to compare with", subject.reference);
        comparison.verdict = limit.map(|_| Answer::Neutral);
        return comparison;
    };
    if subject.meter == Meter::Instructions {
        let blank = blank(subject, &other.backend, against, limit);
        return counted(blank, subject, other, &setting.policy.instructions);
    }
    let first = staged(setting, subject, other, against, limit, 1);
    let again = launches(setting.recording, 2);
    if first.verdict != Some(Answer::Fail) || !subject.launch.iter().any(|launch| again.contains(launch)) {
        return first;
    }
    second_look(first, staged(setting, subject, other, against, limit, 2))
}

/// Red only if the fresh launches say so too; never better than neutral.
pub(super) fn second_look(first: Comparison, mut second: Comparison) -> Comparison {
    let (Some(ratio), Some(interval)) = (first.ratio, first.interval) else { return first };
    second.stage = 2;
    second.first_stage = Some(FirstStage { ratio, interval, certainty: first.certainty });
    if second.verdict != Some(Answer::Fail) {
        let now = second.ratio.map_or("nothing usable".to_owned(), |ratio| format!("{ratio:.3}"));
        second.verdict = Some(Answer::Neutral);
        second.certainty = Certainty::Inconclusive;
        second.reason = format!("not reproduced: {ratio:.3} at first, {now} when measured afresh");
    } else {
        second.reason = format!("{}; {ratio:.3} at first, reproduced by fresh processes", second.reason);
    }
    second
}

/// A comparison without numbers.
pub(super) fn blank(subject: &Series, other: &str, against: Against, limit: Option<f64>) -> Comparison {
    Comparison {
        workload: subject.workload.clone(),
        subject: subject.backend.clone(),
        against,
        other: other.to_owned(),
        meter: subject.meter.clone(),
        required: false,
        verdict: None,
        ratio: None,
        raw_ratio: None,
        interval: None,
        limit,
        certainty: Certainty::Inconclusive,
        severity: None,
        mde: None,
        subject_ns: None,
        other_ns: None,
        n_blocks: 0,
        n_launches: 0,
        n_baselines: 0,
        stage: 1,
        first_stage: None,
        reason: String::new(),
    }
}

/// One stage, judged by itself.
fn staged(
    setting: &Setting<'_>,
    subject: &Series,
    other: &Series,
    against: Against,
    limit: Option<f64>,
    stage: u8,
) -> Comparison {
    let mut comparison = blank(subject, &other.backend, against, limit);
    comparison.stage = stage;
    if let Some(reason) = not_its_cost(subject) {
        comparison.verdict = limit.map(|_| Answer::Neutral);
        comparison.reason = reason;
        return comparison;
    }
    let chosen = launches(setting.recording, stage);
    match measured(setting, subject, other, &chosen, limit, &mut comparison) {
        Ok(bounds) => conclude(&mut comparison, &bounds, &setting.policy.severity, setting.policy.strict),
        Err(reason) => {
            comparison.verdict = limit.map(|_| Answer::Neutral);
            comparison.reason = reason;
        }
    }
    comparison
}

/// Estimate and bounds of the chosen launches, in ln of the ratio.
fn measured(
    setting: &Setting<'_>,
    subject: &Series,
    other: &Series,
    chosen: &BTreeSet<u32>,
    limit: Option<f64>,
    into: &mut Comparison,
) -> Result<Bounds, String> {
    let blocks = paired(subject, other, chosen)?;
    (into.n_blocks, into.n_launches) = (blocks.log_ratio.len(), blocks.n_launches());
    (into.subject_ns, into.other_ns) = (blocks.subject_ns, blocks.other_ns);
    into.ratio = stats::hodges_lehmann(&blocks.log_ratio).map_err(|why| why.to_string())?.map(f64::exp);
    let alpha = setting.alpha(into.n_launches);
    let floor = setting.floor(&subject.workload, &subject.reference, alpha);
    let effect =
        stats::effect(&blocks.log_ratio, &blocks.launch, alpha, floor).map_err(|why| why.to_string())?;
    let Some(effect) = effect else {
        return Err(format!("{} blocks are too few for an interval", into.n_blocks));
    };
    let mut bounds = Bounds { estimate: effect.estimate, lower: effect.lower, upper: effect.upper };
    if stopped_early(setting, into.n_launches) {
        widen_for_stopping(&mut bounds, &blocks, alpha)?;
    }
    into.mde = limit.and_then(|limit| smallest_detectable(&blocks, limit.ln(), alpha, floor));
    Ok(bounds)
}

/// The smallest slow-down that this design would have confirmed beyond the margin in 8 of 10 runs.
fn smallest_detectable(blocks: &Paired, margin: f64, alpha: f64, floor: f64) -> Option<f64> {
    let spread = stats::spread(&blocks.log_ratio, &blocks.launch).ok().flatten()?;
    let launches = blocks.n_launches();
    let blocks_per_launch = blocks.log_ratio.len() / launches.max(1);
    let design = Design { launches, blocks_per_launch, alpha, power: 0.8, floor };
    stats::minimum_detectable_effect(&spread, margin, &design).ok().flatten()
}

/// Whether a workload was left alone before its planned launches because of what its samples showed.
fn stopped_early(setting: &Setting<'_>, n_launches: usize) -> bool {
    let plan = &setting.recording.plan;
    plan.stop_rule == roles::ALWAYS_VALID && n_launches < plan.launches as usize
}

/// Bounds that hold at whatever block one stops are wider; where one stopped by what one saw, they are the ones to use.
fn widen_for_stopping(bounds: &mut Bounds, blocks: &Paired, alpha: f64) -> Result<(), String> {
    match stats::always_valid_bounds(&blocks.log_ratio, alpha).map_err(|why| why.to_string())? {
        Some([lower, upper]) => {
            bounds.lower = bounds.lower.min(lower);
            bounds.upper = bounds.upper.max(upper);
            Ok(())
        }
        None => Err(format!("{} blocks are too few to have been decided early", blocks.log_ratio.len())),
    }
}

/// Fills in interval, severity and answer; without a limit only what is shown.
pub(super) fn conclude(comparison: &mut Comparison, bounds: &Bounds, edges: &Edges, strict: bool) {
    let [ratio, lower, upper] = [bounds.estimate, bounds.lower, bounds.upper].map(f64::exp);
    (comparison.ratio, comparison.interval) = (Some(ratio), Some([lower, upper]));
    comparison.severity =
        Some(SeverityRange { most_likely: edges.severity(ratio), at_least: edges.severity(lower) });
    let Some(limit) = comparison.limit else {
        comparison.reason = "shown, not judged".into();
        return;
    };
    let decision = decide(bounds, limit.ln(), strict);
    comparison.verdict = Some(decision.answer);
    comparison.certainty = decision.certainty;
    comparison.reason = match (decision.answer, decision.certainty) {
        (Answer::Fail, Certainty::Confirmed) => {
            format!("at least {lower:.3} times the time, allowed {limit:.3}")
        }
        (Answer::Pass, _) => format!("at most {upper:.3} times the time, allowed {limit:.3}"),
        (_, Certainty::Likely) => format!("slower for sure, probably beyond {limit:.3}: {ratio:.3}"),
        _ => format!("the interval {lower:.3} to {upper:.3} holds the limit {limit:.3}"),
    };
}

/// What of a workload on several threads is no measure of its cost: both meters see the measuring thread alone.
pub(super) fn not_its_cost(subject: &Series) -> Option<String> {
    let threads = roles::threads(&subject.workload);
    let alone = matches!(subject.meter, Meter::ThreadCpuNs | Meter::Instructions);
    (alone && threads > 1).then(|| {
        let meter = subject.meter.name();
        format!("{meter} is that of the measuring thread alone, and this is work of {threads} threads: use wall time")
    })
}

/// Two counts: no noise is estimated. The bounds are the least and the most that any two counts of the two sides give,
/// over all repeats and processes.
pub(super) fn counted(
    mut comparison: Comparison,
    subject: &Series,
    other: &Series,
    edges: &Edges,
) -> Comparison {
    let counts = Counts::of(subject).zip(Counts::of(other)).ok_or("nothing was counted".to_owned());
    let counts = match not_its_cost(subject) {
        Some(reason) => Err(reason),
        None => counts,
    };
    match counts {
        Ok((now, then)) => {
            let launches: BTreeSet<u32> = subject.launch.iter().copied().collect();
            (comparison.n_blocks, comparison.n_launches) = (subject.len(), launches.len());
            conclude(&mut comparison, &now.against(&then), edges, false);
            comparison.reason = format!(
                "{:.0} instructions per call against {:.0}: {}",
                now.typical,
                then.typical,
                comparison.reason.replace("times the time", "times the count")
            );
        }
        Err(reason) => {
            comparison.verdict = comparison.limit.map(|_| Answer::Neutral);
            comparison.reason = reason;
        }
    }
    comparison
}

/// Instructions of one call: least, median and most of all repeats and processes.
pub(super) struct Counts {
    least: f64,
    typical: f64,
    most: f64,
}

impl Counts {
    /// `None` where nothing was counted, or a count is none.
    pub fn of(series: &Series) -> Option<Self> {
        let per_call: Vec<f64> = series
            .value_ns
            .iter()
            .zip(&series.iterations)
            .map(|(count, calls)| *count as f64 / *calls as f64)
            .collect();
        let typical = stats::median(&per_call).ok().flatten()?;
        let least = per_call.iter().copied().fold(f64::INFINITY, f64::min);
        let most = per_call.iter().copied().fold(0.0, f64::max);
        (least > 0.0 && most.is_finite()).then_some(Self { least, typical, most })
    }

    /// All series as one.
    pub fn together(all: impl Iterator<Item = Self>) -> Option<Self> {
        let all: Vec<Self> = all.collect();
        let typical = stats::median(&all.iter().map(|one| one.typical).collect::<Vec<_>>()).ok().flatten()?;
        let least = all.iter().map(|one| one.least).fold(f64::INFINITY, f64::min);
        let most = all.iter().map(|one| one.most).fold(0.0, f64::max);
        Some(Self { least, typical, most })
    }

    /// ln of the ratio, with its bounds.
    pub fn against(&self, other: &Self) -> Bounds {
        Bounds {
            estimate: (self.typical / other.typical).ln(),
            lower: (self.least / other.most).ln(),
            upper: (self.most / other.least).ln(),
        }
    }

    /// Ratio of the typical counts.
    pub fn ratio(&self, other: &Self) -> f64 {
        self.typical / other.typical
    }
}

/// Bounds of the time ratio of two series of one group, over the first stage; `None` if they share too few blocks.
pub(super) fn interval(setting: &Setting<'_>, subject: &Series, other: &Series) -> Option<[f64; 2]> {
    let comparison = staged(setting, subject, other, Against::Reference, None, 1);
    comparison.interval
}
