//! Other builds of this project, for Python.

use super::{guarded, input_error, json, tell, typed_error};
use crate::builds::{self, BuildPlan, BuiltLibrary};
use crate::campaign;
use crate::measure::{self, Compiler, Fingerprint};
use crate::record;
use pyo3::prelude::*;
use std::path::PathBuf;

/// Builds a git revision, or the working tree where `rev` is `None`, of the checkout around `folder`. Returns the library,
/// its commit, and whether the sources differ from it. `progress` as in `run`.
#[pyfunction]
#[pyo3(signature = (folder, rev=None, progress=None))]
fn build_library(
    py: Python<'_>,
    folder: PathBuf,
    rev: Option<&str>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(PathBuf, String, bool)> {
    guarded(py, || {
        let mut failure = None;
        let what = rev.map_or("building the working tree".to_owned(), |rev| format!("building {rev}"));
        let mut watcher =
            |_: &str| tell(progress.as_ref(), (0, 1, 0.0, what.as_str(), "build"), &mut failure);
        let built = match rev {
            Some(rev) => builds::build_revision(&folder, rev, &mut watcher),
            None => builds::build_working_tree(&folder, &mut watcher),
        };
        match (built, failure) {
            (_, Some(error)) => Err(error),
            (Err(builds::BuildError::Stopped(_)), None) => {
                Err(pyo3::exceptions::PyKeyboardInterrupt::new_err(()))
            }
            (Err(why), None) => Err(typed_error(&why)),
            (Ok(BuiltLibrary { path, commit, dirty }), None) => Ok((path, commit, dirty)),
        }
    })
}

/// Times clean and incremental builds of the project in `folder`. Returns a recording as JSON text; `progress` as in `run`.
#[pyfunction]
#[pyo3(signature = (folder, repeats, release=false, progress=None))]
fn time_builds(
    py: Python<'_>,
    folder: PathBuf,
    repeats: u32,
    release: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    if !(1..=1000).contains(&repeats) {
        return Err(input_error(format!("repeats is {repeats}, expected 1 to 1000")));
    }
    guarded(py, || {
        let mut failure = None;
        let mut watcher = |_: &str| {
            tell(progress.as_ref(), (0, 1, 0.0, "clean and incremental builds", "build"), &mut failure)
        };
        let plan = BuildPlan { project: folder, repeats, release };
        let timed = builds::time_builds(&plan, measure::wall_ns, &mut watcher);
        if let Some(error) = failure {
            return Err(error);
        }
        let times = timed.map_err(|why| typed_error(&why))?;
        let compiler = Compiler {
            language: format!("build of {}", times.package),
            compiler: "rustc".into(),
            version: times.rustc,
            flags: times.command,
            opt_level: if release { "release" } else { "dev" }.into(),
            ..Compiler::default()
        };
        let fingerprint = Fingerprint::of_this_machine(vec![compiler], None);
        let durations = [times.clean_ns.as_slice(), times.incremental_ns.as_slice()];
        json(&record::build_recording(campaign::tool(), fingerprint, repeats, durations, times.incomplete))
    })
}

/// Adds the functions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(build_library, module)?)?;
    module.add_function(wrap_pyfunction!(time_builds, module)?)
}
