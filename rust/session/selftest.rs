//! Does the gate keep its promises on this machine: equal sides and planted slow-downs of a real kernel, judged as any
//! other comparison, and counted.
//!
//! ```text
//! round    launches of one workload: the reference, its twin, and instances slowed by 0, 3, 5, 10, 15 %
//! judge    each slowed instance against the reference at the margin of 5 %
//! count    red, neutral, pass; repeat until the budget is spent
//! ```
//!
//! Estimates: error rates of one measurement without second looks, which only make red rarer. A reader may not conclude
//! more than the counts allow: the interval of a rate is that of Clopper and Pearson.

use super::SessionError;
use crate::campaign::CampaignError;
use crate::gate::verdict::Comparison;
use crate::gate::{self, Answer, Baseline, Case, Policy};
use crate::record::{self, Recording};
use crate::stats;
use serde::Serialize;
use std::ops::ControlFlow;

/// Slow-downs that are planted, ratio - 1.
pub const PLANTED: [f64; 5] = [0.0, 0.03, 0.05, 0.10, 0.15];

/// What was found of one planted slow-down.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Found {
    /// The slow-down, ratio - 1.
    pub planted: f64,
    /// Judged comparisons.
    pub n: usize,
    /// Of these red.
    pub fail: usize,
    /// Of these undecided.
    pub neutral: usize,
    /// Of these passed.
    pub pass: usize,
    /// Median of the measured slow-downs, ratio - 1.
    pub measured: Option<f64>,
    /// Median half width of the intervals, a share.
    pub half_width: Option<f64>,
    /// Upper 95 % bound of the rate of wrong answers: red for equal sides, pass beyond the margin.
    pub wrong_at_most: Option<f64>,
}

/// Everything a self-test found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SelfTest {
    /// Rounds.
    pub rounds: usize,
    /// Launches of each round.
    pub launches: u32,
    /// The margin, ratio - 1.
    pub margin: f64,
    /// By planted slow-down.
    pub found: Vec<Found>,
    /// Why it ended early, if it did.
    pub incomplete: Option<String>,
}

/// Makes launch `index` of a round; each is a fresh process.
pub type RoundLauncher<'a> = dyn FnMut(u32) -> Result<Recording, CampaignError> + 'a;

/// Runs rounds until `go_on` breaks, at least one.
///
/// # Errors
/// [`SessionError`] when nothing could be measured.
pub fn selftest(
    launches: u32,
    launch: &mut RoundLauncher<'_>,
    go_on: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<SelfTest, SessionError> {
    let policy = Policy::default();
    let mut test = SelfTest { launches, margin: policy.severity.minor, ..SelfTest::default() };
    let mut judged: Vec<(f64, Comparison)> = Vec::new();
    while test.incomplete.is_none() && (test.rounds == 0 || go_on(test.rounds).is_continue()) {
        let mut recording = launch(0)?;
        for index in 1..launches {
            if recording.incomplete.is_some() {
                break;
            }
            let more = launch(index)?;
            record::merge(&mut recording, more).map_err(|why| SessionError::Merge { launch: index, why })?;
        }
        test.incomplete.clone_from(&recording.incomplete);
        if test.incomplete.is_some() {
            break;
        }
        test.rounds += 1;
        let baseline = Baseline::Revision { name: "the same kernel, slowed".into() };
        let case = Case { baseline: &baseline, ..Case::alone(&recording, &policy) };
        for comparison in gate::comparisons(&case) {
            let planted = PLANTED
                .into_iter()
                .find(|share| comparison.subject == format!("{}+{:.0}%", comparison.other, share * 100.0));
            judged.extend(planted.map(|planted| (planted, comparison)));
        }
    }
    test.found = PLANTED.into_iter().map(|planted| counted(planted, &judged, test.margin)).collect();
    Ok(test)
}

fn counted(planted: f64, judged: &[(f64, Comparison)], margin: f64) -> Found {
    let own: Vec<&Comparison> =
        judged.iter().filter(|(share, _)| *share == planted).map(|(_, comparison)| comparison).collect();
    let answers = |answer| own.iter().filter(|comparison| comparison.verdict == Some(answer)).count();
    let median = |values: Vec<f64>| stats::median(&values).ok().flatten();
    let half = |c: &&Comparison| c.interval.map(|[lower, upper]| (upper - lower) / 2.0);
    let (fail, pass) = (answers(Answer::Fail), answers(Answer::Pass));
    let wrong = if planted > margin {
        Some(pass)
    } else if planted == 0.0 {
        Some(fail)
    } else {
        None
    };
    Found {
        planted,
        n: own.len(),
        fail,
        neutral: answers(Answer::Neutral),
        pass,
        measured: median(own.iter().filter_map(|c| c.ratio).collect()).map(|ratio| ratio - 1.0),
        half_width: median(own.iter().filter_map(half).collect()),
        wrong_at_most: wrong.and_then(|wrong| stats::binomial_upper(wrong, own.len(), 0.05)),
    }
}
