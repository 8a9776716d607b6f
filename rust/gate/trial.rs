//! Two arrays of times measured elsewhere: is the candidate slower than the baseline by more than the margin?
//!
//! ```text
//! paired modes   d_i = ln(min of k candidate samples) - ln(min of the k baseline samples beside them), stats::effect
//! seq            stats::unpaired over the logarithms of the same minima
//! half width     max(own half width, floor) * inflation
//! ```
//!
//! Floor and inflation say what the samples cannot: that two processes, two CPUs, two minutes differ. Both are learnt
//! from earlier A/A trials of the same mode: the floor from their spread (`stats::aa_floor`), the inflation as the
//! share-98-% quantile of |theta| over the half width that each of them would have had, so that hardly any of them
//! would have been called different (split conformal prediction: Lei et al. 2018; an empirical null: Schuemie et al.
//! 2014). Without such trials a floor by mode holds, from measured spread. Unit: ln of a ratio inside, ratios in the
//! answer. A reader may not conclude from a pass that the sides are equal.
//!
//! CPU time is the meter where it is given: it leaves out what preemption adds, and that is most of the noise.

use super::decide::{Bounds, Decision, decide};
use super::policy::Edges;
use super::verdict::{Answer, Certainty, SeverityRange};
use crate::record::{Mode, Trial};
use crate::stats::{self, StatsError};
use serde::Serialize;

/// Adjacent samples of which the fastest counts.
const SAMPLES_PER_BLOCK: usize = 3;

/// Fewer blocks than this of three samples, and each sample is a block.
const ENOUGH_BLOCKS: usize = 10;

/// More blocks than this are thinned: neighbours give way to their median.
const MOST_BLOCKS: usize = 240;

/// Stretches into which one launch is cut, to see whether it drifts.
const STRETCHES: usize = 10;

/// A wall time beyond this multiple of the CPU time was disturbed.
const DISTURBED: f64 = 1.02;

/// Share of earlier A/A trials that would not have been called different.
const CALIBRATED: f64 = 0.98;

/// By what trials are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrialRules {
    /// The largest slow-down (time ratio - 1) that is no failure.
    pub margin: f64,
    /// One-sided error probability of each bound.
    pub alpha: f64,
    /// Whether `likely` is neutral instead of red.
    pub strict: bool,
    /// Edges of severity.
    pub edges: Edges,
}

/// Which times were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrialMeter {
    /// Elapsed time.
    Wall,
    /// CPU time.
    Cpu,
}

/// The answer to one trial; ratios are candidate over baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialAnswer {
    /// The trial's own name, as it stood in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<serde_json::Value>,
    /// Pass, neutral, fail.
    pub verdict: Answer,
    /// Confirmed, likely, inconclusive.
    pub certainty: Certainty,
    /// Of the best estimate and of the lower bound; `None` without an interval.
    pub severity: Option<SeverityRange>,
    /// The best estimate; `None` without a block.
    pub ratio: Option<f64>,
    /// Bounds, each wrong with probability at most alpha; `None` with too few blocks.
    pub interval: Option<[f64; 2]>,
    /// The smallest slow-down (ratio - 1) that such a trial confirms in 8 of 10 cases; `None` without an interval.
    pub mde: Option<f64>,
    /// One sentence.
    pub reason: String,
    /// The largest ratio that is no failure.
    pub limit: f64,
    /// Which times were compared.
    pub meter: TrialMeter,
    /// How the trial was read.
    pub mode: Mode,
    /// Blocks compared (of the shorter side, if one after the other).
    pub n_blocks: usize,
    /// Process pairs.
    pub n_launches: usize,
    /// Share of samples whose wall time exceeds 1.02 x CPU time; `None` without CPU times.
    pub disturbance: Option<f64>,
    /// Half width, ln, that the interval has at least: what the design hides.
    pub floor: f64,
    /// Earlier A/A trials of the same mode that were used.
    pub n_calibration: usize,
}

/// Two sides reduced to an estimate, before anything is known of the design.
#[derive(Clone, Copy, Debug)]
struct Raw {
    estimate: f64,
    /// Half widths downwards and upwards, by the samples alone.
    below: f64,
    above: f64,
    /// Standard error, for the power.
    error: f64,
    n_blocks: usize,
    n_launches: usize,
}

/// What earlier A/A trials of one mode say of the design.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Hidden {
    floor: f64,
    inflation: f64,
    n: usize,
}

impl Hidden {
    fn half(&self, own: f64) -> f64 {
        own.max(self.floor) * self.inflation
    }

    /// A likely slow-down must not be the false alarm of a wide interval: it differs from none at an error probability
    /// of 1 %, not 5 %. The floors of [`prior_floor`] are as sure already.
    fn surely(&self, own: f64) -> f64 {
        let learnt = self.n >= stats::ENOUGH_AA;
        let widened = SURELY * if learnt { self.half(own) } else { own };
        widened.max(self.half(own))
    }
}

/// Judges trials; the earlier A/A trials are reduced once.
pub struct TrialJudge {
    rules: TrialRules,
    /// Mode, meter, estimate and own half width of each.
    history: Vec<(Mode, TrialMeter, Raw)>,
}

impl TrialJudge {
    /// `calibration` holds earlier trials of a build against itself; those that are too short say nothing.
    ///
    /// # Errors
    /// [`StatsError`]; a trial that was read has none.
    pub fn new(rules: TrialRules, calibration: &[Trial]) -> Result<Self, StatsError> {
        let mut history = Vec::new();
        for trial in calibration {
            for meter in [TrialMeter::Wall, TrialMeter::Cpu] {
                if let Some(raw) = raw(trial, meter, rules.alpha)? {
                    history.push((trial.mode_or_guess(), meter, raw));
                }
            }
        }
        Ok(Self { rules, history })
    }

    /// The answer to one trial.
    ///
    /// # Errors
    /// [`StatsError`]; a trial that was read has none.
    pub fn judge(&self, trial: &Trial) -> Result<TrialAnswer, StatsError> {
        let mode = trial.mode_or_guess();
        let meter = if trial.cpu.is_some() { TrialMeter::Cpu } else { TrialMeter::Wall };
        let design = self.design(mode, meter)?;
        let mut answer = TrialAnswer {
            id: trial.id.clone(),
            verdict: Answer::Neutral,
            certainty: Certainty::Inconclusive,
            severity: None,
            ratio: None,
            interval: None,
            mde: None,
            reason: String::new(),
            limit: 1.0 + self.rules.margin,
            meter,
            mode,
            n_blocks: 0,
            n_launches: 0,
            disturbance: disturbance(trial),
            floor: design.floor * design.inflation,
            n_calibration: design.n,
        };
        match raw(trial, meter, self.rules.alpha)? {
            Some(raw) => self.conclude(&mut answer, &raw, &design),
            None => {
                let samples = trial.baseline.len().min(trial.candidate.len());
                answer.reason = format!("{samples} samples of a side are too few for an interval");
            }
        }
        Ok(answer)
    }

    fn conclude(&self, answer: &mut TrialAnswer, raw: &Raw, design: &Hidden) {
        let (estimate, margin) = (raw.estimate, self.rules.margin.ln_1p());
        let bounds = Bounds {
            estimate,
            lower: estimate - design.half(raw.below),
            upper: estimate + design.half(raw.above),
        };
        let mut decision = decide(&bounds, margin, self.rules.strict);
        if decision.certainty == Certainty::Likely && estimate <= design.surely(raw.below) {
            decision = Decision { answer: Answer::Neutral, certainty: Certainty::Inconclusive };
        }
        let [ratio, lower, upper] = [estimate, bounds.lower, bounds.upper].map(f64::exp);
        (answer.verdict, answer.certainty) = (decision.answer, decision.certainty);
        (answer.ratio, answer.interval) = (Some(ratio), Some([lower, upper]));
        (answer.n_blocks, answer.n_launches) = (raw.n_blocks, raw.n_launches);
        let edges = &self.rules.edges;
        answer.severity =
            Some(SeverityRange { most_likely: edges.severity(ratio), at_least: edges.severity(lower) });
        let power = stats::normal_quantile(0.8).unwrap_or(f64::NAN);
        let mde = (margin + design.half(raw.below) + power * raw.error).exp_m1();
        answer.mde = Some(mde);
        let limit = answer.limit;
        answer.reason = match (decision.answer, decision.certainty) {
            (Answer::Fail, Certainty::Confirmed) => {
                format!("at least {lower:.3} times the time, allowed {limit:.3}")
            }
            (Answer::Pass, _) => format!("at most {upper:.3} times the time, allowed {limit:.3}"),
            (_, Certainty::Likely) => format!("slower for sure, probably beyond {limit:.3}: {ratio:.3}"),
            _ => format!(
                "the interval {lower:.3} to {upper:.3} holds the limit {limit:.3}; such a trial confirms from {:.1} % on: {}",
                100.0 * mde,
                self.advice(raw, design)
            ),
        };
    }

    /// What would settle a neutral answer: whatever made the interval as wide as it is.
    fn advice(&self, raw: &Raw, design: &Hidden) -> &'static str {
        if raw.below.max(raw.above) > design.floor {
            "take more blocks, or wait for a quieter machine"
        } else if design.n < stats::ENOUGH_AA {
            "earlier A/A trials of this mode as a calibration would say how much of that is the design"
        } else {
            "its A/A trials differ by as much; take both sides in one process on one CPU"
        }
    }

    /// What is known of a mode.
    fn design(&self, mode: Mode, meter: TrialMeter) -> Result<Hidden, StatsError> {
        let same = self.history.iter().filter(|(of, by, _)| *of == mode && *by == meter);
        let raws: Vec<&Raw> = same.map(|(_, _, raw)| raw).collect();
        let effects: Vec<f64> = raws.iter().map(|raw| raw.estimate).collect();
        let n = raws.len();
        if n < stats::ENOUGH_AA {
            let widest = effects.iter().map(|effect| effect.abs()).fold(prior_floor(mode), f64::max);
            return Ok(Hidden { floor: widest, inflation: 1.0, n });
        }
        let floor = stats::aa_floor(&effects, None, self.rules.alpha)?.max(LEAST_FLOOR);
        let mut scores: Vec<f64> =
            raws.iter().map(|raw| raw.estimate.abs() / raw.below.min(raw.above).max(floor)).collect();
        scores.sort_by(f64::total_cmp);
        let rank = ((n + 1) as f64 * CALIBRATED).ceil() as usize;
        Ok(Hidden { floor, inflation: scores[rank.min(n) - 1].max(1.0), n })
    }
}

/// Half width, ln, below which no A/A trials lead: two copies of one build share their memory layout, two builds do not.
const LEAST_FLOOR: f64 = 0.015;

/// z(0.99) / z(0.95): what makes a half width of 5 % one of 1 %.
const SURELY: f64 = 1.414;

/// Half width, ln, where no A/A trials are at hand.
fn prior_floor(mode: Mode) -> f64 {
    match mode {
        Mode::Seq => 0.10,
        Mode::Int => 0.13,
        Mode::Intpin | Mode::Duet => 0.02,
        Mode::Int5pin => 0.015,
    }
}

/// Share of disturbed samples.
fn disturbance(trial: &Trial) -> Option<f64> {
    let [baseline, candidate] = trial.cpu.as_ref()?;
    let wall = trial.baseline.iter().chain(&trial.candidate);
    let disturbed =
        wall.zip(baseline.iter().chain(candidate)).filter(|(wall, cpu)| **wall > DISTURBED * **cpu);
    Some(disturbed.count() as f64 / (baseline.len() + candidate.len()) as f64)
}

/// Estimate and half widths by the samples alone; `None` if they are too few, or the meter was not read.
fn raw(trial: &Trial, meter: TrialMeter, alpha: f64) -> Result<Option<Raw>, StatsError> {
    let (baseline, candidate) = match (meter, &trial.cpu) {
        (TrialMeter::Wall, _) => (&trial.baseline, &trial.candidate),
        (TrialMeter::Cpu, Some([baseline, candidate])) => (baseline, candidate),
        (TrialMeter::Cpu, None) => return Ok(None),
    };
    if trial.mode_or_guess().is_paired() {
        paired(baseline, candidate, trial.launch.as_deref(), alpha)
    } else {
        let sides = [baseline, candidate].map(|side| thinned(&log_minima(side)));
        let n_blocks = sides[0].len().min(sides[1].len());
        let found = stats::unpaired(&sides[0], &sides[1], alpha)?;
        Ok(found.map(|found| Raw {
            estimate: found.estimate,
            below: found.half,
            above: found.half,
            error: found.error,
            n_blocks,
            n_launches: 1,
        }))
    }
}

fn paired(
    baseline: &[f64],
    candidate: &[f64],
    launch: Option<&[u32]>,
    alpha: f64,
) -> Result<Option<Raw>, StatsError> {
    let (launch, n_launches) = groups(launch, baseline.len());
    let n_groups = n_launches.clamp(1, MOST_BLOCKS);
    let (mut log_ratio, mut unit) = (Vec::new(), Vec::new());
    // What one launch hides from its own blocks, its stretches show; several launches show it better.
    let stretches = if n_launches == 1 { STRETCHES } else { 1 };
    let share = MOST_BLOCKS.div_ceil(n_groups);
    for group in 0..n_groups {
        let of_launch = |side: &[f64]| -> Vec<f64> {
            side.iter().zip(&launch).filter(|(_, of)| **of == group).map(|(time, _)| *time).collect()
        };
        let (a, b) = (log_minima(&of_launch(baseline)), log_minima(&of_launch(candidate)));
        let d: Vec<f64> = b.iter().zip(&a).map(|(b, a)| b - a).collect();
        let d = thinned_to(&d, share);
        let cut = if d.len() >= 3 * stretches { stretches } else { 1 };
        unit.extend((0..d.len()).map(|block| (group * stretches + block * cut / d.len()) as u32));
        log_ratio.extend(d);
    }
    let Some(effect) = stats::effect(&log_ratio, &unit, alpha, 0.0)? else { return Ok(None) };
    let spread = stats::spread(&log_ratio, &unit)?;
    let units = effect.n_launches as f64;
    let error = spread.map_or(0.0, |spread| {
        (spread.between.powi(2) / units + spread.within.powi(2) / effect.n_blocks as f64).sqrt()
    });
    Ok(Some(Raw {
        estimate: effect.estimate,
        below: effect.estimate - effect.lower,
        above: effect.upper - effect.estimate,
        error,
        n_blocks: effect.n_blocks,
        n_launches,
    }))
}

/// The group of each sample and the number of launches: a launch is a group, unless there are more than blocks.
fn groups(launch: Option<&[u32]>, samples: usize) -> (Vec<usize>, usize) {
    let Some(launch) = launch else { return (vec![0; samples], 1) };
    let mut numbers = launch.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let rank = |number| numbers.binary_search(number).unwrap_or_default();
    let group =
        |rank: usize| if numbers.len() > MOST_BLOCKS { rank * MOST_BLOCKS / numbers.len() } else { rank };
    (launch.iter().map(|number| group(rank(number))).collect(), numbers.len())
}

/// Logarithms of the minima of adjacent samples; an incomplete last block is left out.
fn log_minima(times: &[f64]) -> Vec<f64> {
    let size = if times.len() >= ENOUGH_BLOCKS * SAMPLES_PER_BLOCK { SAMPLES_PER_BLOCK } else { 1 };
    times.chunks_exact(size).map(|block| block.iter().copied().fold(f64::INFINITY, f64::min).ln()).collect()
}

fn thinned(values: &[f64]) -> Vec<f64> {
    thinned_to(values, MOST_BLOCKS)
}

/// At most about `most` values: medians of neighbours, so that pairs stay affordable and correlation of neighbours goes.
fn thinned_to(values: &[f64], most: usize) -> Vec<f64> {
    let size = values.len().div_ceil(most.max(1)).max(1);
    let middle = |chunk: &[f64]| stats::median(chunk).ok().flatten().unwrap_or(f64::NAN);
    values.chunks(size).map(middle).collect()
}
