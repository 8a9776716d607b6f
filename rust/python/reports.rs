//! Renderings of a recording and its verdict, for Python.

use super::{guarded, json, typed_error};
use crate::gate::Verdict;
use crate::gate::reading::{self, blocks};
use crate::record::{self, Recording};
use crate::report::{junit, markdown, sections};
use pyo3::prelude::*;
use std::path::{Path, PathBuf};

fn documents(recording: &str, verdict: &str) -> PyResult<(Recording, Verdict)> {
    let recording = record::parse_recording(Path::new("recording"), recording.as_bytes())
        .map_err(|why| typed_error(&why))?;
    let path = Path::new("verdict");
    let verdict = reading::parse_verdict(path, verdict.as_bytes()).map_err(|why| typed_error(&why))?;
    reading::check_belongs(path, &verdict, &recording).map_err(|why| typed_error(&why))?;
    Ok((recording, verdict))
}

/// Reads the verdict at `path`, and refuses one that does not belong to `recording` (JSON text). Returns its
/// JSON text as it stands there.
#[pyfunction]
fn load_verdict(py: Python<'_>, path: PathBuf, recording: &str) -> PyResult<String> {
    guarded(py, || {
        let recording = record::parse_recording(Path::new("recording"), recording.as_bytes())
            .map_err(|why| typed_error(&why))?;
        let (verdict, text) = reading::read_verdict(&path).map_err(|why| typed_error(&why))?;
        reading::check_belongs(&path, &verdict, &recording).map_err(|why| typed_error(&why))?;
        Ok(text)
    })
}

/// The name of the recording that the verdict at `path` is about, if it says one.
#[pyfunction]
fn recording_of(py: Python<'_>, path: PathBuf) -> PyResult<Option<String>> {
    guarded(py, || Ok(reading::read_verdict(&path).map_err(|why| typed_error(&why))?.0.recording))
}

/// The sections of the report of a recording and its verdict (JSON texts), as JSON text.
#[pyfunction]
fn report_sections(py: Python<'_>, recording: &str, verdict: &str) -> PyResult<String> {
    guarded(py, || {
        let (recording, verdict) = documents(recording, verdict)?;
        json(&sections::report(&recording, &verdict))
    })
}

/// The report as Markdown.
#[pyfunction]
fn report_markdown(py: Python<'_>, recording: &str, verdict: &str) -> PyResult<String> {
    guarded(py, || {
        let (recording, verdict) = documents(recording, verdict)?;
        Ok(markdown::render(&sections::report(&recording, &verdict)))
    })
}

/// The answers as JUnit XML.
#[pyfunction]
fn report_junit(py: Python<'_>, recording: &str, verdict: &str) -> PyResult<String> {
    guarded(py, || {
        let (recording, verdict) = documents(recording, verdict)?;
        Ok(junit::render(&recording, &verdict))
    })
}

/// The blocks behind each comparison of the verdict, in its order, as JSON text: lists of `launch` and `ratio`.
#[pyfunction]
fn comparison_blocks(py: Python<'_>, recording: &str, verdict: &str) -> PyResult<String> {
    guarded(py, || {
        let (recording, verdict) = documents(recording, verdict)?;
        json(&verdict.comparisons.iter().map(|row| blocks(&recording, row)).collect::<Vec<_>>())
    })
}

/// Adds these functions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(load_verdict, module)?)?;
    module.add_function(wrap_pyfunction!(recording_of, module)?)?;
    module.add_function(wrap_pyfunction!(report_sections, module)?)?;
    module.add_function(wrap_pyfunction!(report_markdown, module)?)?;
    module.add_function(wrap_pyfunction!(report_junit, module)?)?;
    module.add_function(wrap_pyfunction!(comparison_blocks, module)?)?;
    Ok(())
}
