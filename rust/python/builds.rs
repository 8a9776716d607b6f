//! Other builds of this project, for Python.

use super::{guarded, tell, typed_error};
use crate::builds::{self, BuiltLibrary};
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

/// Adds the function to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(build_library, module)?)
}
