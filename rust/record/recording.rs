//! The document. Names and meanings are fixed by the schema; it grows by new optional fields.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ceilings::CeilingSetting;
use super::origin::Origin;
use super::series::{Meter, Series};
use crate::measure::Fingerprint;
use crate::parity::{Agreement, Contract, LengthMismatch};

/// The schema that this version writes, and so far the only one it reads.
pub const SCHEMA: &str = "bitnet-perfgate/recording/1";

/// Fields that this version does not know, kept as they were.
pub type Extra = Map<String, Value>;

/// This moment, to the second, as recordings state it.
pub fn now_utc() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Everything one run measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// [`SCHEMA`].
    pub schema: String,
    /// Which version of this tool measured.
    pub tool: Tool,
    /// When, UTC (RFC 3339).
    pub created: Timestamp,
    /// What was decided beforehand.
    pub plan: PlanRecord,
    /// On which machine, with which builds.
    pub fingerprint: Fingerprint,
    /// Measured ceilings of the machine by name (GB/s, GOP/s); empty where they were not measured.
    #[serde(default)]
    pub ceilings: BTreeMap<String, f64>,
    /// What they were measured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling_setting: Option<CeilingSetting>,
    /// The fresh processes that measured.
    #[serde(default)]
    pub launches: Vec<Launch>,
    /// The raw samples.
    #[serde(default)]
    pub series: Vec<Series>,
    /// Who agreed with whom.
    #[serde(default)]
    pub agreements: Vec<AgreementRow>,
    /// How close to the float64 product.
    #[serde(default)]
    pub accuracy: Vec<Accuracy>,
    /// Memory readings.
    #[serde(default)]
    pub memory: Vec<Memory>,
    /// What was asked for and not done, with the reason.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// Why parts of the plan are missing, if some are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// Present where another tool measured: which one, and what it says of each benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

fn first_stage() -> u8 {
    1
}

fn is_first_stage(stage: &u8) -> bool {
    *stage == 1
}

fn is_wall(meter: &Meter) -> bool {
    *meter == Meter::WallNs
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Which version of this tool measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Package version.
    pub version: String,
    /// Git revision, empty if unknown.
    #[serde(default)]
    pub git: String,
    /// Cargo features it was built with.
    #[serde(default)]
    pub features: Vec<String>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What was decided before the first sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// `quick`, `full`.
    pub profile: String,
    /// Seed of inputs and of the order of sides.
    pub seed: u64,
    /// Every workload asked for.
    pub workloads: Vec<PlannedWorkload>,
    /// Every backend that takes part.
    pub backends: Vec<Backend>,
    /// Names of the backends the verdict depends on: the fastest Rust and the fastest C++ one that can run here,
    /// whether or not they take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Names of backends and plugins asked for one by one; each must have been compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested: Vec<String>,
    /// How many workloads the whole profile has; `workloads` may be chosen among them. 0 over a model file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub profile_workloads: u64,
    /// Fresh processes.
    pub launches: u32,
    /// Blocks per workload and launch, at most.
    pub blocks: u32,
    /// Adjacent samples of a side in a block.
    pub samples_per_block: u32,
    /// Wall time for everything, in seconds.
    pub budget_s: f64,
    /// When measuring ends: `fixed` (blocks and launches as planned).
    pub stop_rule: String,
    /// Which of the meters is judged.
    #[serde(default, skip_serializing_if = "is_wall")]
    pub meter: Meter,
    /// What counts instructions, where they are judged: `perf-event`, `callgrind`. Their counts differ.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub counter: String,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One identified piece of work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedWorkload {
    /// Its permanent id.
    pub id: String,
    /// `quantization`, `kernels`, `simd`, `mixed_precision`, `inference`, `gpu`, `build`.
    pub category: String,
    /// `core` or `secondary`.
    pub class: String,
    /// Work in one call.
    #[serde(default)]
    pub work: Work,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Work in one call of a workload; 0 where a count means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Weights touched.
    pub weights: u64,
    /// Bytes that must be read.
    pub bytes: u64,
    /// Multiplications and additions.
    pub ops: u64,
    /// Tokens.
    pub tokens: u64,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A backend's name and how it was built; empty strings where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backend {
    /// `<language>-<isa>`.
    pub name: String,
    /// "rustc", "g++".
    pub compiler: String,
    /// Its version.
    pub version: String,
    /// Flags that decide speed and rounding.
    pub flags: String,
    /// Optimisation level.
    pub optimisation: String,
    /// Identity of sources, flags and compiler together.
    pub source_hash: String,
    /// Git revision.
    pub git_revision: String,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One fresh process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Its number, from 0; series refer to it.
    pub index: u32,
    /// When it started, UTC.
    pub started: Timestamp,
    /// The CPU it was pinned to, if it was.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// Share of samples disturbed, 0 to 1 (`measure::disturbance`), where known.
    #[serde(default)]
    pub disturbance: Option<f64>,
    /// Whether a second instance of the reference was timed beside the first: a control, series `<reference>+aa`.
    #[serde(default)]
    pub aa: bool,
    /// 1: the first measurement of a workload. 2: only what looked too slow, measured afresh.
    #[serde(default = "first_stage", skip_serializing_if = "is_first_stage")]
    pub stage: u8,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The first pair outside a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstMismatch {
    /// Position in both results.
    pub index: u64,
    /// The reference's value as text; floats with their bits.
    pub expected: String,
    /// The subject's value as text; floats with their bits.
    pub actual: String,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One comparison of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgreementRow {
    /// Workload id.
    pub workload: String,
    /// The subject.
    pub backend: String,
    /// What it was compared with, empty if that is the recording's usual reference.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Required closeness.
    pub contract: Contract,
    /// Bit-equal throughout.
    pub exact: bool,
    /// Pairs compared.
    pub compared: u64,
    /// Pairs outside the contract.
    pub mismatches: u64,
    /// Present if the lengths differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_mismatch: Option<LengthMismatch>,
    /// The first pair outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_mismatch: Option<FirstMismatch>,
    /// The cause, where it could be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Measures of distance by name: `max_abs`, `max_ulps`, `incomparable`.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

impl AgreementRow {
    /// The row of one agreement.
    pub fn new(workload: &str, backend: &str, agreement: &Agreement) -> Self {
        let mut metrics = BTreeMap::from([("max_abs".to_owned(), agreement.max_abs)]);
        if let Some(ulps) = agreement.max_ulps {
            metrics.insert("max_ulps".to_owned(), ulps as f64);
        }
        if agreement.incomparable > 0 {
            metrics.insert("incomparable".to_owned(), agreement.incomparable as f64);
        }
        Self {
            workload: workload.to_owned(),
            backend: backend.to_owned(),
            reference: String::new(),
            contract: agreement.contract.clone(),
            exact: agreement.exact,
            compared: agreement.compared as u64,
            mismatches: agreement.mismatches as u64,
            length_mismatch: agreement.length_mismatch,
            first_mismatch: agreement.first_mismatch.as_ref().map(|first| FirstMismatch {
                index: first.index as u64,
                expected: first.expected.clone(),
                actual: first.actual.clone(),
                extra: Extra::new(),
            }),
            cause: None,
            metrics,
            extra: Extra::new(),
        }
    }

    /// Whether the contract was seen to hold; the rule of [`Agreement::holds`].
    pub fn holds(&self) -> bool {
        self.compared > 0 && self.length_mismatch.is_none() && self.mismatches == 0
    }
}

/// How close one backend came to the float64 product.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Workload id, or the name of the accuracy input set.
    pub workload: String,
    /// The backend.
    pub backend: String,
    /// 100 times the cosine.
    pub accuracy_percent: f64,
    /// Relative L2 error.
    pub relative_l2: f64,
    /// Signal-to-noise ratio; absent if there is no noise at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snr_db: Option<f64>,
    /// Largest absolute error.
    pub max_abs: f64,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One memory reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Workload id, empty for the whole process.
    #[serde(default)]
    pub workload: String,
    /// Backend, empty for the whole process.
    #[serde(default)]
    pub backend: String,
    /// What was read: `peak_rss_bytes`, `prepared_bytes`.
    pub meter: String,
    /// The launch it was read in; absent where that is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<u32>,
    /// The reading.
    pub value_bytes: u64,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Something asked for and not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Which part.
    pub what: String,
    /// Why not.
    pub reason: String,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}
