//! Argument checks every Rust backend makes before it touches memory: lengths, batches, threads, K.

use super::BackendError;
use crate::bitnet::formats::Layout;
use crate::bitnet::model::FloatType;
use crate::bitnet::quant::QuantError;

/// The largest K whose products cannot leave int32 (`docs/NUMERICS.md`, Products): at 2^24 columns, code -1
/// against -128 throughout would give 2^31.
pub(super) const MAX_COLS: usize = (1 << 24) - 1;

/// `Ok` when a buffer has the length it must have.
pub(super) fn length(what: &'static str, actual: usize, expected: usize) -> Result<(), BackendError> {
    if actual == expected { Ok(()) } else { Err(BackendError::Length { what, expected, actual }) }
}

/// Rows of `cols` elements in an input of `elements`: whole rows, at most `n_max`, with outputs of `rows` each.
pub(super) fn batch(
    input: (&'static str, usize),
    output: (&'static str, usize),
    layout: &Layout,
    n_max: usize,
) -> Result<usize, BackendError> {
    batch_of(input, output, (layout.rows(), layout.cols()), n_max)
}

/// The same for a matrix of any kind, `[rows, cols]`, no side of which is 0.
pub(super) fn batch_of(
    (what, elements): (&'static str, usize),
    output: (&'static str, usize),
    (rows, cols): (usize, usize),
    n_max: usize,
) -> Result<usize, BackendError> {
    // One row is where a call's own cost shows, and it needs no division.
    let n = if elements == cols { n_max.min(1) } else { elements.div_ceil(cols).min(n_max) };
    length(what, elements, n * cols)?;
    length(output.0, output.1, n.saturating_mul(rows))?;
    Ok(n)
}

/// The lengths of an activation quantisation: `scale.len()` rows of `cols`.
pub(super) fn activations(
    backend: &str,
    cols: usize,
    (x, q, scale, sum): (usize, usize, usize, usize),
) -> Result<(), BackendError> {
    if cols == 0 {
        return Err(unsupported(backend, "activation rows of 0 columns"));
    }
    length("x", x, scale.saturating_mul(cols))?;
    length("q", q, x)?;
    length("sum", sum, scale)
}

/// One to `most` threads, and few enough columns for exact int32 products.
pub(super) fn prepare(
    backend: &str,
    layout: &Layout,
    threads: usize,
    most: usize,
) -> Result<(), BackendError> {
    self::threads(backend, threads, most)?;
    if layout.cols() > MAX_COLS {
        return Err(unsupported(
            backend,
            format!("K = {}, at most {MAX_COLS} keeps int32 exact", layout.cols()),
        ));
    }
    Ok(())
}

/// Whether the hardware has products of a matrix's type that are others than those of f32.
pub(super) fn native_type(backend: &str, float_type: FloatType) -> Result<(), BackendError> {
    match float_type {
        FloatType::F16 | FloatType::Bf16 => Ok(()),
        FloatType::F32 => {
            Err(unsupported(backend, "native arithmetic of F32: it is no other than f32, ask for that"))
        }
        FloatType::Q8_0 | FloatType::Q6K => {
            Err(unsupported(backend, format!("native arithmetic of {float_type:?}: F16 and Bf16 have one")))
        }
    }
}

/// One to `most` threads.
pub(super) fn threads(backend: &str, threads: usize, most: usize) -> Result<(), BackendError> {
    if (1..=most).contains(&threads) {
        return Ok(());
    }
    let runs = if most == 1 { "1".to_owned() } else { format!("1 to {most}") };
    Err(unsupported(backend, format!("{threads} threads, it runs on {runs}")))
}

/// `rows * cols` zeros, or why not.
pub(super) fn zeros<T: Clone + Default>(
    backend: &str,
    rows: usize,
    cols: usize,
) -> Result<Vec<T>, BackendError> {
    let out_of_memory = || BackendError::OutOfMemory { backend: backend.to_string() };
    rows.checked_mul(cols).and_then(zeroed).ok_or_else(out_of_memory)
}

/// Room that is asked for before it is taken. What is smaller stays below what allocators map for itself, and asking for
/// it would leave used memory behind, which zeros then have to be written to.
const ASKED_FOR_BYTES: usize = 64 << 20;

/// `n` zeros, fresh from the operating system: what is never written to takes no memory. `None` where there is no room.
pub(crate) fn zeroed<T: Clone + Default>(n: usize) -> Option<Vec<T>> {
    // The macro ends the process where there is no room.
    if n.checked_mul(size_of::<T>())? >= ASKED_FOR_BYTES {
        Vec::<T>::new().try_reserve_exact(n).ok()?;
    }
    Some(vec![T::default(); n])
}

/// [`BackendError::Unsupported`].
pub(super) fn unsupported(backend: &str, what: impl Into<String>) -> BackendError {
    BackendError::Unsupported { backend: backend.to_string(), what: what.into() }
}

impl From<QuantError> for BackendError {
    fn from(error: QuantError) -> Self {
        match error {
            QuantError::NonFinite { index, value, .. } => Self::NonFinite { index, value },
            QuantError::Length { what, expected, actual } => Self::Length { what, expected, actual },
            QuantError::Empty { what } => Self::Length { what, expected: 1, actual: 0 },
        }
    }
}
