//! Python callables as backends: integer products of prepared weights, computed by a function that somebody wrote in
//! Python, and compared and timed like any other.
//!
//! ```text
//! prepare     copy the packed bytes into an array; the face makes PackedWeights of it, and whatever `prepare` returns
//! product     take the interpreter lock; copy q into a new array [n, cols]; call; check that an int32 array [n, rows] came
//!             back; copy it out
//! empty call  the same with a function that returns an array made before: what the crossing costs
//! ```
//! The array is a new one each time: a callable may keep it, or write to it. What a callable raises becomes a
//! [`BackendError`] that names the exception and its line; nothing of it is a result. An interruption is handed back to
//! the interpreter, where whoever waits for the campaign asks for it.

use crate::backends::{Availability, Backend, BackendError, BuildInfo, Matmul, WeightRule};
use crate::bitnet::formats::{Layout, Weights};
use crate::campaign::Brought;
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray2, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::sync::Arc;

/// The instruction set that a callable's products are listed under: whose it is, is not known.
const ISA: &str = "python";

/// A `CallableBackend` of the face.
pub(super) struct Callable {
    name: String,
    build: BuildInfo,
    /// `_prepared(format, shape, tile, bytes)`, `matmul(prepared, x)`, `_empty(n, rows)`.
    face: Py<PyAny>,
}

impl Callable {
    /// Reads name and build of the face's object.
    pub(super) fn of(face: &Bound<'_, PyAny>) -> PyResult<Self> {
        let text = |key: &str| face.getattr("_build")?.get_item(key)?.extract::<String>();
        let build = BuildInfo {
            compiler: text("compiler")?,
            version: text("version")?,
            flags: text("flags")?,
            optimisation: text("optimisation")?,
            source_hash: text("source_hash")?,
            git_revision: String::new(),
        };
        Ok(Self { name: face.getattr("name")?.extract()?, build, face: face.clone().unbind() })
    }

    fn unsupported(&self, what: impl Into<String>) -> BackendError {
        BackendError::Unsupported { backend: self.name.clone(), what: what.into() }
    }

    fn failed(&self, what: String) -> BackendError {
        BackendError::Internal { backend: self.name.clone(), what }
    }
}

/// Those that were brought to this process, found by name.
pub(super) fn among(
    callables: &[Arc<Callable>],
) -> impl Fn(&Brought) -> Result<Arc<dyn Backend>, String> + '_ {
    |brought| {
        let found = callables.iter().find(|callable| callable.name == brought.name);
        let found = found.ok_or_else(|| "it was not handed over with the options".to_owned())?;
        Ok(Arc::clone(found) as Arc<dyn Backend>)
    }
}

/// Asks the face for what was brought to another process: `find(name, address)`.
pub(super) fn found_by(find: &Py<PyAny>) -> impl Fn(&Brought) -> Result<Arc<dyn Backend>, String> + '_ {
    |Brought { name, address }| {
        Python::attach(|py| {
            let found = find.bind(py).call1((name, address)).and_then(|face| Callable::of(&face));
            found.map(|callable| Arc::new(callable) as Arc<dyn Backend>).map_err(|why| described(py, &why))
        })
    }
}

impl Backend for Callable {
    fn name(&self) -> &str {
        &self.name
    }

    fn isa(&self) -> &str {
        ISA
    }

    fn build_info(&self) -> BuildInfo {
        self.build.clone()
    }

    fn availability(&self) -> Availability {
        Availability::Ready
    }

    fn quantize_weights(
        &self,
        _: &Layout,
        _: WeightRule,
        _: &[f32],
        _: &mut [u8],
    ) -> Result<f32, BackendError> {
        Err(self.unsupported("quantisation: a callable computes products"))
    }

    fn dequantize_weights(&self, _: &Weights<'_>, _: &mut [f32]) -> Result<(), BackendError> {
        Err(self.unsupported("dequantisation: a callable computes products"))
    }

    fn quantize_activations(
        &self,
        _: &[f32],
        _: usize,
        _: &mut [i8],
        _: &mut [f32],
        _: &mut [i32],
    ) -> Result<(), BackendError> {
        Err(self.unsupported("quantisation of activations: a callable computes products"))
    }

    fn prepare_matmul<'a>(
        &'a self,
        weights: Weights<'a>,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn Matmul + 'a>, BackendError> {
        if threads != 1 {
            return Err(self.unsupported(format!("{threads} threads: a callable is called on one")));
        }
        let layout = *weights.layout();
        Python::attach(|py| {
            let face = self.face.bind(py);
            let ready = || -> PyResult<_> {
                let shape = (layout.rows(), layout.cols());
                let tile = layout.tile().map(|tile| (tile.bm, tile.bk, tile.by));
                let bytes = PyArray1::from_slice(py, weights.bytes());
                let arguments = (layout.format().name(), shape, tile, bytes);
                let prepared = face.call_method1("_prepared", arguments)?;
                let empty = face.call_method1("_empty", (n_max, layout.rows()))?;
                Ok((prepared.unbind(), face.getattr("matmul")?.unbind(), empty.unbind()))
            };
            let (prepared, matmul, empty) =
                ready().map_err(|why| self.failed(format!("prepare: {}", described(py, &why))))?;
            let product = Product { of: self, layout, n_max, prepared, matmul, empty };
            Ok(Box::new(product) as Box<dyn Matmul + 'a>)
        })
    }
}

struct Product<'a> {
    of: &'a Callable,
    layout: Layout,
    n_max: usize,
    prepared: Py<PyAny>,
    matmul: Py<PyAny>,
    empty: Py<PyAny>,
}

impl Product<'_> {
    fn call(&self, function: &Py<PyAny>, q: &[i8], out: &mut [i32]) -> Result<(), BackendError> {
        let (rows, cols) = (self.layout.rows(), self.layout.cols());
        let n = (q.len() / cols).min(self.n_max);
        for (what, actual, expected) in [("q", q.len(), n * cols), ("out", out.len(), n * rows)] {
            if actual != expected {
                return Err(BackendError::Length { what, expected, actual });
            }
        }
        if n == 0 {
            return Ok(());
        }
        Python::attach(|py| {
            let x = PyArray1::from_slice(py, q).reshape([n, cols]);
            let result = x.and_then(|x| function.bind(py).call1((&self.prepared, x)));
            result.map_err(|why| described(py, &why)).and_then(|result| copied(&result, [n, rows], out))
        })
        .map_err(|why| self.of.failed(why))
    }
}

impl Matmul for Product<'_> {
    fn matmul_i8_i32(&mut self, q: &[i8], out: &mut [i32]) -> Result<(), BackendError> {
        self.call(&self.matmul, q, out)
    }

    fn linear_f32_f32(&mut self, _: &[f32], _: &mut [f32]) -> Result<(), BackendError> {
        Err(self.of.unsupported("whole linear layers: a callable computes integer products"))
    }

    fn empty_call(&mut self, q: &[i8], out: &mut [i32]) -> Option<Result<(), BackendError>> {
        Some(self.call(&self.empty, q, out))
    }
}

/// Copies an int32 array of that shape, or says what came instead.
fn copied(result: &Bound<'_, PyAny>, shape: [usize; 2], out: &mut [i32]) -> Result<(), String> {
    let wrong = || {
        let text = |value: PyResult<Bound<'_, PyAny>>| value.map(|value| value.to_string());
        let what = match (text(result.getattr("dtype")), text(result.getattr("shape"))) {
            (Ok(dtype), Ok(shape)) => format!("{dtype} of shape {shape}"),
            _ => format!("a {}", result.get_type()),
        };
        format!("returned {what}, expected int32 of shape ({}, {})", shape[0], shape[1])
    };
    // A masked array is one of numpy's to `extract`, which would take what the mask hides for results.
    if !result.is_exact_instance_of::<PyUntypedArray>() && masked(result) {
        return Err("returned a masked array: say what the masked values are, with .filled(0)".into());
    }
    let array: PyReadonlyArray2<'_, i32> = result.extract().map_err(|_| wrong())?;
    if array.shape() != shape {
        return Err(wrong());
    }
    match array.as_slice() {
        Ok(values) if array.is_c_contiguous() => out.copy_from_slice(values),
        // Another order, or unaligned: numpy knows how to read it.
        _ => {
            let ordered = result.call_method1("copy", ("C",)).and_then(|copy| {
                let copy: PyReadonlyArray2<'_, i32> = copy.extract()?;
                // A subclass may call anything its copy.
                let same = copy.shape() == shape && copy.is_c_contiguous();
                if same {
                    out.copy_from_slice(copy.as_slice()?);
                }
                Ok(same)
            });
            if !ordered.map_err(|why| described(result.py(), &why))? {
                return Err(wrong());
            }
        }
    }
    Ok(())
}

fn masked(result: &Bound<'_, PyAny>) -> bool {
    let class = result.py().import("numpy.ma").and_then(|module| module.getattr("MaskedArray"));
    class.and_then(|class| result.is_instance(&class)).unwrap_or(false)
}

/// An exception in one line: its type, its text, and where it was raised. An interruption is raised again as soon as the
/// interpreter is asked for signals.
fn described(py: Python<'_>, why: &PyErr) -> String {
    let text: String = why.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let line = text + &place_of(py, why).unwrap_or_default();
    // Last: whatever runs in the interpreter from here on is interrupted.
    if why.is_instance_of::<PyKeyboardInterrupt>(py) {
        // Where that cannot be, the exception is still the reason that is given here.
        let _ = py.import("_thread").and_then(|thread| thread.call_method0("interrupt_main"));
    }
    line
}

/// ` (file, line 3)` of the innermost frame of an exception; `None` where it has none.
fn place_of(py: Python<'_>, why: &PyErr) -> Option<String> {
    let mut innermost = why.traceback(py)?.into_any();
    while let Some(next) = innermost.getattr("tb_next").ok().filter(|next| !next.is_none()) {
        innermost = next;
    }
    let code = innermost.getattr("tb_frame").and_then(|frame| frame.getattr("f_code"));
    let file: String = code.and_then(|code| code.getattr("co_filename")?.extract()).ok()?;
    Some(format!(" ({file}, line {})", innermost.getattr("tb_lineno").ok()?))
}
