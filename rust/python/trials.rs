//! Trials measured elsewhere, for Python.

use super::{guarded, input_error, json};
use crate::gate::Policy;
use crate::gate::trial::{Calibration, TrialPolicy, judge_trial};
use crate::record::trial::Trial;
use pyo3::prelude::*;
use serde_json::Value;

/// Judges trials (JSON texts) by one policy and one calibration.
#[pyclass(frozen)]
struct TrialJudge {
    policy: TrialPolicy,
    calibration: Calibration,
}

/// Parses a text that `name` calls by its place.
fn parsed(text: &str, name: &str) -> PyResult<Value> {
    serde_json::from_str(text).map_err(|why| input_error(format!("{name}: is no JSON: {why}")))
}

#[pymethods]
impl TrialJudge {
    /// `calibration` is the text of a calibration document, `calibration_name` what errors call it.
    #[new]
    #[pyo3(signature = (margin, strict=false, calibration=None, calibration_name="calibration"))]
    fn new(
        py: Python<'_>,
        margin: f64,
        strict: bool,
        calibration: Option<&str>,
        calibration_name: &str,
    ) -> PyResult<Self> {
        if !(margin > 0.0 && margin <= 10.0) {
            return Err(input_error(format!("margin is {margin}, expected above 0 and at most 10 (1000 %)")));
        }
        guarded(py, || {
            let trials = match calibration {
                None => Vec::new(),
                Some(text) => Trial::calibration(&parsed(text, calibration_name)?)
                    .map_err(|why| input_error(format!("{calibration_name}: at {why}")))?,
            };
            let defaults = Policy::default();
            let policy = TrialPolicy { margin, alpha: defaults.alpha, strict, edges: defaults.severity };
            Ok(Self { policy, calibration: Calibration::of(&trials) })
        })
    }

    /// The answer on one trial as JSON text; `name` is what errors call it.
    fn judge(&self, py: Python<'_>, trial: &str, name: &str) -> PyResult<String> {
        guarded(py, || {
            let trial = Trial::from_json(&parsed(trial, name)?)
                .map_err(|why| input_error(format!("{name}: at {why}")))?;
            json(&judge_trial(&trial, &self.calibration, &self.policy))
        })
    }
}

/// Adds the class to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TrialJudge>()
}
