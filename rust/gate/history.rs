//! Today against accepted recordings of earlier days, which were never interleaved with today.
//!
//! What is compared is the change of the *ratio to the C++ reference*: reference and subject were interleaved in each
//! recording, so what slows the machine down for a day slows both and leaves the ratio alone. The raw change stands
//! beside it and is not judged. How much the ratio wanders from day to day is learnt from the accepted recordings
//! themselves: the interval is a prediction interval (`stats::prediction_interval`), so a day like the earlier ones falls
//! inside. Builds have no reference; their time itself is compared. Instruction counts do not wander: they are compared
//! as they are.

use super::compare::{self, Counts, Setting, blank, conclude, second_look};
use super::decide::Bounds;
use super::policy::{Edges, Policy};
use super::roles;
use super::samples::{Samples, launches, paired};
use super::verdict::{Against, Answer, Comparison};
use crate::record::{Meter, Recording, Series};
use crate::stats::{self, Effect};
use std::collections::BTreeSet;

/// What stands in place of the other side's name.
const BASELINE: &str = "baseline";

/// Today's subjects against the newest accepted recordings; `void` says why they cannot be compared at all.
pub(super) fn with_sessions(
    setting: &Setting<'_>,
    sessions: &[Recording],
    void: Option<&str>,
    required: Option<&str>,
) -> Vec<Comparison> {
    let skip = sessions.len().saturating_sub(setting.policy.baseline.sessions);
    let sessions = &sessions[skip..];
    let one = |subject: &Series| {
        let (category, class) = roles::kind_of(setting.recording, subject);
        let edges = setting.edges();
        let required = required == Some(subject.backend.as_str()) || category == "build";
        let limit = match category {
            "build" => 1.0 + setting.policy.build_time.growth,
            _ => setting.policy.change_limit(edges, class),
        };
        let limit = Some(limit).filter(|_| required);
        let mut comparison = match void {
            None => staged(setting, subject, sessions, limit, edges),
            Some(why) => {
                unjudged(blank(subject, BASELINE, Against::Baseline, limit), format!("not comparable: {why}"))
            }
        };
        comparison.required = required;
        comparison
    };
    judged_series(setting.recording).map(one).collect()
}

/// Subjects by time, builds, and counts of every backend.
fn judged_series(recording: &Recording) -> impl Iterator<Item = &Series> {
    let meter = &recording.plan.meter;
    let alone = move |series: &&Series| {
        let is_build = series.meter == Meter::WallNs && roles::kind_of(recording, series).0 == "build";
        let own_reference = series.backend == series.reference;
        is_build || (*meter == Meter::Instructions && series.meter == *meter && own_reference)
    };
    let references = recording.series.iter().filter(alone);
    Samples::of(recording, meter.clone()).subjects().chain(references)
}

/// The first stage, and the second if there is one and the first was red.
fn staged(
    setting: &Setting<'_>,
    subject: &Series,
    sessions: &[Recording],
    limit: Option<f64>,
    edges: &Edges,
) -> Comparison {
    if subject.meter == Meter::Instructions {
        return counted(subject, sessions, limit, edges);
    }
    let at = |stage: u8| {
        let mut comparison = blank(subject, BASELINE, Against::Baseline, limit);
        comparison.stage = stage;
        if let Some(reason) = compare::not_its_cost(subject) {
            return unjudged(comparison, reason);
        }
        match change(setting, subject, sessions, &launches(setting.recording, stage), &mut comparison) {
            Ok(bounds) => {
                conclude(&mut comparison, &bounds, edges, setting.policy.strict);
                limited_by_few_sessions(&mut comparison, setting.policy);
                comparison
            }
            Err(reason) => unjudged(comparison, reason),
        }
    };
    let first = at(1);
    let again = launches(setting.recording, 2);
    if first.verdict != Some(Answer::Fail) || !subject.launch.iter().any(|launch| again.contains(launch)) {
        return first;
    }
    second_look(first, at(2))
}

/// Instruction counts do not depend on the day: every count of every session stands together.
fn counted(subject: &Series, sessions: &[Recording], limit: Option<f64>, edges: &Edges) -> Comparison {
    let mut comparison = blank(subject, BASELINE, Against::Baseline, limit);
    let series_of = |session: &Recording| session.series.iter().find(|series| same(series, subject)).cloned();
    let earlier: Vec<Series> = sessions.iter().filter_map(series_of).collect();
    comparison.n_baselines = earlier.len();
    let then = Counts::together(earlier.iter().filter_map(Counts::of));
    let (now, then) = match (compare::not_its_cost(subject), Counts::of(subject), then) {
        (Some(reason), ..) => return unjudged(comparison, reason),
        (_, None, _) => return unjudged(comparison, "nothing was counted".into()),
        (_, _, None) => return unjudged(comparison, "no accepted recording counted it".into()),
        (None, Some(now), Some(then)) => (now, then),
    };
    let launches: BTreeSet<u32> = subject.launch.iter().copied().collect();
    (comparison.n_blocks, comparison.n_launches) = (subject.len(), launches.len());
    comparison.raw_ratio = Some(now.ratio(&then));
    conclude(&mut comparison, &now.against(&then), edges, false);
    comparison.reason = comparison.reason.replace("times the time", "times the instructions");
    comparison
}

fn unjudged(mut comparison: Comparison, reason: String) -> Comparison {
    comparison.verdict = comparison.limit.map(|_| Answer::Neutral);
    comparison.reason = reason;
    comparison
}

/// Too few accepted recordings say too little of how days differ: neutral, unless it is beyond the critical edge.
fn limited_by_few_sessions(comparison: &mut Comparison, policy: &Policy) {
    if comparison.verdict.is_none() || comparison.n_baselines >= policy.baseline.min_sessions {
        return;
    }
    let beyond = comparison.interval.is_some_and(|[lower, _]| lower > 1.0 + policy.severity.critical);
    if !(comparison.verdict == Some(Answer::Fail) && beyond) {
        comparison.verdict = Some(Answer::Neutral);
        comparison.reason = format!(
            "{} accepted recordings, {} are needed to know how days differ; {}",
            comparison.n_baselines, policy.baseline.min_sessions, comparison.reason
        );
    }
}

/// The change since the sessions, in ln of the ratio.
fn change(
    setting: &Setting<'_>,
    subject: &Series,
    sessions: &[Recording],
    chosen: &BTreeSet<u32>,
    into: &mut Comparison,
) -> Result<Bounds, String> {
    let today = Session::read(setting.recording, subject, chosen, setting)?;
    let earlier = sessions.iter().filter_map(|session| {
        let twin = session.series.iter().find(|series| same(series, subject))?;
        Some(Session::read(session, twin, &launches(session, 1), setting))
    });
    let earlier: Vec<Session> = earlier.collect::<Result<_, _>>()?;
    (into.n_blocks, into.n_launches, into.n_baselines) = (today.n_blocks, chosen.len(), earlier.len());
    let typical: Vec<f64> = earlier.iter().filter_map(|session| session.typical).collect();
    let then = stats::median(&typical).map_err(|why| why.to_string())?;
    into.raw_ratio = today.typical.zip(then).map(|(now, then)| now / then);
    (into.subject_ns, into.other_ns) = (today.typical, then);
    if earlier.is_empty() {
        return Err("no accepted recording holds it".into());
    }
    let alpha = setting.policy.alpha;
    let floor = setting.floor(&subject.workload, &subject.reference, alpha);
    let history: Vec<f64> = earlier.iter().map(|session| session.centre).collect();
    if history.len() < setting.policy.baseline.min_sessions {
        return Ok(apart(&today, &earlier, floor));
    }
    let predicted = stats::prediction_interval(&history, today.centre, alpha, floor);
    let predicted =
        predicted.map_err(|why| why.to_string())?.ok_or("no prediction from so few recordings")?;
    Ok(Bounds { estimate: predicted.change, lower: predicted.lower, upper: predicted.upper })
}

/// With one or two sessions: how far today's own interval lies from theirs, at the least and at the most.
fn apart(today: &Session, earlier: &[Session], floor: f64) -> Bounds {
    let centre = earlier.iter().map(|session| session.centre).sum::<f64>() / earlier.len() as f64;
    let lowest = earlier.iter().map(|session| session.lower).fold(f64::INFINITY, f64::min);
    let highest = earlier.iter().map(|session| session.upper).fold(f64::NEG_INFINITY, f64::max);
    let estimate = today.centre - centre;
    Bounds {
        estimate,
        lower: (today.lower - highest).min(estimate - floor),
        upper: (today.upper - lowest).max(estimate + floor),
    }
}

fn same(series: &Series, subject: &Series) -> bool {
    series.workload == subject.workload
        && series.backend == subject.backend
        && series.reference == subject.reference
        && series.meter == subject.meter
}

/// One recording's value of one series, in ln: of the ratio to the reference, or of the time where there is none.
struct Session {
    centre: f64,
    lower: f64,
    upper: f64,
    /// Typical time or count of a call.
    typical: Option<f64>,
    n_blocks: usize,
}

impl Session {
    fn read(
        recording: &Recording,
        subject: &Series,
        chosen: &BTreeSet<u32>,
        setting: &Setting<'_>,
    ) -> Result<Self, String> {
        let samples = Samples::of(recording, subject.meter.clone());
        let missing = || format!("no samples of {} to compare with", subject.reference);
        let reference =
            samples.find(&subject.workload, &subject.reference, &subject.reference).ok_or_else(missing)?;
        let blocks = paired(subject, reference, chosen)?;
        let (typical, n_blocks) = (blocks.subject_ns, blocks.log_ratio.len());
        let alpha = setting.policy.alpha;
        if subject.backend == subject.reference {
            return Self::alone(subject, chosen, alpha, typical);
        }
        let effect = stats::effect(&blocks.log_ratio, &blocks.launch, alpha, 0.0);
        let Some(Effect { estimate: centre, lower, upper, .. }) = effect.map_err(|why| why.to_string())?
        else {
            return Err(format!("{n_blocks} blocks are too few"));
        };
        Ok(Self { centre, lower, upper, typical, n_blocks })
    }
}

impl Session {
    /// Builds have no reference: the mean of ln(time) over few repeats, with Student's interval, since a handful is all
    /// there is. One repeat shows no spread, and is no evidence.
    fn alone(
        series: &Series,
        chosen: &BTreeSet<u32>,
        alpha: f64,
        typical: Option<f64>,
    ) -> Result<Self, String> {
        let of_stage = (0..series.len()).filter(|&i| chosen.contains(&series.launch[i]));
        let logs: Vec<f64> =
            of_stage.map(|i| (series.value_ns[i] as f64 / series.iterations[i] as f64).ln()).collect();
        let n = logs.len();
        if n < 2 || logs.iter().any(|log| !log.is_finite()) {
            return Err(format!(
                "{n} usable repeats of {} are no evidence, at least 2 are needed",
                series.workload
            ));
        }
        let centre = logs.iter().sum::<f64>() / n as f64;
        let variance = logs.iter().map(|log| (log - centre).powi(2)).sum::<f64>() / (n - 1) as f64;
        let t = stats::student_quantile(1.0 - alpha, (n - 1) as f64).map_err(|why| why.to_string())?;
        let half = t * (variance / n as f64).sqrt();
        Ok(Self { centre, lower: centre - half, upper: centre + half, typical, n_blocks: n })
    }
}

/// The change of peak memory since the sessions: largest launch today over the median of theirs.
///
/// # Errors
/// Where it was not measured.
pub(super) fn peak_memory(recording: &Recording, sessions: &[Recording]) -> Result<f64, &'static str> {
    let peak = |recording: &Recording| {
        let whole =
            recording.memory.iter().filter(|row| row.meter == "peak_rss_bytes" && row.workload.is_empty());
        whole.map(|row| row.value_bytes).max().map(|bytes| bytes as f64)
    };
    let then: Vec<f64> = sessions.iter().filter_map(peak).collect();
    let then = stats::median(&then).ok().flatten().ok_or("in the accepted recordings")?;
    Ok(peak(recording).ok_or("today")? / then)
}
