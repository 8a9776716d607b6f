//! Samples measured elsewhere: a trial is two arrays of times, with whatever else is known of how they were taken.
//!
//! ```text
//! {"baseline": [ns...], "candidate": [ns...],                       required: time of each sample, in the order taken
//!  "baseline_cpu": [ns...], "candidate_cpu": [ns...],               CPU time of the same samples
//!  "launch": [0, 0, 1, ...], "order": [...], "mode": "intpin", "id": ...}
//! ```
//!
//! `launch` has an entry per sample, the same for both sides. `order` may be anything per sample or pair: that it is
//! there says that the sides alternated. Unknown fields are kept. A calibration file is `{"trials": [...]}`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Samples of one side beyond this are refused.
pub const MAX_SAMPLES: usize = 4_000_000;

/// How the samples of both sides were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All of one side, then all of the other.
    Seq,
    /// Alternating between two live processes that float over the CPUs.
    Int,
    /// Alternating, both on one CPU.
    IntPin,
    /// Alternating on one CPU, in several launches.
    #[serde(rename = "int5pin")]
    Int5Pin,
    /// At the same time, each on a CPU of its own.
    Duet,
}

impl Mode {
    /// Whether sample i of both sides belong together.
    pub fn paired(self) -> bool {
        self != Self::Seq
    }

    /// The name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seq => "seq",
            Self::Int => "int",
            Self::IntPin => "intpin",
            Self::Int5Pin => "int5pin",
            Self::Duet => "duet",
        }
    }
}

/// Why a document is no trial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct TrialError {
    /// Where in the document.
    pub place: String,
    /// What stands there and what was expected.
    pub what: String,
}

fn refuse<T>(place: &str, what: impl Into<String>) -> Result<T, TrialError> {
    Err(TrialError { place: place.to_owned(), what: what.into() })
}

/// One side of a trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrialSide {
    /// Wall time of each sample in ns, positive.
    pub wall_ns: Vec<f64>,
    /// CPU time of each sample in ns, positive, where it was given and is usable.
    pub cpu_ns: Option<Vec<f64>>,
}

/// Two sides measured elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The old one.
    pub baseline: TrialSide,
    /// The new one.
    pub candidate: TrialSide,
    /// Launch of each sample, numbered from 0 in order of appearance; empty: one launch.
    pub launch: Vec<u32>,
    /// How they were taken; `None` if that is not said and cannot be told.
    pub mode: Option<Mode>,
    /// Echoed in the answer.
    pub id: Option<Value>,
}

impl Trial {
    /// Reads a trial from a JSON value.
    ///
    /// # Errors
    /// [`TrialError`] with the place.
    pub fn from_json(value: &Value) -> Result<Self, TrialError> {
        let Value::Object(fields) = value else { return refuse(".", "is no object, expected a trial") };
        let baseline = side(fields, "baseline", "baseline_cpu")?;
        let candidate = side(fields, "candidate", "candidate_cpu")?;
        let launch = launches(fields, &baseline, &candidate)?;
        let ordered = alternated(fields)?;
        let mode = match fields.get("mode") {
            None | Some(Value::Null) => None,
            Some(name) => match serde_json::from_value(name.clone()) {
                Ok(mode) => Some(mode),
                Err(_) => {
                    return refuse("mode", format!("is {name}, expected seq, int, intpin, int5pin or duet"));
                }
            },
        };
        // That an order is given says that the sides took turns; on which CPUs is not known.
        let mode = mode.or(if ordered { Some(Mode::Int) } else { None });
        let (n, m) = (baseline.wall_ns.len(), candidate.wall_ns.len());
        if n != m && mode.is_some_and(Mode::paired) {
            return refuse(
                "candidate",
                format!("has {m} samples, baseline {n}; samples taken in turns come in pairs"),
            );
        }
        Ok(Self { baseline, candidate, launch, mode, id: fields.get("id").cloned() })
    }

    /// Reads a calibration document: earlier trials of two equal sides.
    ///
    /// # Errors
    /// [`TrialError`] with the place.
    pub fn calibration(value: &Value) -> Result<Vec<Self>, TrialError> {
        let trials = value.get("trials").and_then(Value::as_array).or(value.as_array());
        let Some(trials) = trials else { return refuse("trials", "is missing, expected a list of trials") };
        let numbered = trials.iter().enumerate().map(|(i, trial)| {
            Self::from_json(trial)
                .map_err(|why| TrialError { place: format!("trials[{i}].{}", why.place), ..why })
        });
        numbered.collect()
    }

    /// Share of samples whose wall time exceeds their CPU time by more than 2 %; `None` without CPU times.
    pub fn disturbance(&self) -> Option<f64> {
        let sides = [&self.baseline, &self.candidate];
        let mut disturbed = 0;
        let mut n = 0;
        for side in sides {
            let cpu = side.cpu_ns.as_ref()?;
            disturbed += side.wall_ns.iter().zip(cpu).filter(|(wall, cpu)| **wall > 1.02 * **cpu).count();
            n += cpu.len();
        }
        (n > 0).then(|| disturbed as f64 / n as f64)
    }
}

fn side(fields: &Map<String, Value>, wall: &str, cpu: &str) -> Result<TrialSide, TrialError> {
    let Some(wall_values) = fields.get(wall) else {
        return refuse(wall, "is missing, expected a list of times in ns");
    };
    let wall_ns = times(wall_values, wall)?;
    if let Some(i) = wall_ns.iter().position(|ns| *ns <= 0.0) {
        return refuse(&format!("{wall}[{i}]"), format!("is {}, expected a positive time in ns", wall_ns[i]));
    }
    let cpu_ns = match fields.get(cpu) {
        None | Some(Value::Null) => None,
        Some(values) => {
            let cpu_ns = times(values, cpu)?;
            if cpu_ns.len() != wall_ns.len() {
                let what = format!("has {} entries, {wall} has {}", cpu_ns.len(), wall_ns.len());
                return refuse(cpu, what);
            }
            // A clock too coarse for the samples reads 0: such times cannot be compared, and wall time is used.
            Some(cpu_ns).filter(|cpu_ns| cpu_ns.iter().all(|ns| *ns > 0.0))
        }
    };
    Ok(TrialSide { wall_ns, cpu_ns })
}

fn times(value: &Value, place: &str) -> Result<Vec<f64>, TrialError> {
    let Value::Array(items) = value else { return refuse(place, "is no list, expected times in ns") };
    if items.len() > MAX_SAMPLES {
        return refuse(place, format!("has {} entries, expected at most {MAX_SAMPLES}", items.len()));
    }
    let number = |(i, item): (usize, &Value)| match item.as_f64() {
        Some(ns) if ns.is_finite() && ns >= 0.0 => Ok(ns),
        _ => {
            let shown: String = item.to_string().chars().take(60).collect();
            refuse(&format!("{place}[{i}]"), format!("is {shown}, expected a time in ns"))
        }
    };
    items.iter().enumerate().map(number).collect()
}

fn launches(
    fields: &Map<String, Value>,
    baseline: &TrialSide,
    candidate: &TrialSide,
) -> Result<Vec<u32>, TrialError> {
    let items = match fields.get("launch") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        // One launch for all.
        Some(Value::Number(_) | Value::String(_)) => return Ok(Vec::new()),
        Some(_) => return refuse("launch", "is no list, expected the launch of each sample"),
    };
    let n = baseline.wall_ns.len();
    if items.len() != n || candidate.wall_ns.len() != n {
        let what =
            format!("has {} entries, expected one for each of the {n} samples of either side", items.len());
        return refuse("launch", what);
    }
    let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
    let number = |(i, item): (usize, &Value)| match item {
        Value::Number(_) | Value::String(_) => {
            let next = numbers.len() as u32;
            Ok(*numbers.entry(item.to_string()).or_insert(next))
        }
        _ => refuse(&format!("launch[{i}]"), "is neither a number nor a name"),
    };
    items.iter().enumerate().map(number).collect()
}

/// Whether an order of turns is given.
fn alternated(fields: &Map<String, Value>) -> Result<bool, TrialError> {
    match fields.get("order") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::String(_)) => Ok(true),
        Some(Value::Array(items)) => {
            let scalar = |item: &Value| !matches!(item, Value::Object(_) | Value::Null);
            match items.iter().position(|item| !scalar(item)) {
                Some(i) => refuse(&format!("order[{i}]"), "is no turn, such as 0, 1, \"AB\" or \"BA\""),
                None => Ok(!items.is_empty()),
            }
        }
        Some(_) => refuse("order", "is no list, expected the turns of the sides"),
    }
}
