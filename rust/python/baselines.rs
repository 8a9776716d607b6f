//! The baseline store for Python.

use super::{guarded, json, typed_error};
use crate::record::store::{Store, platform};
use crate::record::{self, Recording};
use pyo3::prelude::*;
use std::path::{Path, PathBuf};

fn parsed(recording: &str) -> PyResult<Recording> {
    record::parse_recording(Path::new("recording"), recording.as_bytes()).map_err(|why| typed_error(&why))
}

/// Adds a recording (JSON text) to the store at `root`; returns the file's path.
#[pyfunction]
#[pyo3(signature = (root, recording, who, why, platform=None))]
fn accept_baseline(
    py: Python<'_>,
    root: PathBuf,
    recording: &str,
    who: &str,
    why: &str,
    platform: Option<&str>,
) -> PyResult<PathBuf> {
    guarded(py, || {
        Store::new(&root).accept(&parsed(recording)?, who, why, platform).map_err(|why| typed_error(&why))
    })
}

/// Every baseline below `root`, as JSON text.
#[pyfunction]
fn list_baselines(py: Python<'_>, root: PathBuf) -> PyResult<String> {
    guarded(py, || json(&Store::new(&root).list().map_err(|why| typed_error(&why))?))
}

/// Paths of the newest `most` baselines of the machine and builds of a recording or plan (JSON text), oldest first, and
/// the name of the set.
#[pyfunction]
fn find_baselines(
    py: Python<'_>,
    root: PathBuf,
    plan: &str,
    most: usize,
) -> PyResult<(String, Vec<PathBuf>)> {
    guarded(py, || {
        let plan = parsed(plan)?;
        let (platform, fingerprint) = (platform(&plan), plan.fingerprint.id());
        let found = Store::new(&root).sessions(&platform, &fingerprint, most);
        let found = found.map_err(|why| typed_error(&why))?;
        Ok((format!("{platform}/{fingerprint}"), found.into_iter().map(|(path, _)| path).collect()))
    })
}

/// Fields in which two recordings (JSON texts) differ so that they cannot be compared, as JSON text.
#[pyfunction]
fn mismatches(py: Python<'_>, earlier: &str, later: &str) -> PyResult<String> {
    guarded(py, || {
        let found = record::mismatches(&parsed(earlier)?, &parsed(later)?);
        let rows = found.iter().map(|mismatch| {
            serde_json::json!({"field": mismatch.field, "earlier": mismatch.earlier, "later": mismatch.later})
        });
        json(&rows.collect::<Vec<_>>())
    })
}

/// Adds these functions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(accept_baseline, module)?)?;
    module.add_function(wrap_pyfunction!(list_baselines, module)?)?;
    module.add_function(wrap_pyfunction!(find_baselines, module)?)?;
    module.add_function(wrap_pyfunction!(mismatches, module)?)?;
    Ok(())
}
