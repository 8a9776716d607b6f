//! The verdict document, schema `bitnet-perfgate/verdict/1`.

use super::policy::{Edges, Policy};
use crate::record::{Accuracy, AgreementRow, Meter, Skipped};
use serde::{Deserialize, Serialize};

/// The schema this version writes.
pub const SCHEMA: &str = "bitnet-perfgate/verdict/1";

/// What a rule, a comparison or the whole answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// There is evidence that it holds.
    Pass,
    /// There is not enough evidence.
    Neutral,
    /// There is evidence that it is broken.
    Fail,
}

impl Answer {
    /// The exit code of a command that ends with this answer.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Neutral => 3,
        }
    }

    /// `pass`, `neutral`, `fail`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Neutral => "neutral",
            Self::Fail => "fail",
        }
    }
}

/// How sure a comparison's answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// The interval lies on one side of the margin.
    Confirmed,
    /// Slower for sure, and the best estimate lies beyond the margin.
    Likely,
    /// The interval holds the margin.
    Inconclusive,
}

/// Size of a slow-down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Below the first edge; faster included.
    Acceptable,
    /// From the first edge.
    Minor,
    /// From the second edge.
    Major,
    /// From the third edge.
    Critical,
}

/// Severity of the best estimate and of the bound that is surely reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeverityRange {
    /// Of the estimate.
    pub most_likely: Severity,
    /// Of the lower bound.
    pub at_least: Severity,
}

/// Against what a subject is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Against {
    /// The C++ reference, interleaved in the same blocks.
    Reference,
    /// Accepted recordings of earlier days.
    Baseline,
    /// Another build of the same backend, interleaved in the same blocks.
    Revision,
}

impl Against {
    /// `reference`, `baseline`, `revision`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Baseline => "baseline",
            Self::Revision => "revision",
        }
    }
}

/// What the first measurement of a workload said, before it was measured afresh.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstStage {
    /// Its ratio.
    pub ratio: f64,
    /// Its bounds.
    pub interval: [f64; 2],
    /// Its certainty.
    pub certainty: Certainty,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// One subject against one other side on one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Workload id.
    pub workload: String,
    /// The subject.
    pub subject: String,
    /// Against what.
    pub against: Against,
    /// The other side's backend.
    pub other: String,
    /// What was compared.
    pub meter: Meter,
    /// Whether the verdict depends on it.
    pub required: bool,
    /// The answer; `None` where no rule applies.
    pub verdict: Option<Answer>,
    /// Time (or count) of the subject over that of the other side; against a baseline, today's ratio to the reference
    /// over the baseline's. `None` without a usable block.
    pub ratio: Option<f64>,
    /// Against a baseline: today's time over the baseline's, the reference left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_ratio: Option<f64>,
    /// Bounds of the ratio, each wrong with probability at most alpha; `None` with too few blocks.
    pub interval: Option<[f64; 2]>,
    /// The largest ratio that is no failure; `None` where no rule applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// How sure.
    pub certainty: Certainty,
    /// How much slower, if slower.
    pub severity: Option<SeverityRange>,
    /// Smallest slow-down (ratio - 1) that this design would have found beyond the limit in 8 of 10 runs.
    pub mde: Option<f64>,
    /// Median over blocks of the fastest call of the subject, in ns.
    pub subject_ns: Option<f64>,
    /// The same of the other side.
    pub other_ns: Option<f64>,
    /// Blocks both sides have.
    pub n_blocks: usize,
    /// Processes they come from.
    pub n_launches: usize,
    /// Accepted recordings compared with; 0 unless against a baseline.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_baselines: usize,
    /// 1: the first measurement. 2: measured afresh because the first looked too slow, and judged by that alone.
    pub stage: u8,
    /// What the first measurement said, where the second one is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_stage: Option<FirstStage>,
    /// Why this answer.
    pub reason: String,
}

/// One rule and what the evidence says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleAnswer {
    /// `agreement`, `accuracy`, `reference-speed`, `regression`, `simd-ahead-of-scalar`, `simd-efficiency`, `memory`,
    /// `completeness`.
    pub name: String,
    /// The answer; `None` where the rule does not apply, with the reason.
    pub verdict: Option<Answer>,
    /// Why.
    pub reason: String,
}

/// How much of what the machine allows one backend reaches on one product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Efficiency {
    /// Workload id.
    pub workload: String,
    /// The backend.
    pub backend: String,
    /// Share of the ceiling that binds: the bound over the fastest call. Above 1 the ceiling was measured in a worse
    /// moment, or part of the weights lay nearer.
    pub share: f64,
    /// Name of the bandwidth with which the weights are read, as in the recording.
    pub bandwidth: String,
    /// Name of the peak of the instruction set.
    pub peak: String,
    /// Which of the two binds.
    pub binds: String,
    /// Time of a call at that ceiling, in ns.
    pub bound_ns: f64,
    /// Time of the fastest call measured, in ns.
    pub fastest_ns: f64,
}

/// All agreements in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgreementSummary {
    /// Workload and backend pairs compared with the oracle.
    pub n: usize,
    /// Of these, equal to the bit.
    pub exact: usize,
    /// Those that are not what their contract demands.
    pub failures: Vec<AgreementRow>,
}

impl AgreementSummary {
    /// How many are equal to the bit; and that the others hold, where they do.
    pub fn said(&self) -> String {
        let others = if self.exact < self.n && self.failures.is_empty() {
            ", the others within their bounds"
        } else {
            ""
        };
        format!("{}/{} exact{others}", self.exact, self.n)
    }
}

/// How small a slow-down this run could see, ratio - 1, over its judged comparisons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// Median over the comparisons.
    pub median: f64,
    /// The largest.
    pub worst: f64,
    /// Its workload.
    pub workload: String,
}

/// A condition on the evidence itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// Its name.
    pub name: String,
    /// Whether it is met.
    pub ok: bool,
    /// What was found.
    pub reason: String,
}

/// Who should look next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// `perf-finalizer`, `perf-fixer`, `crossval-specialist`, `architecture-reviewer`, `gpu-specialist`, `retry`,
    /// `review-performance-benchmark`.
    pub next: String,
    /// Why.
    pub reason: String,
}

/// Where the policy came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicySource {
    /// A file, or `defaults`.
    pub source: String,
    /// SHA-256 of its canonical JSON, 16 hex digits.
    pub hash: String,
    /// Its edges of severity, so that a reader can draw them; absent in documents of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Edges>,
}

impl PolicySource {
    /// That of `policy`, which came from `source`.
    pub fn of(policy: &Policy, source: &str) -> Self {
        Self { source: source.into(), hash: policy.hash(), severity: Some(policy.severity) }
    }
}

/// Everything that was concluded from one recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// [`SCHEMA`].
    pub schema: String,
    /// The answer.
    pub verdict: Answer,
    /// One sentence for a person.
    pub summary: String,
    /// `method: ...; result: ...; reason: ...`.
    pub evidence: String,
    /// Backends and categories the verdict depends on.
    pub required: Vec<String>,
    /// What was not done, and why.
    pub skipped: Vec<Skipped>,
    /// Speeds.
    pub comparisons: Vec<Comparison>,
    /// Rules.
    pub rules: Vec<RuleAnswer>,
    /// Agreements.
    pub agreement: AgreementSummary,
    /// 100 times the geometric mean of reference time over subject time, over the required inference workloads: a
    /// figure of speed. `None` where none was timed against the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossval_parity_percent: Option<f64>,
    /// Accuracy rows of the recording.
    pub accuracy: Vec<Accuracy>,
    /// Efficiency of every backend on every product whose ceilings were measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub efficiencies: Vec<Efficiency>,
    /// Conditions on the evidence.
    pub validation: Vec<Validation>,
    /// Who should look next.
    pub route: Route,
    /// How small a slow-down could be seen; absent where nothing was judged by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// What might help; nothing is applied.
    pub suggestions: Vec<String>,
    /// Commands that were run.
    pub commands: Vec<String>,
    /// The recording, by file name.
    pub recording: Option<String>,
    /// The baseline or the other revision; `None`: no regression was judged.
    pub baseline: Option<String>,
    /// The policy.
    pub policy: PolicySource,
}
