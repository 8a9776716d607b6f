//! Another tool's results, for Python.

use super::{guarded, input_error, json, typed_error};
use crate::campaign;
use crate::gate::{self, ImportedCase, Policy};
use crate::record::import::{ImportOptions, Source, import};
use crate::record::read_recording;
use pyo3::prelude::*;
use serde::Deserialize;
use std::path::PathBuf;

/// Reads the files of one tool, each a launch of its own; `tool` forces whose they are, `saved` chooses in a criterion
/// tree. Returns the recording as JSON text.
#[pyfunction]
#[pyo3(signature = (paths, tool=None, saved="new"))]
fn import_results(py: Python<'_>, paths: Vec<PathBuf>, tool: Option<&str>, saved: &str) -> PyResult<String> {
    let from = tool.map(|name| {
        Source::by_name(name).ok_or_else(|| {
            let known = Source::ALL.map(Source::name).join(", ");
            input_error(format!("no importer is called {name:?}; known: {known}"))
        })
    });
    let options = ImportOptions { from: from.transpose()?, saved: saved.to_owned(), tool: campaign::tool() };
    guarded(py, || json(&import(&paths, &options).map_err(|why| typed_error(&why))?))
}

/// How two imported recordings are judged.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportedJudgement {
    thresholds: Option<PathBuf>,
    strict: bool,
    map: Vec<(String, String)>,
    same_machine: bool,
}

/// Judges the imported recording at `later` against the one at `earlier`. Returns the verdict as JSON text.
#[pyfunction]
fn judge_imported(py: Python<'_>, earlier: PathBuf, later: PathBuf, judgement: &str) -> PyResult<String> {
    let judgement: ImportedJudgement =
        serde_json::from_str(judgement).map_err(|why| input_error(format!("judgement: {why}")))?;
    guarded(py, || {
        let (mut policy, source) = match &judgement.thresholds {
            Some(path) => (Policy::read(path).map_err(|why| typed_error(&why))?, path.display().to_string()),
            None => (Policy::default(), "defaults".to_owned()),
        };
        policy.strict |= judgement.strict;
        let read = |path: &PathBuf| read_recording(path).map_err(|why| typed_error(&why));
        let (earlier, later) = (read(&earlier)?, read(&later)?);
        let case = ImportedCase {
            earlier: &earlier,
            later: &later,
            map: &judgement.map,
            same_machine: judgement.same_machine,
            policy: &policy,
            policy_source: &source,
        };
        json(&gate::judge_imported(&case).map_err(input_error)?)
    })
}

/// Adds these functions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(import_results, module)?)?;
    module.add_function(wrap_pyfunction!(judge_imported, module)?)?;
    Ok(())
}
