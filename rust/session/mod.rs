//! Until when: measure, judge, measure more, stop; then one verdict.
//!
//! ```text
//! launch after launch, each a fresh process         every workload, as often as planned
//!     from the third on                             only workloads that are not settled (always-valid bounds)
//! once, what is undecided                           as many launches again, judged at half the error probability
//! once, what looks too slow                         fresh launches of the second stage, which alone decide
//! ```
//!
//! Nothing is replaced: every launch adds to the recording, and the verdict is a function of the recording, so whoever
//! has the file comes to the same answer. There is no "until green": a second look happens once, and what was red at
//! first and is not reproduced is neutral, never pass.

mod selftest;

pub use selftest::{Found, PLANTED, RoundLauncher, SelfTest, selftest};

use crate::campaign::CampaignError;
use crate::gate::verdict::{Certainty, Comparison};
use crate::gate::{self, ALWAYS_VALID, Answer, Baseline, Case, LEAST_LAUNCHES, Policy, Verdict};
use crate::record::{self, MergeError, Meter, Recording};
use std::collections::BTreeSet;

/// Everything one session leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Raw.
    pub recording: Recording,
    /// Concluded from it.
    pub verdict: Verdict,
}

/// Why a session ended without a verdict.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nothing could be measured.
    #[error(transparent)]
    Campaign(#[from] CampaignError),
    /// Two launches of one session do not belong together.
    #[error("launch {launch} does not fit the launches before it: {why}")]
    Merge {
        /// Its index.
        launch: u32,
        /// What differs.
        why: MergeError,
    },
}

/// One launch to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 0, over all stages.
    pub index: u32,
    /// 1 or 2.
    pub stage: u8,
    /// Number within what is being done, from 1.
    pub number: u32,
    /// How many of it there will be at most.
    pub of: u32,
    /// What is being done.
    pub why: Why,
    /// Ids of the workloads to measure; `None`: all of the plan.
    pub workloads: Option<Vec<String>>,
}

/// Why a launch is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was planned.
    Planned,
    /// Some workloads were undecided.
    Undecided,
    /// Some workloads looked too slow.
    TooSlow,
}

/// How a session is run, and by what its result is judged.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// Fresh processes of the first stage; as many again for each second look.
    pub launches: u32,
    /// Whether undecided workloads and workloads that look too slow are measured again.
    pub second_looks: bool,
    /// What a regression is judged against.
    pub baseline: &'a Baseline<'a>,
    /// Every number.
    pub policy: &'a Policy,
    /// Where the policy came from.
    pub policy_source: &'a str,
    /// The command that would settle a neutral verdict.
    pub retry: &'a str,
}

/// Makes one launch: a fresh process that measures, or a script in tests.
pub type Launcher<'a> = dyn FnMut(&Step) -> Result<Recording, CampaignError> + 'a;

impl Session<'_> {
    /// Launches until everything is settled or the plan is carried out, and judges.
    ///
    /// # Errors
    /// [`SessionError`] when nothing could be measured. An interruption is no error: the recording says so, and the
    /// verdict is neutral at best.
    pub fn run(&self, launch: &mut Launcher<'_>) -> Result<Outcome, SessionError> {
        let all =
            Step { index: 0, stage: 1, number: 1, of: self.launches, why: Why::Planned, workloads: None };
        let mut recording = launch(&all)?;
        recording.plan.launches = if recording.plan.launches == 0 { 0 } else { self.launches };
        let stops_early = self.stops_early() && recording.plan.meter != Meter::Instructions;
        if stops_early {
            recording.plan.stop_rule = ALWAYS_VALID.into();
        }
        let timed = recording.plan.launches > 0;
        // Counts repeat: what they show once they show again.
        let looks_again = timed && self.second_looks && recording.plan.meter != Meter::Instructions;
        for number in 2..=self.launches {
            let open = match self.open(&recording, number - 1).filter(|_| stops_early) {
                Some(open) if open.is_empty() => break,
                open => open,
            };
            if !timed || recording.incomplete.is_some() {
                break;
            }
            let step = Step { index: number - 1, number, workloads: open, ..all.clone() };
            add(&mut recording, launch, &step)?;
        }
        if looks_again {
            let undecided = gate::undecided(&self.comparisons(&recording));
            self.look_again(&mut recording, launch, Why::Undecided, 1, undecided)?;
            let flagged = gate::flagged(&self.comparisons(&recording));
            self.look_again(&mut recording, launch, Why::TooSlow, 2, flagged)?;
        }
        let verdict = gate::judge(&self.case(&recording));
        Ok(Outcome { recording, verdict })
    }

    /// Early stopping needs bounds that hold whenever one stops; there are such bounds for interleaved sides only.
    fn stops_early(&self) -> bool {
        self.launches as usize > LEAST_LAUNCHES && !matches!(self.baseline, Baseline::Sessions { .. })
    }

    fn case<'r>(&'r self, recording: &'r Recording) -> Case<'r> {
        Case {
            recording,
            baseline: self.baseline,
            policy: self.policy,
            policy_source: self.policy_source,
            retry: self.retry,
        }
    }

    fn comparisons(&self, recording: &Recording) -> Vec<Comparison> {
        gate::comparisons(&self.case(recording))
    }

    /// Workloads that need another launch after `done`; `None`: all do.
    fn open(&self, recording: &Recording, done: u32) -> Option<Vec<String>> {
        if !self.stops_early() || (done as usize) < LEAST_LAUNCHES {
            return None;
        }
        let settled = |comparison: &Comparison| {
            comparison.verdict.is_none_or(|answer| answer != Answer::Neutral)
                && (comparison.verdict.is_none() || comparison.certainty == Certainty::Confirmed)
        };
        let comparisons = self.comparisons(recording);
        let open: BTreeSet<&str> =
            comparisons.iter().filter(|c| !settled(c)).map(|c| c.workload.as_str()).collect();
        Some(in_plan_order(recording, &open))
    }

    /// As many launches again, of these workloads alone.
    fn look_again(
        &self,
        recording: &mut Recording,
        launch: &mut Launcher<'_>,
        why: Why,
        stage: u8,
        workloads: Vec<String>,
    ) -> Result<(), SessionError> {
        if workloads.is_empty() {
            return Ok(());
        }
        for number in 1..=self.launches {
            if recording.incomplete.is_some() {
                break;
            }
            let index = recording.launches.iter().map(|launch| launch.index + 1).max().unwrap_or(0);
            let step =
                Step { index, stage, number, of: self.launches, why, workloads: Some(workloads.clone()) };
            add(recording, launch, &step)?;
        }
        Ok(())
    }
}

fn in_plan_order(recording: &Recording, wanted: &BTreeSet<&str>) -> Vec<String> {
    let planned = recording.plan.workloads.iter().map(|workload| &workload.id);
    planned.filter(|id| wanted.contains(id.as_str())).cloned().collect()
}

/// One launch more.
fn add(recording: &mut Recording, launch: &mut Launcher<'_>, step: &Step) -> Result<(), SessionError> {
    let more = launch(step)?;
    record::merge(recording, more).map_err(|why| SessionError::Merge { launch: step.index, why })
}
