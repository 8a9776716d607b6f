//! One `bnb_api` as a safe [`Backend`]: every `unsafe` of the contract stands here and, for float products, in `floats.rs`, for whole
//! models in `models.rs`.
//!
//! Lengths are checked on this side before the call, the callee checks them again. The structure is copied up to
//! the callee's `struct_size`, so a library compiled against an older minor version offers what it has and the
//! rest reads as "not offered". Text is checked once, at the start; a status becomes a typed error, and where
//! the contract gives no position (which input was NaN, which byte was no code) it is looked up here. A call into
//! a library that a user names is followed by a look at the floating-point mode, see `fp_mode.rs`.

use super::fp_mode::FpMode;
use super::supplier::Entry;
use super::sys;
use super::{floats, models};
use crate::backends::{
    Arithmetic, Availability, Backend, BackendError, BuildInfo, FloatMatmul, Matmul, WeightRule, WholeModel,
    checks,
};
use crate::bitnet::formats::{self, Layout, WeightFormat, Weights};
use crate::bitnet::model::{FloatMatrix, Graph, NamedTensor, RunOptions};
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::mem::{offset_of, size_of};
use std::ptr;
use std::sync::Arc;

/// Holds a shared library open; `None` for statically linked suppliers.
pub(in crate::backends) type KeepAlive = Option<Arc<libloading::Library>>;

/// Bytes of every field behind `struct_size`; the three before it are read on their own.
const FIELD_BYTES: usize = 8;
const _: () = assert!(
    offset_of!(sys::bnb_api, name) == 2 * FIELD_BYTES && size_of::<sys::bnb_api>() == 26 * FIELD_BYTES,
    "an added field must have the size of a pointer, or struct_size must be checked in another way"
);

/// Why a supplier's structure cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// Compiled against another major version of the contract.
    #[error(
        "backend {index} speaks ABI {found}, this build speaks {expected}: rebuild it against this bitnet_backend.h"
    )]
    Major {
        /// Its index.
        index: u32,
        /// Its major version.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// The structure is not one that any compiler made from the header.
    #[error("backend {index}: {what}")]
    Malformed {
        /// Its index.
        index: u32,
        /// What is wrong with it.
        what: String,
    },
    /// The enumeration does not end.
    #[error(
        "bitnet_backend_v1 answered {limit} backends without a NULL: it must return NULL past its last one"
    )]
    Endless {
        /// Where we stopped.
        limit: u32,
    },
}

/// A backend behind the C contract.
pub struct ContractBackend {
    pub(super) api: sys::bnb_api,
    pub(super) name: String,
    isa: String,
    build_info: BuildInfo,
    availability: Availability,
    minor: u32,
    library: KeepAlive,
}

// SAFETY: the contract lets its functions be called from any thread, and the copied structure is never changed.
unsafe impl Send for ContractBackend {}
// SAFETY: as above; handles, which may be used by one thread at a time, are separate values.
unsafe impl Sync for ContractBackend {}

impl ContractBackend {
    /// The backend at `index`, or `None` past the last one.
    pub(super) fn from_entry(
        entry: Entry,
        index: u32,
        library: &KeepAlive,
        rename: &impl Fn(&str) -> String,
    ) -> Result<Option<Self>, ContractError> {
        // SAFETY: the entry point takes any index by contract.
        let source = unsafe { entry(index) };
        if source.is_null() {
            return Ok(None);
        }
        let malformed = |what: String| ContractError::Malformed { index, what };
        if !source.is_aligned() {
            return Err(malformed("its bnb_api is misaligned".into()));
        }
        // SAFETY: abi_major, abi_minor and struct_size come first in every version of the structure.
        let (major, minor, struct_size) =
            unsafe { ((*source).abi_major, (*source).abi_minor, (*source).struct_size) };
        if major != sys::BNB_ABI_MAJOR {
            return Err(ContractError::Major { index, found: major, expected: sys::BNB_ABI_MAJOR });
        }
        let least = offset_of!(sys::bnb_api, available) as u64;
        if struct_size < least {
            return Err(malformed(format!("its struct_size is {struct_size}, expected at least {least}")));
        }
        if !struct_size.is_multiple_of(FIELD_BYTES as u64) {
            // Half a function pointer would be called.
            return Err(malformed(format!("its struct_size is {struct_size}, which ends inside a field")));
        }
        // SAFETY: all-zero is a valid bnb_api: null data pointers and absent functions.
        let mut api: sys::bnb_api = unsafe { std::mem::zeroed() };
        let readable = (struct_size as usize).min(size_of::<sys::bnb_api>());
        // SAFETY: the callee vouches for struct_size readable bytes; `api` holds at least `readable`.
        unsafe { ptr::copy_nonoverlapping(source.cast::<u8>(), (&raw mut api).cast::<u8>(), readable) };
        let name = required_text(api.name, "name").map_err(malformed)?;
        if name.is_empty() {
            return Err(malformed("it has no name".into()));
        }
        let isa = required_text(api.isa, "isa").map_err(malformed)?;
        let build_info = read_build_info(api.build_info).map_err(malformed)?;
        if api.matmul_prepare.is_some() && api.matmul_free.is_none() {
            return Err(malformed("it has a matmul_prepare but no matmul_free: offer both or none".into()));
        }
        if api.engine_create.is_some() && api.engine_free.is_none() {
            return Err(malformed("it has an engine_create but no engine_free: offer both or none".into()));
        }
        if api.float_prepare.is_some() && api.float_free.is_none() {
            return Err(malformed("it has a float_prepare but no float_free: offer both or none".into()));
        }
        let availability = ask_availability(&api);
        let name = rename(&name);
        Ok(Some(Self { api, name, isa, build_info, availability, minor, library: library.clone() }))
    }

    /// The minor version of the contract it was compiled against.
    pub fn abi_minor(&self) -> u32 {
        self.minor
    }

    fn ready(&self) -> Result<(), BackendError> {
        match &self.availability {
            Availability::Ready => Ok(()),
            Availability::Unavailable(why) => {
                Err(BackendError::Unavailable { backend: self.name.clone(), why: why.clone() })
            }
        }
    }

    /// `function` if the backend offers it.
    pub(super) fn offered<F>(&self, function: Option<F>, what: &str) -> Result<F, BackendError> {
        self.ready()?;
        function.ok_or_else(|| self.unsupported(what))
    }

    pub(super) fn unsupported(&self, what: impl Into<String>) -> BackendError {
        BackendError::Unsupported { backend: self.name.clone(), what: what.into() }
    }

    pub(super) fn internal(&self, what: impl Into<String>) -> BackendError {
        BackendError::Internal { backend: self.name.clone(), what: what.into() }
    }

    /// Makes one call. A plugin that comes back in another floating-point mode is not believed, and the mode is put
    /// back: what this thread computes next, the expected result perhaps, must not follow the plugin's rules.
    pub(super) fn call<T>(&self, call: impl FnOnce() -> T) -> Result<T, BackendError> {
        if self.library.is_none() {
            return Ok(call());
        }
        let before = FpMode::now();
        let answer = call();
        match before.put_back() {
            None => Ok(answer),
            Some(after) => Err(self.internal(format!(
                "it changed the floating-point mode during a call ({before} to {after}): built with -ffast-math?"
            ))),
        }
    }

    /// A status as a result. `floats` are the float inputs of the call, searched for the value it refused.
    pub(super) fn answer(
        &self,
        status: sys::bnb_status,
        doing: &str,
        floats: &[f32],
    ) -> Result<(), BackendError> {
        match u32::try_from(status) {
            Ok(sys::BNB_OK) => Ok(()),
            Ok(sys::BNB_UNSUPPORTED) => Err(self.unsupported(doing)),
            Ok(sys::BNB_NON_FINITE) => match floats.iter().position(|x| !x.is_finite()) {
                Some(index) => Err(BackendError::NonFinite { index, value: floats[index] }),
                None => {
                    Err(self.internal(format!("{doing}: reported a non-finite input, but all are finite")))
                }
            },
            Ok(sys::BNB_OUT_OF_MEMORY) => Err(BackendError::OutOfMemory { backend: self.name.clone() }),
            Ok(sys::BNB_UNAVAILABLE) => Err(BackendError::Unavailable {
                backend: self.name.clone(),
                why: format!("it said so when asked for {doing}"),
            }),
            Ok(sys::BNB_INVALID_ARGUMENT) => {
                Err(self.internal(format!("{doing}: it refused checked arguments")))
            }
            Ok(sys::BNB_INTERNAL) => {
                Err(self.internal(format!("{doing}: an exception was caught inside it")))
            }
            _ => Err(self.internal(format!("{doing}: unknown status {status}"))),
        }
    }

    /// As `answer`, for calls that read packed weights: says which byte is no code.
    fn answer_weights(
        &self,
        status: sys::bnb_status,
        doing: &str,
        weights: &Weights<'_>,
    ) -> Result<(), BackendError> {
        if u32::try_from(status) != Ok(sys::BNB_INVALID_DATA) {
            return self.answer(status, doing, &[]);
        }
        formats::unpack(weights, &mut vec![0; weights.layout().n_weights()])?;
        Err(self.internal(format!("{doing}: it refused weights whose codes are all legal")))
    }
}

impl Backend for ContractBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn isa(&self) -> &str {
        &self.isa
    }

    fn build_info(&self) -> BuildInfo {
        self.build_info.clone()
    }

    fn availability(&self) -> Availability {
        self.availability.clone()
    }

    fn threads(&self) -> usize {
        if self.api.capabilities & u64::from(sys::BNB_CAP_THREADS) != 0 { usize::MAX } else { 1 }
    }

    fn quantize_weights(
        &self,
        layout: &Layout,
        rule: WeightRule,
        src: &[f32],
        dst: &mut [u8],
    ) -> Result<f32, BackendError> {
        let function = self.offered(self.api.quantize_weights, "quantising weights")?;
        checks::length("src", src.len(), layout.n_weights())?;
        checks::length("dst", dst.len(), layout.packed_bytes())?;
        let rule = match rule {
            WeightRule::AbsMean => sys::BNB_RULE_ABSMEAN,
            WeightRule::MaxAbs => sys::BNB_RULE_MAXABS,
        };
        let mut scale = 0.0;
        // SAFETY: every pointer is valid for the count beside it for the whole call, and they do not overlap.
        let status = self.call(|| unsafe {
            function(
                &raw_layout(layout),
                rule,
                src.as_ptr(),
                src.len() as u64,
                dst.as_mut_ptr(),
                dst.len() as u64,
                &mut scale,
            )
        })?;
        self.answer(status, &format!("quantising {layout}"), src)?;
        formats::check_scale(layout.format(), scale)?;
        Ok(scale)
    }

    fn dequantize_weights(&self, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError> {
        let function = self.offered(self.api.dequantize_weights, "dequantising weights")?;
        checks::length("dst", dst.len(), weights.layout().n_weights())?;
        // SAFETY: as above; the weights' length was checked when `Weights` was made.
        let status =
            self.call(|| unsafe { function(&raw_weights(weights), dst.as_mut_ptr(), dst.len() as u64) })?;
        self.answer_weights(status, &format!("dequantising {}", weights.layout()), weights)
    }

    fn quantize_activations(
        &self,
        x: &[f32],
        cols: usize,
        q: &mut [i8],
        scale: &mut [f32],
        sum: &mut [i32],
    ) -> Result<(), BackendError> {
        let function = self.offered(self.api.quantize_activations, "quantising activations")?;
        let rows = scale.len();
        checks::activations(&self.name, cols, (x.len(), q.len(), scale.len(), sum.len()))?;
        // SAFETY: every pointer is valid for the count beside it for the whole call, and they do not overlap.
        let status = self.call(|| unsafe {
            function(
                x.as_ptr(),
                x.len() as u64,
                rows as u64,
                cols as u64,
                q.as_mut_ptr(),
                q.len() as u64,
                scale.as_mut_ptr(),
                scale.len() as u64,
                sum.as_mut_ptr(),
                sum.len() as u64,
            )
        })?;
        self.answer(status, &format!("quantising {rows} rows of {cols} activations"), x)
    }

    fn prepare_matmul<'a>(
        &'a self,
        weights: Weights<'a>,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn Matmul + 'a>, BackendError> {
        let function = self.offered(self.api.matmul_prepare, "matrix products")?;
        let doing = format!("products of {} with up to {n_max} rows on {threads} threads", weights.layout());
        // Scratch for n_max rows that no address space holds is not asked for.
        let scratch = weights.layout().cols().max(weights.layout().rows()).checked_mul(n_max);
        if scratch.is_none_or(|n| n > isize::MAX as usize / size_of::<f32>()) {
            return Err(BackendError::OutOfMemory { backend: self.name.clone() });
        }
        let threads = u32::try_from(threads).map_err(|_| self.unsupported(&doing))?;
        let mut handle = ptr::null_mut();
        // SAFETY: the weight bytes outlive the handle, because `ContractMatmul` borrows them for 'a.
        // A handle that came with a changed floating-point mode is given up: nothing it says is believed.
        let status =
            self.call(|| unsafe { function(&raw_weights(&weights), n_max as u64, threads, &mut handle) })?;
        self.answer_weights(status, &doing, &weights)?;
        if handle.is_null() {
            return Err(self.internal(format!("{doing}: it answered OK without a handle")));
        }
        let layout = *weights.layout();
        Ok(Box::new(ContractMatmul { backend: self, handle, layout, n_max, weights: PhantomData }))
    }

    fn prepare_float_matmul<'a>(
        &'a self,
        matrix: FloatMatrix<'a>,
        arithmetic: Arithmetic,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
        floats::prepare(self, matrix, arithmetic, n_max, threads)
    }

    fn brings_engine(&self) -> bool {
        self.api.engine_create.is_some()
    }

    fn prepare_model<'a>(
        &'a self,
        graph: &Graph,
        tensors: &[NamedTensor<'a>],
        options: &RunOptions,
    ) -> Result<Box<dyn WholeModel + 'a>, BackendError> {
        models::prepare(self, graph, tensors, options)
    }

    fn quiesce(&self) {
        if let (Some(function), Availability::Ready) = (self.api.quiesce, &self.availability) {
            // SAFETY: no arguments; callable from any thread.
            // There is no result that a changed mode could have spoilt, and it is put back.
            let _ = self.call(|| unsafe { function() });
        }
    }
}

/// Weights prepared behind the contract; freed on drop.
struct ContractMatmul<'a> {
    backend: &'a ContractBackend,
    handle: *mut sys::bnb_matmul,
    layout: Layout,
    n_max: usize,
    weights: PhantomData<&'a [u8]>,
}

impl Matmul for ContractMatmul<'_> {
    fn matmul_i8_i32(&mut self, q: &[i8], out: &mut [i32]) -> Result<(), BackendError> {
        let function = self.backend.offered(self.backend.api.matmul_i8_i32, "integer products")?;
        let n = checks::batch(("q", q.len()), ("out", out.len()), &self.layout, self.n_max)?;
        // SAFETY: the handle is live and used by one thread (&mut); pointers are valid for their counts.
        let status = self.backend.call(|| unsafe {
            function(self.handle, q.as_ptr(), q.len() as u64, n as u64, out.as_mut_ptr(), out.len() as u64)
        })?;
        self.backend.answer(status, "integer products", &[])
    }

    fn linear_f32_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        let function = self.backend.offered(self.backend.api.linear_f32_f32, "linear layers")?;
        let n = checks::batch(("x", x.len()), ("y", y.len()), &self.layout, self.n_max)?;
        // SAFETY: as above.
        let status = self.backend.call(|| unsafe {
            function(self.handle, x.as_ptr(), x.len() as u64, n as u64, y.as_mut_ptr(), y.len() as u64)
        })?;
        self.backend.answer(status, "a linear layer", x)
    }

    fn prepared_bytes(&self) -> Option<usize> {
        let function = self.backend.api.matmul_bytes?;
        // SAFETY: the handle is live, and nobody runs it meanwhile: running takes it by &mut.
        let bytes = self.backend.call(|| unsafe { function(self.handle) }).ok()?;
        usize::try_from(bytes).ok()
    }
}

impl Drop for ContractMatmul<'_> {
    fn drop(&mut self) {
        if let Some(function) = self.backend.api.matmul_free {
            // SAFETY: the handle came from this backend's matmul_prepare and is freed once.
            // As in `quiesce`, a changed mode is put back and has spoilt nothing.
            let _ = self.backend.call(|| unsafe { function(self.handle) });
        }
    }
}

fn raw_layout(layout: &Layout) -> sys::bnb_layout {
    // Tile parameters fit: each is at most a side of a matrix whose bytes are in memory, and a larger one is
    // refused by the callee rather than wrapped, because u32::MAX divides nothing.
    let narrow = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let tile = layout.tile();
    sys::bnb_layout {
        format: match layout.format() {
            WeightFormat::I2S => sys::BNB_FORMAT_I2_S,
            WeightFormat::Tl1 => sys::BNB_FORMAT_TL1,
            WeightFormat::Tl2 => sys::BNB_FORMAT_TL2,
        },
        bm: tile.map_or(0, |tile| narrow(tile.bm)),
        bk: tile.map_or(0, |tile| narrow(tile.bk)),
        by: tile.map_or(0, |tile| narrow(tile.by)),
        rows: layout.rows() as u64,
        cols: layout.cols() as u64,
    }
}

fn raw_weights(weights: &Weights<'_>) -> sys::bnb_weights {
    sys::bnb_weights {
        layout: raw_layout(weights.layout()),
        bytes: weights.bytes().as_ptr(),
        n_bytes: weights.bytes().len() as u64,
        scale: weights.scale(),
    }
}

/// Text behind a pointer; `None` for NULL and for what is not UTF-8.
fn static_text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the contract promises static, NUL-terminated text.
    unsafe { CStr::from_ptr(pointer) }.to_str().ok().map(str::to_owned)
}

/// Text that the contract requires, or what is wrong with it.
fn required_text(pointer: *const c_char, what: &str) -> Result<String, String> {
    static_text(pointer).ok_or_else(|| {
        let wrong = if pointer.is_null() { "is missing (NULL)" } else { "is not UTF-8 text" };
        format!("its {what} {wrong}")
    })
}

fn read_build_info(pointer: *const sys::bnb_build_info) -> Result<BuildInfo, String> {
    // SAFETY: null, or a static structure by contract.
    let info = unsafe { pointer.as_ref() }.ok_or("its build_info is missing (NULL)")?;
    Ok(BuildInfo {
        compiler: required_text(info.compiler, "build_info.compiler")?,
        version: required_text(info.version, "build_info.version")?,
        flags: required_text(info.flags, "build_info.flags")?,
        optimisation: required_text(info.optimisation, "build_info.optimisation")?,
        source_hash: required_text(info.source_hash, "build_info.source_hash")?,
        git_revision: required_text(info.git_revision, "build_info.git_revision")?,
    })
}

fn ask_availability(api: &sys::bnb_api) -> Availability {
    let Some(available) = api.available else {
        return Availability::Unavailable("it does not say whether it can run here".into());
    };
    let mut why = ptr::null();
    // SAFETY: `why` is a valid place for one pointer.
    let status = unsafe { available(&mut why) };
    if u32::try_from(status) == Ok(sys::BNB_OK) {
        return Availability::Ready;
    }
    let why = static_text(why).filter(|why| !why.is_empty());
    Availability::Unavailable(why.unwrap_or_else(|| format!("status {status}, no reason given")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status mapping must not let an unknown value through as success.
    #[test]
    fn unknown_statuses_are_errors() {
        for backend in crate::backends::cpp::reference() {
            for status in [-1, 8, i32::MAX, i32::MIN] {
                let answer = backend.answer(status, "a test", &[]);
                assert!(matches!(answer, Err(BackendError::Internal { .. })), "{status}: {answer:?}");
            }
            let lie = backend.answer(sys::BNB_NON_FINITE as i32, "a test", &[1.0]);
            assert!(matches!(lie, Err(BackendError::Internal { .. })), "{lie:?}");
            let found = backend.answer(sys::BNB_NON_FINITE as i32, "a test", &[1.0, f32::INFINITY]);
            assert_eq!(found, Err(BackendError::NonFinite { index: 1, value: f32::INFINITY }));
        }
    }
}
