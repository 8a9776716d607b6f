//! Samples measured elsewhere, for Python: JSON text or a file in, JSON text out.

use super::{guarded, input_error, json, typed_error};
use crate::gate::Policy;
use crate::gate::trial::{self, TrialRules};
use crate::record::{self, Trial, TrialLines};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Mutex;

/// Judges trials by one set of rules and one calibration.
#[pyclass(frozen, module = "bitnet_perfgate._core")]
struct TrialJudge(trial::TrialJudge);

#[pymethods]
impl TrialJudge {
    /// `margin` is a share, 0.05 is 5 %. The calibration is JSON text or a file, not both.
    #[new]
    #[pyo3(signature = (margin, strict, calibration=None, calibration_path=None))]
    fn new(
        py: Python<'_>,
        margin: f64,
        strict: bool,
        calibration: Option<String>,
        calibration_path: Option<PathBuf>,
    ) -> PyResult<Self> {
        if !(margin > 0.0 && margin <= 10.0) {
            return Err(input_error(format!(
                "margin is {margin}, expected a share above 0 and at most 10: 0.05 is 5 %"
            )));
        }
        guarded(py, || {
            let trials = match (&calibration, &calibration_path) {
                (Some(text), None) => record::parse_calibration("calibration", text.as_bytes()),
                (None, Some(path)) => record::read_calibration(path),
                (None, None) => Ok(Vec::new()),
                (Some(_), Some(_)) => {
                    return Err(input_error("calibration: expected a text or a path, got both"));
                }
            };
            let trials = trials.map_err(|why| typed_error(&why))?;
            let policy = Policy::default();
            let rules = TrialRules { margin, strict, alpha: policy.alpha, edges: policy.severity };
            Ok(Self(trial::TrialJudge::new(rules, &trials).map_err(|why| typed_error(&why))?))
        })
    }

    /// Judges one trial given as JSON text.
    fn judge_text(&self, py: Python<'_>, trial: &str) -> PyResult<String> {
        guarded(py, || {
            let trial = record::parse_trial("trial", trial.as_bytes());
            self.answer(&trial.map_err(|why| typed_error(&why))?)
        })
    }

    /// Judges the trial in a file.
    fn judge_file(&self, py: Python<'_>, path: PathBuf) -> PyResult<String> {
        guarded(py, || self.answer(&record::read_trial(&path).map_err(|why| typed_error(&why))?))
    }

    /// Judges a file of JSON lines, one by one as it is iterated.
    fn judge_lines(slf: Bound<'_, Self>, path: PathBuf) -> PyResult<TrialAnswers> {
        let lines = TrialLines::open(&path).map_err(|why| typed_error(&why))?;
        Ok(TrialAnswers { judge: slf.unbind(), lines: Mutex::new(lines) })
    }
}

impl TrialJudge {
    fn answer(&self, trial: &Trial) -> PyResult<String> {
        json(&self.0.judge(trial).map_err(|why| typed_error(&why))?)
    }
}

/// Answers to the lines of a file.
#[pyclass(frozen, module = "bitnet_perfgate._core")]
struct TrialAnswers {
    judge: Py<TrialJudge>,
    lines: Mutex<TrialLines>,
}

#[pymethods]
impl TrialAnswers {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        guarded(py, || {
            let next = self.lines.lock().map_err(|why| input_error(format!("trials: {why}")))?.next();
            let Some(trial) = next else { return Ok(None) };
            Ok(Some(self.judge.get().answer(&trial.map_err(|why| typed_error(&why))?)?))
        })
    }
}

/// Adds these classes to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TrialJudge>()?;
    module.add_class::<TrialAnswers>()?;
    Ok(())
}
