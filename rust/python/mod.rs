//! Who may ask: the extension module `bitnet_perfgate._core`. It converts and decides nothing.
//!
//! Documents cross as JSON text: the same bytes that are written to files. Long work releases the GIL, asks for
//! signals between steps, and keeps what was measured when it is interrupted. No panic crosses: it becomes a
//! `RuntimeError` that asks for a report.

mod arrays;
mod baselines;
mod breakdown;
mod builds;
mod callables;
mod documents;
mod imports;
mod models;
mod reports;
mod runs;
mod trials;

use crate::backends;
use crate::bitnet::model::config::ModelConfig;
use crate::bitnet::model::gguf::NewFile;
use crate::bitnet::model::weights::{ModelFormat, write_model_to};
use crate::campaign;
use crate::record::{read_recording, write_recording};
use crate::workloads::catalog::Profile;
use pyo3::create_exception;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::cell::RefCell;
use std::fmt::Display;
use std::io::Write;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

create_exception!(
    bitnet_perfgate,
    InputError,
    PyValueError,
    "An argument, a file's content or a combination of options cannot be used; the message says what was expected."
);
create_exception!(
    bitnet_perfgate,
    FileError,
    PyOSError,
    "A file cannot be opened, read or written; the message names it."
);

fn input_error(why: impl Display) -> PyErr {
    InputError::new_err(why.to_string())
}

fn file_error(why: impl Display) -> PyErr {
    FileError::new_err(why.to_string())
}

/// An error chain that ends in the operating system is about a file, any other about its content.
fn typed_error(why: &(dyn std::error::Error + 'static)) -> PyErr {
    let mut source = Some(why);
    while let Some(error) = source {
        if error.is::<std::io::Error>() {
            return file_error(why);
        }
        source = error.source();
    }
    input_error(why)
}

/// Runs `work` without the GIL; a panic becomes an exception.
fn guarded<T: Send>(py: Python<'_>, work: impl FnOnce() -> PyResult<T> + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text =
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        Err(PyRuntimeError::new_err(format!("internal error, please report it: {text}")))
    })
}

fn json(document: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(document).map_err(|why| PyRuntimeError::new_err(format!("internal error: {why}")))
}

/// Asks Python for pending signals and tells `progress`; breaks when either wants to stop.
/// An exception of `progress` other than KeyboardInterrupt is kept in `failure`.
fn tell(
    progress: Option<&Py<PyAny>>,
    arguments: (usize, usize, f64, &str, &str),
    failure: &mut Option<PyErr>,
) -> ControlFlow<String> {
    Python::attach(|py| {
        let told = py
            .check_signals()
            .and_then(|()| progress.map_or(Ok(()), |call| call.call1(py, arguments).map(drop)));
        match told {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                if !error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) {
                    *failure = Some(error);
                }
                ControlFlow::Break(campaign::worker::INTERRUPTED.to_owned())
            }
        }
    })
}

/// The speed table of a recording and its verdict (JSON texts): a list of rows as JSON text.
#[pyfunction]
fn speed_table(py: Python<'_>, recording: &str, verdict: &str) -> PyResult<String> {
    guarded(py, || {
        let recording = crate::record::parse_recording(Path::new("recording"), recording.as_bytes())
            .map_err(|why| typed_error(&why))?;
        let verdict: crate::gate::Verdict =
            serde_json::from_str(verdict).map_err(|why| input_error(format!("verdict: {why}")))?;
        json(&crate::report::table::rows(&recording, &verdict))
    })
}

/// Writes a recording (JSON text) to `path`, whole or not at all.
#[pyfunction]
fn save_recording(py: Python<'_>, path: PathBuf, recording: &str) -> PyResult<()> {
    guarded(py, || {
        let recording =
            crate::record::parse_recording(&path, recording.as_bytes()).map_err(|why| typed_error(&why))?;
        write_recording(&path, &recording).map_err(|why| typed_error(&why))
    })
}

/// Reads and checks the recording at `path`. Returns it as JSON text.
#[pyfunction]
fn load_recording(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    guarded(py, || json(&read_recording(&path).map_err(|why| typed_error(&why))?))
}

/// What is available here and why not, as JSON text. `plugins` are loaded too; `ceilings` are measured if asked for, of
/// one thread and of as many as there are CPUs.
#[pyfunction]
#[pyo3(signature = (plugins=Vec::new(), ceilings=false))]
fn doctor(py: Python<'_>, plugins: Vec<PathBuf>, ceilings: bool) -> PyResult<String> {
    guarded(py, || {
        let mut known = backends::all();
        known.extend(campaign::load(&plugins).map_err(input_error)?);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if cpus > 1 { vec![1, cpus] } else { vec![1] };
        let ceilings = ceilings.then(|| campaign::measure_ceilings(&threads, None));
        json(&documents::doctor(&known, ceilings))
    })
}

/// Workloads of a profile, what its formats cannot hold, and the backends, as JSON text.
#[pyfunction]
fn workloads(py: Python<'_>, profile: &str) -> PyResult<String> {
    guarded(py, || {
        let profile = Profile::by_name(profile)
            .ok_or_else(|| input_error(format!("no profile is called {profile:?}; known: quick, full")))?;
        json(&documents::workloads(profile, &backends::all()))
    })
}

/// Which layout the ternary tensors of a GGUF file, or the bytes of a raw file of `shape` (rows, cols), are
/// consistent with, as JSON text. `tensor` limits a GGUF file to one tensor.
#[pyfunction]
#[pyo3(signature = (path, tensor=None, shape=None))]
fn identify(
    py: Python<'_>,
    path: PathBuf,
    tensor: Option<String>,
    shape: Option<(usize, usize)>,
) -> PyResult<String> {
    guarded(py, || json(&documents::identify(&path, tensor.as_deref(), shape)?))
}

/// A file whose writing ends when Python has a signal to deliver, or has raised an exception meanwhile.
struct Stoppable<'f> {
    file: &'f mut NewFile,
    stopped: &'f RefCell<Option<PyErr>>,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Err(signal) = Python::attach(|py| py.check_signals()) {
            *self.stopped.borrow_mut() = Some(signal);
        }
        if self.stopped.borrow().is_some() {
            return Err(std::io::Error::other(campaign::worker::INTERRUPTED));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Writes a synthetic model. `progress(bytes_done, bytes_total)` is called as it grows. Returns what was written, as
/// JSON text. An interruption raises KeyboardInterrupt and leaves no file, as does an exception of `progress`.
#[pyfunction]
#[pyo3(signature = (path, preset, format, seed, progress=None))]
fn make_model(
    py: Python<'_>,
    path: PathBuf,
    preset: &str,
    format: &str,
    seed: u64,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let config = ModelConfig::preset(preset).ok_or_else(|| {
        input_error(format!("no preset is called {preset:?}; known: {}", ModelConfig::PRESETS.join(", ")))
    })?;
    let format = ModelFormat::by_name(format).ok_or_else(|| {
        let known = ModelFormat::ALL.map(ModelFormat::name).join(", ");
        input_error(format!("no model format is called {format:?}; known: {known}"))
    })?;
    guarded(py, move || {
        let stopped = RefCell::new(None);
        let mut tell = |done: u64, total: u64| {
            let told = progress.as_ref().map(|call| Python::attach(|py| call.call1(py, (done, total))));
            if let Some(Err(exception)) = told {
                *stopped.borrow_mut() = Some(exception);
            }
        };
        let mut file = NewFile::create(&path).map_err(|why| typed_error(&why))?;
        let mut stoppable = Stoppable { file: &mut file, stopped: &stopped };
        let result = write_model_to(&config, format, seed, &mut stoppable, &mut tell);
        if let Some(exception) = stopped.into_inner() {
            return Err(exception);
        }
        let written = result.map_err(|why| typed_error(&why))?;
        file.commit().map_err(|why| typed_error(&why))?;
        json(&documents::written(&path, &config, format, seed, &written))
    })
}

/// The module.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("InputError", module.py().get_type::<InputError>())?;
    module.add("FileError", module.py().get_type::<FileError>())?;
    arrays::register(module)?;
    baselines::register(module)?;
    breakdown::register(module)?;
    builds::register(module)?;
    models::register(module)?;
    imports::register(module)?;
    reports::register(module)?;
    runs::register(module)?;
    trials::register(module)?;
    module.add_function(wrap_pyfunction!(speed_table, module)?)?;
    module.add_function(wrap_pyfunction!(save_recording, module)?)?;
    module.add_function(wrap_pyfunction!(load_recording, module)?)?;
    module.add_function(wrap_pyfunction!(doctor, module)?)?;
    module.add_function(wrap_pyfunction!(workloads, module)?)?;
    module.add_function(wrap_pyfunction!(identify, module)?)?;
    module.add_function(wrap_pyfunction!(make_model, module)?)?;
    Ok(())
}
