//! Weights and activations as numpy arrays. Inputs are borrowed where they lie and results are written straight into
//! arrays that the face has made; dtypes, shapes and memory order are the face's to arrange and explain, and are only
//! checked here. Other Python threads run meanwhile: none of them may write to an input.

use super::models::chosen;
use super::{guarded, input_error};
use crate::backends::{self, Backend, BackendError, Matmul, WeightRule};
use crate::bitnet::formats::{self, FormatError, Layout, Tile, WeightFormat, Weights};
use crate::bitnet::model::FloatType;
use crate::bitnet::model::gguf::TensorType;
use numpy::{Element, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray1, PyReadwriteArray2};
use numpy::{PyUntypedArrayMethods, ndarray::Dimension};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use std::sync::Arc;

/// BM, BK and BY.
type TileSides = (usize, usize, usize);

/// The `PackedWeights` of the face, read by attribute.
#[derive(FromPyObject)]
struct Packed<'py> {
    bytes: PyReadonlyArray1<'py, u8>,
    format: String,
    shape: (usize, usize),
    tile: Option<TileSides>,
}

impl Packed<'_> {
    fn weights(&self) -> PyResult<Weights<'_>> {
        let layout = layout_of(&self.format, self.shape, self.tile)?;
        Weights::new(layout, in_order(self.bytes.as_slice())?).map_err(input_error)
    }
}

/// The layout of that name and shape; without a tile the published one.
fn layout_of(format: &str, (rows, cols): (usize, usize), tile: Option<TileSides>) -> PyResult<Layout> {
    let known = || WeightFormat::ALL.map(WeightFormat::name).join(", ");
    let format = WeightFormat::by_name(format)
        .ok_or_else(|| input_error(format!("no format is called {format:?}; known: {}", known())))?;
    let layout = match tile {
        None => Layout::published(format, rows, cols),
        Some((bm, bk, by)) => Layout::from_parts(format, rows, cols, Some(Tile { bm, bk, by })),
    };
    layout.map_err(input_error)
}

fn rule_of(name: &str) -> PyResult<WeightRule> {
    match name {
        "absmean" => Ok(WeightRule::AbsMean),
        "maxabs" => Ok(WeightRule::MaxAbs),
        other => Err(input_error(format!("no rule is called {other:?}; known: absmean, maxabs"))),
    }
}

/// The backend of that name, or the fastest Rust one here.
fn backend_of(name: Option<&str>) -> PyResult<Arc<dyn Backend>> {
    chosen(&backends::all(), name, "rust-")
}

fn in_order<T, E>(slice: Result<T, E>) -> PyResult<T> {
    slice.map_err(|_| input_error("an array is not contiguous and aligned; see numpy.require"))
}

/// One array of a matrix's shape, its rows one after the other.
fn row_major<'a, T: Element, D: Dimension>(array: &'a numpy::PyReadonlyArray<'_, T, D>) -> PyResult<&'a [T]> {
    // numpy takes columns one after the other for contiguous, too.
    in_order(if array.is_c_contiguous() { Ok(()) } else { Err(()) })?;
    in_order(array.as_slice())
}

fn row_major_mut<'a, T: Element, D: Dimension>(
    array: &'a mut numpy::PyReadwriteArray<'_, T, D>,
) -> PyResult<&'a mut [T]> {
    in_order(if array.is_c_contiguous() { Ok(()) } else { Err(()) })?;
    in_order(array.as_slice_mut())
}

/// What a backend says, for a matrix `what` of `cols` columns.
fn refused(why: BackendError, what: &str, cols: usize) -> PyErr {
    match why {
        BackendError::NonFinite { index, value } => {
            let (row, col) = (index / cols.max(1), index % cols.max(1));
            input_error(format!("{what}[{row}, {col}] is {value}, expected finite numbers"))
        }
        BackendError::OutOfMemory { .. } => PyMemoryError::new_err(why.to_string()),
        why => input_error(why),
    }
}

/// The layout of a format, shape and tile: bytes in all, offset of the scale, and the tile.
#[pyfunction]
#[pyo3(signature = (format, shape, tile=None))]
fn layout(
    format: &str,
    shape: (usize, usize),
    tile: Option<TileSides>,
) -> PyResult<(usize, usize, Option<TileSides>)> {
    let layout = layout_of(format, shape, tile)?;
    let tile = layout.tile().map(|Tile { bm, bk, by }| (bm, bk, by));
    Ok((layout.packed_bytes(), layout.scale_offset(), tile))
}

/// The scale of packed weights, whose length and scale are checked.
#[pyfunction]
fn packed_scale(weights: Packed<'_>) -> PyResult<f32> {
    Ok(weights.weights()?.scale())
}

/// Quantises float weights into `packed`, all bytes of the layout.
#[pyfunction]
fn quantize_weights(
    py: Python<'_>,
    weights: PyReadonlyArray2<'_, f32>,
    packed: PyReadwriteArray1<'_, u8>,
    format: &str,
    rule: &str,
    tile: Option<TileSides>,
    backend: Option<&str>,
) -> PyResult<()> {
    let mut packed = packed;
    let (rows, cols) = (weights.shape()[0], weights.shape()[1]);
    let layout = layout_of(format, (rows, cols), tile)?;
    let (rule, backend) = (rule_of(rule)?, backend_of(backend)?);
    let (src, dst) = (row_major(&weights)?, row_major_mut(&mut packed)?);
    guarded(py, || {
        let done = backend.quantize_weights(&layout, rule, src, dst);
        done.map(drop).map_err(|why| refused(why, "weights", cols))
    })
}

/// Packed weights to floats `out` `[rows, cols]`.
#[pyfunction]
fn dequantize_weights(
    py: Python<'_>,
    weights: Packed<'_>,
    out: PyReadwriteArray2<'_, f32>,
    backend: Option<&str>,
) -> PyResult<()> {
    let mut out = out;
    let (weights, backend) = (weights.weights()?, backend_of(backend)?);
    let dst = row_major_mut(&mut out)?;
    guarded(py, || backend.dequantize_weights(&weights, dst).map_err(|why| refused(why, "weights", 1)))
}

/// Packs ternary codes into `packed`, all bytes of the layout.
#[pyfunction]
fn pack(
    py: Python<'_>,
    codes: PyReadonlyArray2<'_, i8>,
    packed: PyReadwriteArray1<'_, u8>,
    format: &str,
    scale: f32,
    tile: Option<TileSides>,
) -> PyResult<()> {
    let mut packed = packed;
    let (rows, cols) = (codes.shape()[0], codes.shape()[1]);
    let layout = layout_of(format, (rows, cols), tile)?;
    let (codes, dst) = (row_major(&codes)?, row_major_mut(&mut packed)?);
    guarded(py, || {
        formats::pack(&layout, codes, scale, dst).map_err(|why| match why {
            FormatError::NotTernary { index, value } => input_error(format!(
                "codes[{}, {}] is {value}, expected -1, 0 or +1",
                index / cols,
                index % cols
            )),
            why => input_error(why),
        })
    })
}

/// Packed weights to ternary codes `out` `[rows, cols]`.
#[pyfunction]
fn unpack(py: Python<'_>, weights: Packed<'_>, out: PyReadwriteArray2<'_, i8>) -> PyResult<()> {
    let mut out = out;
    let weights = weights.weights()?;
    let dst = row_major_mut(&mut out)?;
    guarded(py, || formats::unpack(&weights, dst).map_err(input_error))
}

/// Activations `x` `[n, cols]` to `codes` `[n, cols]` and, per row, `scales` and `sums`.
#[pyfunction]
fn quantize_activations(
    py: Python<'_>,
    x: PyReadonlyArray2<'_, f32>,
    codes: PyReadwriteArray2<'_, i8>,
    scales: PyReadwriteArray1<'_, f32>,
    sums: PyReadwriteArray1<'_, i32>,
    backend: Option<&str>,
) -> PyResult<()> {
    let (mut codes, mut scales, mut sums) = (codes, scales, sums);
    let cols = x.shape()[1];
    let backend = backend_of(backend)?;
    let x = row_major(&x)?;
    let (codes, scales) = (row_major_mut(&mut codes)?, row_major_mut(&mut scales)?);
    let sums = row_major_mut(&mut sums)?;
    guarded(py, || {
        let done = backend.quantize_activations(x, cols, codes, scales, sums);
        done.map_err(|why| refused(why, "x", cols))
    })
}

/// Exact integer products of packed weights with `x` `[n, cols]` into `out` `[n, rows]`.
#[pyfunction]
fn matmul_i8_i32(
    weights: Packed<'_>,
    x: PyReadonlyArray2<'_, i8>,
    out: PyReadwriteArray2<'_, i32>,
    backend: Option<&str>,
    threads: usize,
) -> PyResult<()> {
    let of = (backend_of(backend)?, threads);
    product(&weights, &x, out, of, |matmul, x, out| matmul.matmul_i8_i32(x, out))
}

/// The whole linear layer of packed weights over `x` `[n, cols]` into `out` `[n, rows]`.
#[pyfunction]
fn linear_f32_f32(
    weights: Packed<'_>,
    x: PyReadonlyArray2<'_, f32>,
    out: PyReadwriteArray2<'_, f32>,
    backend: Option<&str>,
    threads: usize,
) -> PyResult<()> {
    let of = (backend_of(backend)?, threads);
    product(&weights, &x, out, of, |matmul, x, out| matmul.linear_f32_f32(x, out))
}

fn product<X: Element + Sync, Y: Element + Send>(
    weights: &Packed<'_>,
    x: &PyReadonlyArray2<'_, X>,
    mut out: PyReadwriteArray2<'_, Y>,
    (backend, threads): (Arc<dyn Backend>, usize),
    run: impl Fn(&mut dyn Matmul, &[X], &mut [Y]) -> Result<(), BackendError> + Sync,
) -> PyResult<()> {
    let (py, n, cols) = (x.py(), x.shape()[0], x.shape()[1]);
    let weights = weights.weights()?;
    let (x, out) = (row_major(x)?, row_major_mut(&mut out)?);
    guarded(py, || {
        let prepared = backend.prepare_matmul(weights, n, threads);
        let done = prepared.and_then(|mut matmul| run(matmul.as_mut(), x, out));
        backend.quiesce();
        done.map_err(|why| refused(why, "x", cols))
    })
}

/// The float types of tensors whose values are read.
const READ: [TensorType; 5] =
    [TensorType::F32, TensorType::F16, TensorType::Bf16, TensorType::Q8_0, TensorType::Q6K];

/// Decodes a tensor's bytes `stored` of the type of that name into `out`.
#[pyfunction]
fn decode_floats(
    py: Python<'_>,
    stored: PyReadonlyArray1<'_, u8>,
    tensor_type: &str,
    out: PyReadwriteArray1<'_, f32>,
) -> PyResult<()> {
    let mut out = out;
    let (bytes, out) = (row_major(&stored)?, row_major_mut(&mut out)?);
    let known = READ.into_iter().find(|known| known.name() == tensor_type).and_then(FloatType::of);
    let float_type = known.ok_or_else(|| {
        let known = READ.map(TensorType::name).join(", ");
        input_error(format!("values of type {tensor_type} are not read; known: {known}"))
    })?;
    let whole =
        out.len().is_multiple_of(float_type.block_len()) && float_type.bytes_of(out.len()) == bytes.len();
    if !whole {
        let what = format!("{} values of {tensor_type} do not lie in {} bytes", out.len(), bytes.len());
        return Err(input_error(what));
    }
    guarded(py, || {
        float_type.decode(bytes, out);
        Ok(())
    })
}

/// Adds these functions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(layout, module)?)?;
    module.add_function(wrap_pyfunction!(packed_scale, module)?)?;
    module.add_function(wrap_pyfunction!(quantize_weights, module)?)?;
    module.add_function(wrap_pyfunction!(dequantize_weights, module)?)?;
    module.add_function(wrap_pyfunction!(pack, module)?)?;
    module.add_function(wrap_pyfunction!(unpack, module)?)?;
    module.add_function(wrap_pyfunction!(quantize_activations, module)?)?;
    module.add_function(wrap_pyfunction!(matmul_i8_i32, module)?)?;
    module.add_function(wrap_pyfunction!(linear_f32_f32, module)?)?;
    module.add_function(wrap_pyfunction!(decode_floats, module)?)
}
