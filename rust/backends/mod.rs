//! Who can compute: every backend behind one trait, and the one list of them.
//!
//! A backend is called `<language>-<isa>` (`rust-scalar`, `rust-avx512vnni`, `cpp-portable`, `cpp-avx2`), and
//! `<language>-<isa>-<order>` where it repacks weights (`rust-avx512vnni-t5`); the same string stands in tests, benches,
//! the command line, recordings and reports. Unavailable and unsupported are values with reasons, never silent skips.
//! A backend computes; it never times, compares or falls back.

mod build_info;
pub mod ceilings;
mod checks;
#[cfg(feature = "ffi")]
pub mod contract;
#[cfg(feature = "ffi")]
pub mod cpp;
pub mod detect;
#[cfg(feature = "ffi")]
pub mod plugin;
pub mod rust_scalar;
#[cfg(all(feature = "cpu", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod rust_simd;
pub mod vector;

use crate::bitnet::formats::repacked::Repacked;
use crate::bitnet::formats::{FormatError, Layout, Weights};
use crate::bitnet::model::{FloatMatrix, Graph, NamedTensor, RunOptions};
use crate::team::Outputs;
use std::sync::Arc;

pub(crate) use checks::zeroed;

/// Whether a backend can run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Ready,
    /// It cannot, and why ("this CPU has no AVX2").
    Unavailable(String),
}

/// How float weights become ternary codes (`docs/FORMATS.md` 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightRule {
    /// The converter's rule for arbitrary floats: divide by mean |w|, round half to even, clamp; scale = mean.
    AbsMean,
    /// bitnet.cpp's packer for weights that already are 0 or +-s: keep the sign, scale = max |w|.
    MaxAbs,
}

/// How a backend was built; empty strings where unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// "rustc", "g++", "clang++", ...
    pub compiler: String,
    /// Its version.
    pub version: String,
    /// Flags that decide speed and rounding.
    pub flags: String,
    /// Optimisation level; "0" is refused for timing.
    pub optimisation: String,
    /// Identity of sources, flags and compiler together.
    pub source_hash: String,
    /// Git revision.
    pub git_revision: String,
}

/// Why a backend did not compute.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// It cannot run on this machine.
    #[error("{backend} is not available here: {why}")]
    Unavailable {
        /// Its name.
        backend: String,
        /// The reason.
        why: String,
    },
    /// It does not offer this operation, shape, format or option.
    #[error("{backend} does not support {what}")]
    Unsupported {
        /// Its name.
        backend: String,
        /// What was asked of it.
        what: String,
    },
    /// A NaN or an infinity among the float inputs; found before any work.
    #[error("input {index} is {value}, expected finite numbers")]
    NonFinite {
        /// Position of the first one.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A buffer has the wrong length.
    #[error("{what} has {actual} elements, expected {expected}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Elements it must have.
        expected: usize,
        /// Elements it has.
        actual: usize,
    },
    /// The packed weights are not what their layout says.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An allocation failed.
    #[error("{backend} ran out of memory")]
    OutOfMemory {
        /// Its name.
        backend: String,
    },
    /// A defect of the backend itself.
    #[error("{backend} failed: {what}")]
    Internal {
        /// Its name.
        backend: String,
        /// What it said.
        what: String,
    },
}

/// Something that can compute BitNet's quantisation and products.
///
/// Slices are row-major. Wrong lengths are [`BackendError::Length`]; NaN and infinities in float inputs are
/// [`BackendError::NonFinite`] before any output is written.
pub trait Backend: Send + Sync {
    /// `<language>-<isa>`.
    fn name(&self) -> &str;

    /// The instruction set alone: `scalar`, `portable`, `avx2`, `avxvnni`, `avx512vnni`.
    fn isa(&self) -> &str;

    /// Compiler, flags, identity.
    fn build_info(&self) -> BuildInfo;

    /// Whether it can run here. Every other call on an unavailable backend is [`BackendError::Unavailable`].
    fn availability(&self) -> Availability;

    /// Threads of one product at most.
    fn threads(&self) -> usize {
        1
    }

    /// The order of its own to which preparing repacks I2_S, where it does. Such a backend is about products of I2_S alone:
    /// it refuses other formats there, and whatever else it offers is that of the backend without the order in its name.
    fn repacks(&self) -> Option<Repacked> {
        None
    }

    /// Weights `src` `[rows, cols]` to packed bytes `dst` ([`Layout::packed_bytes`], tail zeroed). Returns the scale.
    fn quantize_weights(
        &self,
        layout: &Layout,
        rule: WeightRule,
        src: &[f32],
        dst: &mut [u8],
    ) -> Result<f32, BackendError>;

    /// Packed weights to floats `dst` `[rows, cols]`: code times scale.
    fn dequantize_weights(&self, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError>;

    /// Activations `x` `[rows, cols]` to codes `q` `[rows, cols]`, and per row the scale to multiply by
    /// (127 / absmax, `docs/FORMATS.md` 3) and the sum of the codes. The number of rows is `scale.len()`.
    fn quantize_activations(
        &self,
        x: &[f32],
        cols: usize,
        q: &mut [i8],
        scale: &mut [f32],
        sum: &mut [i32],
    ) -> Result<(), BackendError>;

    /// Makes weights ready for products with up to `n_max` activation rows on `threads` threads. Never timed;
    /// its time and memory are reported. Bytes that no packer produces are refused here.
    fn prepare_matmul<'a>(
        &'a self,
        weights: Weights<'a>,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn Matmul + 'a>, BackendError>;

    /// Makes a float matrix ready for products with up to `n_max` rows of x on `threads` threads. Never timed.
    fn prepare_float_matmul<'a>(
        &'a self,
        matrix: FloatMatrix<'a>,
        arithmetic: Arithmetic,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
        let _ = (matrix, arithmetic, n_max, threads);
        Err(checks::unsupported(self.name(), "float products"))
    }

    /// Whether it brings an engine of its own for whole models. Where it does not, ours runs over its products.
    fn brings_engine(&self) -> bool {
        false
    }

    /// Makes a whole model ready: an engine of the backend's own. Never timed.
    fn prepare_model<'a>(
        &'a self,
        graph: &Graph,
        tensors: &[NamedTensor<'a>],
        options: &RunOptions,
    ) -> Result<Box<dyn WholeModel + 'a>, BackendError> {
        let _ = (graph, tensors, options);
        Err(checks::unsupported(self.name(), "whole models"))
    }

    /// Returns when none of its threads is running or spinning.
    fn quiesce(&self) {}
}

/// Prepared weights. Running allocates nothing; whatever is derived from activations (int8 codes, look-up
/// tables) is made inside.
pub trait Matmul {
    /// Exact integer products in signed form: `out` `[n, rows]` = sum over columns of code * `q` `[n, cols]`;
    /// `q` may hold any int8. `n = q.len() / cols`, at most `n_max`; n = 0 does nothing.
    fn matmul_i8_i32(&mut self, q: &[i8], out: &mut [i32]) -> Result<(), BackendError>;

    /// The whole linear layer: `x` `[n, cols]` quantised, multiplied and scaled to `y` `[n, rows]`
    /// (`docs/NUMERICS.md`).
    fn linear_f32_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError>;

    /// The same product in parts, where the backend offers that.
    fn parts(&self) -> Option<&dyn Parts> {
        None
    }

    /// Everything that [`Matmul::matmul_i8_i32`] does around a kernel which it does not reach directly, and nothing of the
    /// kernel: what the way to it costs, for whoever has a clock. `out` is no result. `None` where there is no such way.
    fn empty_call(&mut self, q: &[i8], out: &mut [i32]) -> Option<Result<(), BackendError>> {
        let _ = (q, out);
        None
    }

    /// Bytes that preparing allocated beyond the weights it was given: what repacking and scratch cost in memory.
    /// `None` where the backend does not say.
    fn prepared_bytes(&self) -> Option<usize> {
        None
    }
}

/// A product whose weight rows are divided into parts, which different threads may compute at once: so that several
/// products of the same activations need their threads to meet only once.
pub trait Parts: Sync {
    /// Where each part ends: weight rows, ascending; the last one is their number.
    fn ends(&self) -> &[usize];

    /// `out` `[n, rows of the part]` = exact integer products of those rows with `q` `[n, cols]`. Each part is
    /// computed by one thread at a time.
    ///
    /// # Panics
    /// Where n is more than the `n_max` it was prepared for, or a length does not fit.
    fn run(&self, part: usize, q: &[i8], n: usize, out: &mut Outputs<'_, i32>);
}

/// How float products are computed (`docs/NUMERICS.md`, float products).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// float32, fused, in 32 lanes: the same bits on every backend.
    F32,
    /// The hardware's own products of the matrix's type; within a bound.
    Native,
}

/// A prepared float matrix. Running allocates nothing.
pub trait FloatMatmul {
    /// `y` `[n, rows]` = products of the matrix's rows with `x` `[n, cols]`; `n = x.len() / cols`, at most `n_max`. x is
    /// not looked at for NaN.
    fn matmul_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError>;
}

/// A whole model with its cache, run by a backend's own engine (`docs/NUMERICS.md`, whole models). Tokens, counts and
/// positions are the caller's to check: `inference::ForeignEngine` does.
pub trait WholeModel {
    /// Runs tokens as so many columns at once and keeps the logits of the last `n_outputs`.
    /// [`BackendError::NonFinite`] means that a value inside is no number any more; its index means nothing.
    fn prefill(&mut self, tokens: &[u32], n_outputs: usize) -> Result<(), BackendError>;

    /// Runs one token and keeps its logits.
    fn decode(&mut self, token: u32) -> Result<(), BackendError>;

    /// Copies the logits that the last call kept; `out` has exactly their number.
    fn logits(&mut self, out: &mut [f32]) -> Result<(), BackendError>;

    /// From now on keeps the intermediate of that name, `n` values of it.
    fn tap(&mut self, name: &str, n: usize) -> Result<(), BackendError>;

    /// The `n` values that were asked for, as far as calls have written them.
    fn tapped(&self, name: &str) -> Option<&[f32]>;

    /// Ends every tap.
    fn untap(&mut self);

    /// Forgets every token.
    fn reset(&mut self) -> Result<(), BackendError>;
}

/// THE list of backends, from the oracle to the fastest, Rust before C++; those that cannot run here included. Those that
/// repack stand before the one that they are made of: the last one of a language is what a verdict is about.
pub fn all() -> Vec<Arc<dyn Backend>> {
    let oracle: Arc<dyn Backend> = Arc::new(rust_scalar::RustScalar);
    [vec![oracle], rust_simd_backends(), cpp_backends()].concat()
}

#[cfg(all(feature = "cpu", target_arch = "x86_64"))]
fn rust_simd_backends() -> Vec<Arc<dyn Backend>> {
    vec![
        Arc::new(rust_simd::RustAvx2::new()),
        Arc::new(rust_simd::RustAvxVnni::new()),
        Arc::new(rust_simd::RustAvx512VnniR64::new()),
        Arc::new(rust_simd::RustAvx512VnniT5::new()),
        Arc::new(rust_simd::RustAvx512Vnni::new()),
    ]
}

#[cfg(all(feature = "cpu", target_arch = "aarch64"))]
fn rust_simd_backends() -> Vec<Arc<dyn Backend>> {
    vec![Arc::new(rust_simd::RustNeon::new()), Arc::new(rust_simd::RustNeonDotprod::new())]
}

#[cfg(not(all(feature = "cpu", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn rust_simd_backends() -> Vec<Arc<dyn Backend>> {
    Vec::new()
}

#[cfg(feature = "ffi")]
fn cpp_backends() -> Vec<Arc<dyn Backend>> {
    cpp::reference().into_iter().map(|backend| Arc::new(backend) as Arc<dyn Backend>).collect()
}

#[cfg(not(feature = "ffi"))]
fn cpp_backends() -> Vec<Arc<dyn Backend>> {
    Vec::new()
}

/// No backend of that name is built in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no backend is called {name:?}; known here: {}", known.join(", "))]
pub struct UnknownBackend {
    /// What was asked for.
    pub name: String,
    /// What there is.
    pub known: Vec<String>,
}

/// The backend of that name, available here or not.
pub fn by_name(name: &str) -> Result<Arc<dyn Backend>, UnknownBackend> {
    let mut backends = all();
    match backends.iter().position(|backend| backend.name() == name) {
        Some(index) => Ok(backends.swap_remove(index)),
        None => {
            let known = backends.iter().map(|backend| backend.name().to_owned()).collect();
            Err(UnknownBackend { name: name.to_owned(), known })
        }
    }
}
