//! Samples measured elsewhere, judged like our own as far as they allow.
//!
//! ```text
//! meter      CPU time where both sides have it, else wall time
//! blocks     minima of 3 consecutive samples within a launch (more where there are very many samples)
//! paired     d = ln(candidate / baseline) per block; Hodges-Lehmann; bounds by signed ranks, by the scatter of launches
//!            or, in one launch, of ten batches: the widest
//! seq        difference of median ln block minima, bounds by batches of each side
//! floor      no half width is less than A/A trials of this kind allow: 1.13 z s_AA from 8 trials on, never below 1.5 %;
//!            without them 2 %, and 3 % where the sides did not share a CPU
//! inflation  half widths are multiplied by the 95 % quantile of |theta| / half width of those A/A trials, if above 1
//! guard      no slow-down is red that A/A trials of this kind have reached by themselves, and none is likely that is
//!            within z(0.99) / z(0.95) half widths of none; without a calibration, that two processes on different CPUs,
//!            or one after the other, are known to reach
//! ```
//!
//! Inflation and guard are what keeps heavy tails from raising false alarms: a scale estimated from the middle of A/A
//! results knows nothing of the one process pair in fifty that lands on a slower CPU. The guard only ever turns red
//! into neutral. Source of the inflation: split conformal prediction (Lei et al., JASA 113, 2018).
//! What was measured with it stands in `docs/STATISTICS.md`.

use super::decide::{Bounds, decide};
use super::policy::Edges;
use super::verdict::{Answer, Certainty, SeverityRange};
use crate::record::trial::{Mode, Trial, TrialSide};
use crate::stats::{self, Column, Interval, StatsError};
use serde::Serialize;
use serde_json::Value;

/// Adjacent samples whose minimum stands for a block.
const SAMPLES_PER_BLOCK: usize = 3;

/// More blocks than this say no more, and their pairs cost time: blocks grow instead.
const MOST_BLOCKS: usize = 240;

/// Blocks of a trial of wall time alone, while they are no longer than [`LONGEST_WALL_BLOCK`].
const WALL_BLOCKS: usize = 24;

/// Longer blocks would no longer be short against drift.
const LONGEST_WALL_BLOCK: usize = 12;

/// Batches of one launch.
const BATCHES: usize = 10;

/// Batches of each side where the sides were not interleaved.
const UNPAIRED_BATCHES: usize = 6;

/// Earlier trials that are looked at; the newest.
const MOST_CALIBRATION: usize = 400;

/// By what a trial is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrialPolicy {
    /// Largest allowed slow-down, ratio - 1.
    pub margin: f64,
    /// One-sided error probability of each bound.
    pub alpha: f64,
    /// Whether `likely` is neutral.
    pub strict: bool,
    /// Edges of severity.
    pub edges: Edges,
}

/// The answer on one trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialVerdict {
    /// As the trial gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// Pass, neutral, fail.
    pub verdict: Answer,
    /// How sure.
    pub certainty: Certainty,
    /// How much slower, most likely and at least.
    pub severity: Option<SeverityRange>,
    /// Time of the candidate over time of the baseline.
    pub ratio: Option<f64>,
    /// Bounds of the ratio.
    pub interval: Option<[f64; 2]>,
    /// Smallest slow-down (ratio - 1) that this design would have found beyond the margin in 8 of 10 trials.
    pub mde: Option<f64>,
    /// Why.
    pub reason: String,
    /// `cpu` or `wall`.
    pub meter: &'static str,
    /// Whether sample i of both sides belong together.
    pub paired: bool,
    /// Blocks used; of each side, where they are not paired.
    pub n_blocks: usize,
    /// Launches used.
    pub n_launches: usize,
    /// A/A trials of this kind that were used.
    pub n_calibration: usize,
    /// Share of samples with more than 2 % of wall time beyond CPU time.
    pub disturbance: Option<f64>,
}

/// What earlier A/A trials of one kind reached, in ln of the ratio.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    trials: Vec<Earlier>,
}

/// One A/A trial by one meter.
#[derive(Clone, Debug, PartialEq)]
struct Earlier {
    mode: Option<Mode>,
    meter: &'static str,
    effect: f64,
    /// Half width by its own samples.
    half: f64,
}

impl Calibration {
    /// Estimates every earlier trial in the same way as a new one. A trial that gives no estimate says nothing.
    pub fn of(trials: &[Trial]) -> Self {
        let newest = &trials[trials.len().saturating_sub(MOST_CALIBRATION)..];
        let mut found = Self::default();
        for trial in newest {
            found.trials.extend(Earlier::of(trial));
            // A later trial may know wall time alone.
            if meter(trial) == "cpu" {
                let mut wall = trial.clone();
                wall.baseline.cpu_ns = None;
                found.trials.extend(Earlier::of(&wall));
            }
        }
        found
    }

    /// Trials of this one's own mode, by its meter; of all modes, where one of the two is not known.
    fn of_kind(&self, trial: &Trial) -> Vec<&Earlier> {
        let same = |other: &&Earlier| {
            let mode = trial.mode.is_none() || other.mode.is_none() || other.mode == trial.mode;
            mode && other.meter == meter(trial)
        };
        self.trials.iter().filter(same).collect()
    }
}

impl Earlier {
    fn of(trial: &Trial) -> Option<Self> {
        let Bounds { estimate: effect, lower, upper } = estimate(trial, 0.05).ok()?.bounds;
        let half = (effect - lower).min(upper - effect);
        Some(Self { mode: trial.mode, meter: meter(trial), effect, half })
    }
}

/// The guard of sides that ran one after the other, ln of the ratio.
pub(super) const GUARD_SEQ: f64 = 0.13;

/// What two equal sides reach by themselves where nobody calibrated, ln of the ratio: processes that sit on different
/// CPUs or run one after the other. Measured: 95 % of A/A trials within 6.3 % (one after the other) and 12.9 % (two live
/// processes, not pinned) on one pair of virtual CPUs, within 2.2 % and 1.8 % with single ones at 4 % and 8 % on another.
fn uncalibrated_guard(mode: Option<Mode>, disturbance: Option<f64>) -> f64 {
    let quiet: f64 = match mode {
        Some(Mode::IntPin | Mode::Int5Pin | Mode::Duet) => 0.0,
        Some(Mode::Int) => 0.08,
        Some(Mode::Seq) | None => GUARD_SEQ,
    };
    // In a storm nothing that was not measured in the same moment can be compared at all.
    let stormy = disturbance.is_some_and(|share| share > 0.5) && !mode.is_some_and(Mode::paired);
    if stormy { quiet.max(0.5) } else { quiet }
}

/// Judges one trial.
pub fn judge_trial(trial: &Trial, calibration: &Calibration, policy: &TrialPolicy) -> TrialVerdict {
    let mut verdict = TrialVerdict {
        id: trial.id.clone(),
        verdict: Answer::Neutral,
        certainty: Certainty::Inconclusive,
        severity: None,
        ratio: None,
        interval: None,
        mde: None,
        reason: String::new(),
        meter: meter(trial),
        paired: trial.mode.is_some_and(Mode::paired),
        n_blocks: 0,
        n_launches: 0,
        n_calibration: 0,
        disturbance: trial.disturbance(),
    };
    let estimated = match estimate(trial, policy.alpha) {
        Ok(estimated) => estimated,
        Err(reason) => return TrialVerdict { reason, ..verdict },
    };
    let history = calibration.of_kind(trial);
    let Hidden { floor, inflation, guard } = match hidden(&history, trial, policy.alpha) {
        Ok(found) => found,
        Err(why) => return TrialVerdict { reason: why.to_string(), ..verdict },
    };
    let Bounds { estimate: centre, lower, upper } = estimated.bounds;
    let widened = |half: f64| half.max(floor) * inflation;
    let (below, above) = (widened(centre - lower), widened(upper - centre));
    let bounds = Bounds { estimate: centre, lower: centre - below, upper: centre + above };
    let margin = policy.margin.ln_1p();
    // z(0.8) / z(0.95) of the half width more finds it in 8 of 10.
    verdict.mde = Some((margin + 1.51 * below).exp_m1());
    (verdict.n_blocks, verdict.n_launches) = (estimated.n_blocks, estimated.n_launches);
    verdict.n_calibration = history.len();
    let [ratio, low, high] = [centre, bounds.lower, bounds.upper].map(f64::exp);
    (verdict.ratio, verdict.interval) = (Some(ratio), Some([low, high]));
    verdict.severity = Some(SeverityRange {
        most_likely: policy.edges.severity(ratio),
        at_least: policy.edges.severity(low),
    });
    let decision = decide(&bounds, margin, policy.strict);
    let limit = 1.0 + policy.margin;
    if decision.answer == Answer::Fail && centre <= guard {
        verdict.reason = format!(
            "{ratio:.3} times the time, but two equal sides reach {:.3} in trials of this kind: {}",
            guard.exp(),
            if history.len() < stats::ENOUGH_AA {
                "give a calibration, or pin both sides to one CPU"
            } else {
                "no alarm"
            }
        );
        return verdict;
    }
    if decision.certainty == Certainty::Likely && centre <= SURELY * below {
        verdict.reason =
            format!("{ratio:.3} times the time, but the interval {low:.3} to {high:.3} barely excludes none");
        return verdict;
    }
    (verdict.verdict, verdict.certainty) = (decision.answer, decision.certainty);
    verdict.reason = match (decision.answer, decision.certainty) {
        (Answer::Fail, Certainty::Confirmed) => {
            format!("at least {low:.3} times the time, allowed {limit:.3}")
        }
        (Answer::Pass, _) => format!("at most {high:.3} times the time, allowed {limit:.3}"),
        (_, Certainty::Likely) => format!("slower for sure, probably beyond {limit:.3}: {ratio:.3}"),
        _ => format!(
            "the interval {low:.3} to {high:.3} holds the limit {limit:.3}: more launches would settle it, or CPU time, or instruction counts"
        ),
    };
    verdict
}

/// What the samples of one trial cannot show; in ln of the ratio but for `inflation`.
struct Hidden {
    /// Least half width.
    floor: f64,
    /// By which half widths are multiplied.
    inflation: f64,
    /// The effect that red must exceed.
    guard: f64,
}

/// Least half width, however quiet A/A trials are: they say nothing of what comes with a difference. Two copies of one
/// build share their layout in memory, two builds do not; and of two sides that run at once the slower one ends alone,
/// and so looks faster than it is: measured, 95 % within 0.7 % at +5 % and 1.3 % at +10 %.
const LEAST_FLOOR: f64 = 0.015;

/// Least half width of an uncalibrated trial whose sides did not share a CPU, or not a minute.
const UNSHARED_FLOOR: f64 = 0.03;

/// z(0.99) / z(0.95): turns a half width of 5 % error into one of 1 %.
const SURELY: f64 = 1.414;

fn hidden(history: &[&Earlier], trial: &Trial, alpha: f64) -> Result<Hidden, StatsError> {
    let shared = matches!(trial.mode, Some(Mode::IntPin | Mode::Int5Pin | Mode::Duet));
    let effects: Vec<f64> = history.iter().map(|earlier| earlier.effect).collect();
    let floor = stats::aa_floor(&effects, None, alpha)?.max(LEAST_FLOOR);
    let n = history.len();
    if n < stats::ENOUGH_AA {
        let floor = if shared { floor } else { floor.max(UNSHARED_FLOOR) };
        let guard = uncalibrated_guard(trial.mode, trial.disturbance());
        return Ok(Hidden { floor, inflation: 1.0, guard });
    }
    let mut scores: Vec<f64> =
        history.iter().map(|earlier| earlier.effect.abs() / earlier.half.max(floor)).collect();
    scores.sort_by(f64::total_cmp);
    let inflation = scores[(0.95 * n as f64).ceil() as usize - 1].max(1.0);
    let least_guard = if shared { 0.0 } else { 0.06 };
    let guard = effects.iter().map(|effect| effect.abs()).fold(least_guard, f64::max);
    Ok(Hidden { floor, inflation, guard })
}

/// An estimate with the bounds that the trial itself gives.
struct Estimated {
    bounds: Bounds,
    n_blocks: usize,
    n_launches: usize,
}

fn meter(trial: &Trial) -> &'static str {
    if trial.baseline.cpu_ns.is_some() && trial.candidate.cpu_ns.is_some() { "cpu" } else { "wall" }
}

fn times<'t>(trial: &Trial, side: &'t TrialSide) -> &'t [f64] {
    match &side.cpu_ns {
        Some(cpu_ns) if meter(trial) == "cpu" => cpu_ns,
        _ => &side.wall_ns,
    }
}

fn estimate(trial: &Trial, alpha: f64) -> Result<Estimated, String> {
    let (baseline, candidate) = (times(trial, &trial.baseline), times(trial, &trial.candidate));
    let fewest = baseline.len().min(candidate.len());
    if fewest < 2 {
        return Err(format!("{fewest} samples are no evidence"));
    }
    let estimated = if trial.mode.is_some_and(Mode::paired) {
        paired(trial, baseline, candidate, alpha)
    } else {
        unpaired(trial, baseline, candidate, alpha)
    };
    estimated
        .map_err(|why| why.to_string())?
        .ok_or_else(|| format!("{fewest} samples are too few for an interval"))
}

/// Samples per block: few samples stay themselves, many make larger blocks. Wall time alone needs longer ones: in a storm three
/// samples in a row are often all disturbed, and then their minimum is no better than they are.
fn block_length(samples: usize, meter: &str) -> usize {
    if samples < 8 * SAMPLES_PER_BLOCK {
        return 1;
    }
    let of_wall = if meter == "wall" { samples.div_ceil(WALL_BLOCKS).min(LONGEST_WALL_BLOCK) } else { 0 };
    SAMPLES_PER_BLOCK.max(of_wall).max(samples.div_ceil(MOST_BLOCKS))
}

fn paired(
    trial: &Trial,
    baseline: &[f64],
    candidate: &[f64],
    alpha: f64,
) -> Result<Option<Estimated>, StatsError> {
    let launch_of = |i: usize| trial.launch.get(i).copied().unwrap_or(0);
    let length = block_length(baseline.len(), meter(trial));
    // A block never reaches over a launch's end: numbers start anew in each, and incomplete blocks are left out.
    let mut block = Vec::with_capacity(baseline.len());
    let mut filled: Vec<u64> = Vec::new();
    for i in 0..baseline.len() {
        let launch = launch_of(i) as usize;
        filled.resize(filled.len().max(launch + 1), 0);
        block.push(((launch as u64) << 32) | (filled[launch] / length as u64));
        filled[launch] += 1;
    }
    let whole = |i: &usize| {
        let launch = launch_of(*i) as usize;
        (block[*i] & 0xffff_ffff) < filled[launch] / length as u64
    };
    let kept: Vec<usize> = (0..baseline.len()).filter(whole).collect();
    let pick = |values: &[f64]| -> Vec<f64> { kept.iter().map(|&i| values[i]).collect() };
    let blocks: Vec<u64> = kept.iter().map(|&i| block[i]).collect();
    let (baseline, candidate) = (pick(baseline), pick(candidate));
    let ratios = stats::block_minima_log_ratios(
        Column { block: &blocks, value: &baseline },
        Column { block: &blocks, value: &candidate },
    )?;
    let launch: Vec<u32> = ratios.block.iter().map(|block| (block >> 32) as u32).collect();
    let Some(effect) = stats::effect(&ratios.log_ratio, &launch, alpha, 0.0)? else { return Ok(None) };
    let mut bounds = Bounds { estimate: effect.estimate, lower: effect.lower, upper: effect.upper };
    if effect.n_launches == 1
        && let Some(half) = stats::batch_half_width(&ratios.log_ratio, BATCHES, alpha)?
    {
        bounds.lower = bounds.lower.min(bounds.estimate - half);
        bounds.upper = bounds.upper.max(bounds.estimate + half);
    }
    Ok(Some(Estimated { bounds, n_blocks: effect.n_blocks, n_launches: effect.n_launches }))
}

fn unpaired(
    trial: &Trial,
    baseline: &[f64],
    candidate: &[f64],
    alpha: f64,
) -> Result<Option<Estimated>, StatsError> {
    let length = block_length(baseline.len().min(candidate.len()), meter(trial));
    let minima = |values: &[f64]| -> Vec<f64> {
        values
            .chunks_exact(length)
            .map(|block| block.iter().copied().fold(f64::INFINITY, f64::min).ln())
            .collect()
    };
    let (first, second) = (minima(baseline), minima(candidate));
    if let Interval::NotEnough { .. } = stats::signed_rank_interval(&first[..first.len().min(64)], alpha)? {
        return Ok(None);
    }
    let found = stats::unpaired_difference(&first, &second, UNPAIRED_BATCHES, alpha)?;
    let n_launches = trial.launch.iter().max().map_or(1, |last| *last as usize + 1);
    Ok(found.map(|(estimate, half)| Estimated {
        bounds: Bounds { estimate, lower: estimate - half, upper: estimate + half },
        n_blocks: first.len().min(second.len()),
        n_launches,
    }))
}
