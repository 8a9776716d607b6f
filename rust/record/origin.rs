//! Where another tool's numbers came from: what its files say of the machine and of each benchmark, kept in its words.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::recording::Extra;

/// Another tool measured; its files were imported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Which one: `criterion`, `hyperfine`, ...
    pub tool: String,
    /// Names of the files; file i is launch i.
    pub files: Vec<String>,
    /// Of a criterion tree: `new`, `base`, or the name of a saved baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<String>,
    /// What tells one machine from another, by the tool's own field names. Files that differ here are not compared.
    #[serde(default)]
    pub machine: BTreeMap<String, String>,
    /// Whatever else the files say of the whole.
    #[serde(default)]
    pub configuration: Extra,
    /// By workload id.
    #[serde(default)]
    pub benchmarks: BTreeMap<String, ImportedBenchmark>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One benchmark of another tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportedBenchmark {
    /// Its own name there; the workload id is this behind the tool's prefix.
    pub name: String,
    /// What decides the work: two results that differ here measured different things.
    #[serde(default)]
    pub setting: Extra,
    /// Whatever else the file says of it.
    #[serde(default)]
    pub notes: Extra,
    /// What is known where the file holds no samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Why it looks computed, not measured; then it is no evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<String>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A result without its samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// `mean`, `median`, or `single` for a number that is not said to be either.
    pub statistic: String,
    /// `ns` per call (times are converted), `tokens/s`, or the file's own unit.
    pub unit: String,
    /// Whether more is better: a rate.
    #[serde(default)]
    pub rate: bool,
    /// The value, positive.
    pub value: f64,
    /// Standard deviation of single samples, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stddev: Option<f64>,
    /// Samples behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}
