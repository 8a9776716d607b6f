//! This crate as a supplier of its own contract: its shared library exports `bitnet_backend_v1`, one index for each
//! backend, so that yesterday's build can be loaded beside today's and both be timed in one process.
//!
//! A function pointer of the contract carries no context, so each backend gets functions of its own: the same generic
//! code, instantiated once per index. Everything that comes in is checked as the header demands; what a backend answers
//! becomes a status; a panic becomes `BNB_INTERNAL` and goes no further.

use crate::backends::contract::sys;
use crate::backends::{
    self, Arithmetic, Availability, Backend, BackendError, FloatMatmul, Matmul, WeightRule,
};
use crate::bitnet::formats::{FormatError, Layout, Tile, WeightFormat, Weights};
use crate::bitnet::model::{FloatMatrix, FloatType};
use crate::inference::EngineError;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

mod engines;

/// Backends of this library at most; a test holds `backends::all()` to it.
const MOST: usize = 12;

/// One exported backend: its structure and the texts it points to.
struct Exported {
    api: sys::bnb_api,
    /// Why it cannot run here; `None` if it can.
    why_not: Option<CString>,
    backend: Arc<dyn Backend>,
}

// SAFETY: the pointers in `api` lead to leaked texts that nothing changes, and to functions.
unsafe impl Send for Exported {}
// SAFETY: as above.
unsafe impl Sync for Exported {}

fn exported() -> &'static [Exported] {
    static EXPORTED: OnceLock<Vec<Exported>> = OnceLock::new();
    EXPORTED.get_or_init(|| {
        let tables = tables();
        backends::all().into_iter().zip(tables).map(|(backend, table)| export(backend, table)).collect()
    })
}

/// The entry point: the backend at `index`, or null past the last one.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_backend_v1(index: u32) -> *const sys::bnb_api {
    let found = catch_unwind(|| exported().get(index as usize).map(|exported| &raw const exported.api));
    found.ok().flatten().unwrap_or(std::ptr::null())
}

fn leaked(text: &str) -> *const c_char {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    text.into_raw().cast_const()
}

fn export(backend: Arc<dyn Backend>, table: sys::bnb_api) -> Exported {
    let info = backend.build_info();
    let build_info = Box::leak(Box::new(sys::bnb_build_info {
        compiler: leaked(&info.compiler),
        version: leaked(&info.version),
        flags: leaked(&info.flags),
        optimisation: leaked(&info.optimisation),
        source_hash: leaked(&info.source_hash),
        git_revision: leaked(&info.git_revision),
    }));
    let why_not = match backend.availability() {
        Availability::Ready => None,
        Availability::Unavailable(why) => Some(CString::new(why.replace('\0', " ")).unwrap_or_default()),
    };
    let api = sys::bnb_api {
        name: leaked(backend.name()),
        isa: leaked(backend.isa()),
        build_info,
        capabilities: u64::from(sys::BNB_CAP_I2_S)
            | if backend.repacks().is_some() { 0 } else { u64::from(sys::BNB_CAP_TL1 | sys::BNB_CAP_TL2) }
            | if backend.threads() > 1 { u64::from(sys::BNB_CAP_THREADS) } else { 0 },
        matmul_bytes: table.matmul_bytes.filter(|_| says_its_bytes(backend.as_ref())),
        ..table
    };
    Exported { api, why_not, backend }
}

/// Whether a backend says what preparing allocated: asked once, of the smallest matrix. One that does not say has no
/// `matmul_bytes`, rather than one that answers 0.
fn says_its_bytes(backend: &dyn Backend) -> bool {
    let Ok(layout) = Layout::i2s(1, 128) else { return false };
    let bytes = vec![0; layout.packed_bytes()];
    let Ok(weights) = Weights::new(layout, &bytes) else { return false };
    backend.prepare_matmul(weights, 1, 1).is_ok_and(|matmul| matmul.prepared_bytes().is_some())
}

/// The functions of every index.
fn tables() -> [sys::bnb_api; MOST] {
    [
        engines::with_engines::<0>(table::<0>()),
        engines::with_engines::<1>(table::<1>()),
        engines::with_engines::<2>(table::<2>()),
        engines::with_engines::<3>(table::<3>()),
        engines::with_engines::<4>(table::<4>()),
        engines::with_engines::<5>(table::<5>()),
        engines::with_engines::<6>(table::<6>()),
        engines::with_engines::<7>(table::<7>()),
        engines::with_engines::<8>(table::<8>()),
        engines::with_engines::<9>(table::<9>()),
        engines::with_engines::<10>(table::<10>()),
        engines::with_engines::<11>(table::<11>()),
    ]
}

fn table<const I: usize>() -> sys::bnb_api {
    sys::bnb_api {
        abi_major: sys::BNB_ABI_MAJOR,
        abi_minor: sys::BNB_ABI_MINOR,
        struct_size: size_of::<sys::bnb_api>() as u64,
        name: std::ptr::null(),
        isa: std::ptr::null(),
        build_info: std::ptr::null(),
        capabilities: 0,
        available: Some(available::<I>),
        quantize_weights: Some(quantize_weights::<I>),
        dequantize_weights: Some(dequantize_weights::<I>),
        quantize_activations: Some(quantize_activations::<I>),
        matmul_prepare: Some(matmul_prepare::<I>),
        matmul_i8_i32: Some(matmul_i8_i32),
        linear_f32_f32: Some(linear_f32_f32),
        matmul_free: Some(matmul_free),
        quiesce: Some(quiesce::<I>),
        matmul_bytes: Some(matmul_bytes),
        float_prepare: Some(float_prepare::<I>),
        float_matmul: Some(float_matmul),
        float_free: Some(float_free),
        engine_create: None,
        engine_prefill: None,
        engine_decode: None,
        engine_logits: None,
        engine_tap: None,
        engine_reset: None,
        engine_free: None,
    }
}

/// What went wrong, as a status.
enum Refusal {
    Argument,
    Backend(BackendError),
    Engine(EngineError),
}

impl From<EngineError> for Refusal {
    fn from(why: EngineError) -> Self {
        Self::Engine(why)
    }
}

impl From<BackendError> for Refusal {
    fn from(why: BackendError) -> Self {
        Self::Backend(why)
    }
}

/// Runs `work` and turns whatever happens into a status.
fn answered(work: impl FnOnce() -> Result<(), Refusal>) -> sys::bnb_status {
    let status = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => sys::BNB_OK,
        Ok(Err(Refusal::Argument)) => sys::BNB_INVALID_ARGUMENT,
        Ok(Err(Refusal::Backend(why))) => status_of(&why),
        Ok(Err(Refusal::Engine(why))) => status_of_engine(&why),
        Err(_) => sys::BNB_INTERNAL,
    };
    status as sys::bnb_status
}

fn status_of(why: &BackendError) -> u32 {
    match why {
        BackendError::Unavailable { .. } => sys::BNB_UNAVAILABLE,
        BackendError::Unsupported { .. } => sys::BNB_UNSUPPORTED,
        BackendError::NonFinite { .. } => sys::BNB_NON_FINITE,
        BackendError::Length { .. } => sys::BNB_INVALID_ARGUMENT,
        BackendError::Format(FormatError::Unsupported { .. }) => sys::BNB_UNSUPPORTED,
        BackendError::Format(FormatError::Length { .. }) => sys::BNB_INVALID_ARGUMENT,
        BackendError::Format(_) => sys::BNB_INVALID_DATA,
        BackendError::OutOfMemory { .. } => sys::BNB_OUT_OF_MEMORY,
        BackendError::Internal { .. } => sys::BNB_INTERNAL,
    }
}

fn status_of_engine(why: &EngineError) -> u32 {
    match why {
        EngineError::Product { source, .. } | EngineError::Backend(source) => status_of(source),
        EngineError::NormNotFinite { .. } | EngineError::NonFinite { .. } | EngineError::NeedsReset => {
            sys::BNB_NON_FINITE
        }
        EngineError::Tap { .. } => sys::BNB_UNSUPPORTED,
        EngineError::OutOfMemory { .. } | EngineError::Threads { .. } => sys::BNB_OUT_OF_MEMORY,
        EngineError::Option { .. }
        | EngineError::Tensor { .. }
        | EngineError::Token { .. }
        | EngineError::Batch { .. }
        | EngineError::Outputs { .. }
        | EngineError::Context { .. } => sys::BNB_INVALID_ARGUMENT,
    }
}

/// The backend of an index, if it can run here.
fn backend(index: usize) -> Result<&'static dyn Backend, Refusal> {
    let exported = exported().get(index).ok_or(Refusal::Argument)?;
    match &exported.why_not {
        None => Ok(exported.backend.as_ref()),
        Some(_) => {
            let (backend, why) = (exported.backend.name().to_owned(), String::new());
            Err(Refusal::Backend(BackendError::Unavailable { backend, why }))
        }
    }
}

/// The elements at `pointer`; none may be null.
///
/// # Safety
/// `pointer` is null or leads to `n` elements that stay valid and unchanged for `'a`.
unsafe fn elements<'a, T>(pointer: *const T, n: u64) -> Result<&'a [T], Refusal> {
    let n = count::<T>(n)?;
    match n {
        0 => Ok(&[]),
        _ if pointer.is_null() || !pointer.is_aligned() => Err(Refusal::Argument),
        // SAFETY: not null, aligned, and the caller vouches for the rest.
        _ => Ok(unsafe { std::slice::from_raw_parts(pointer, n) }),
    }
}

/// The same to be written to.
///
/// # Safety
/// As [`elements`], and nobody else looks at them for `'a`.
unsafe fn elements_mut<'a, T>(pointer: *mut T, n: u64) -> Result<&'a mut [T], Refusal> {
    let n = count::<T>(n)?;
    match n {
        0 => Ok(&mut []),
        _ if pointer.is_null() || !pointer.is_aligned() => Err(Refusal::Argument),
        // SAFETY: not null, aligned, and the caller vouches for the rest.
        _ => Ok(unsafe { std::slice::from_raw_parts_mut(pointer, n) }),
    }
}

/// A number of elements that memory can hold.
fn count<T>(n: u64) -> Result<usize, Refusal> {
    let most = isize::MAX as u64 / size_of::<T>().max(1) as u64;
    if n > most { Err(Refusal::Argument) } else { Ok(n as usize) }
}

fn layout(raw: &sys::bnb_layout) -> Result<Layout, Refusal> {
    let format = match raw.format {
        sys::BNB_FORMAT_I2_S => WeightFormat::I2S,
        sys::BNB_FORMAT_TL1 => WeightFormat::Tl1,
        sys::BNB_FORMAT_TL2 => WeightFormat::Tl2,
        _ => return Err(Refusal::Argument),
    };
    let tile = Tile { bm: raw.bm as usize, bk: raw.bk as usize, by: raw.by as usize };
    let tile = Some(tile).filter(|_| (raw.bm, raw.bk, raw.by) != (0, 0, 0));
    let (rows, cols) = (count::<u8>(raw.rows)?, count::<u8>(raw.cols)?);
    rows.checked_mul(cols).and_then(|n| n.checked_mul(8)).ok_or(Refusal::Argument)?;
    Layout::from_parts(format, rows, cols, tile).map_err(|why| Refusal::Backend(why.into()))
}

/// # Safety
/// `raw` is null or leads to weights whose bytes stay valid and unchanged for `'a`.
unsafe fn weights<'a>(raw: *const sys::bnb_weights) -> Result<Weights<'a>, Refusal> {
    // SAFETY: null is checked; else the caller vouches for it.
    let raw = unsafe { raw.as_ref() }.ok_or(Refusal::Argument)?;
    let layout = layout(&raw.layout)?;
    // SAFETY: the caller vouches for n_bytes bytes.
    let bytes = unsafe { elements(raw.bytes, raw.n_bytes) }?;
    let weights = Weights::new(layout, bytes).map_err(|why| match why {
        // As the C++ reference has it: it comes as an argument, too.
        FormatError::Scale { .. } => Refusal::Argument,
        why => Refusal::Backend(why.into()),
    })?;
    if weights.scale().to_bits() == raw.scale.to_bits() { Ok(weights) } else { Err(Refusal::Argument) }
}

unsafe extern "C" fn available<const I: usize>(why: *mut *const c_char) -> sys::bnb_status {
    answered(|| {
        let exported = exported().get(I).ok_or(Refusal::Argument)?;
        let text = exported.why_not.as_ref().map_or(c"".as_ptr(), |text| text.as_ptr());
        if !why.is_null() {
            // SAFETY: the caller's place for one pointer.
            unsafe { why.write(text) };
        }
        backend(I).map(drop)
    })
}

unsafe extern "C" fn quantize_weights<const I: usize>(
    raw: *const sys::bnb_layout,
    rule: u32,
    src: *const f32,
    n_src: u64,
    dst: *mut u8,
    n_dst: u64,
    scale: *mut f32,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: null is checked; else a layout by contract.
        let layout = layout(unsafe { raw.as_ref() }.ok_or(Refusal::Argument)?)?;
        let rule = match rule {
            sys::BNB_RULE_ABSMEAN => WeightRule::AbsMean,
            sys::BNB_RULE_MAXABS => WeightRule::MaxAbs,
            _ => return Err(Refusal::Argument),
        };
        // SAFETY: buffers and counts are the caller's by contract, and do not overlap.
        let (src, dst, scale) =
            unsafe { (elements(src, n_src)?, elements_mut(dst, n_dst)?, elements_mut(scale, 1)?) };
        scale[0] = match backend(I)?.quantize_weights(&layout, rule, src, dst) {
            Ok(scale) => scale,
            // Floats that no tensor of the format can stand for; no weight bytes are at fault.
            Err(BackendError::Format(FormatError::Scale { .. })) => {
                let (backend, what) =
                    (exported()[I].backend.name().to_owned(), "an infinite scale".to_owned());
                return Err(Refusal::Backend(BackendError::Unsupported { backend, what }));
            }
            Err(why) => return Err(why.into()),
        };
        Ok(())
    })
}

unsafe extern "C" fn dequantize_weights<const I: usize>(
    raw: *const sys::bnb_weights,
    dst: *mut f32,
    n_dst: u64,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: buffers and counts are the caller's by contract, and do not overlap.
        let (weights, dst) = unsafe { (weights(raw)?, elements_mut(dst, n_dst)?) };
        Ok(backend(I)?.dequantize_weights(&weights, dst)?)
    })
}

unsafe extern "C" fn quantize_activations<const I: usize>(
    x: *const f32,
    n_x: u64,
    rows: u64,
    cols: u64,
    q: *mut i8,
    n_q: u64,
    scale: *mut f32,
    n_scale: u64,
    sum: *mut i32,
    n_sum: u64,
) -> sys::bnb_status {
    answered(|| {
        if n_scale != rows || n_sum != rows {
            return Err(Refusal::Argument);
        }
        // SAFETY: buffers and counts are the caller's by contract, and do not overlap.
        let (x, q, scale, sum) = unsafe {
            (
                elements(x, n_x)?,
                elements_mut(q, n_q)?,
                elements_mut(scale, n_scale)?,
                elements_mut(sum, n_sum)?,
            )
        };
        Ok(backend(I)?.quantize_activations(x, count::<f32>(cols)?, q, scale, sum)?)
    })
}

/// What a handle of ours leads to.
struct Handle {
    run: Box<dyn Matmul>,
    rows: usize,
    cols: usize,
}

unsafe extern "C" fn matmul_prepare<const I: usize>(
    raw: *const sys::bnb_weights,
    n_max: u64,
    threads: u32,
    handle: *mut *mut sys::bnb_matmul,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: by contract the bytes stay valid and unchanged until matmul_free, which ends the handle that reads
        // them; `handle` is the caller's place for one pointer.
        let (weights, place) = unsafe { (weights::<'static>(raw)?, elements_mut(handle, 1)?) };
        let (rows, cols) = (weights.layout().rows(), weights.layout().cols());
        let run = backend(I)?.prepare_matmul(weights, count::<f32>(n_max)?, threads as usize)?;
        place[0] = Box::into_raw(Box::new(Handle { run, rows, cols })).cast();
        Ok(())
    })
}

/// # Safety
/// `handle` is null or came from the function that makes such handles and was not freed; one thread uses it at a time.
unsafe fn opened<'a, H, T>(handle: *mut T) -> Result<&'a mut H, Refusal> {
    // SAFETY: the caller vouches for it.
    unsafe { handle.cast::<H>().as_mut() }.ok_or(Refusal::Argument)
}

/// Ends a handle that leads to a `H`; null is allowed.
///
/// # Safety
/// As [`opened`], and it is not used again.
unsafe fn ended<H, T>(handle: *mut T) {
    if !handle.is_null() {
        // A backend that panics while it frees leaks; nothing else can be done from here.
        // SAFETY: the caller vouches for it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(unsafe { Box::from_raw(handle.cast::<H>()) })));
    }
}

/// Refuses counts that are not `n` rows of a handle's shape `[rows, cols]`.
fn check_counts((rows, cols): (usize, usize), n: u64, n_in: u64, n_out: u64) -> Result<(), Refusal> {
    let fits = |width: usize, total: u64| n.checked_mul(width as u64) == Some(total);
    if fits(cols, n_in) && fits(rows, n_out) { Ok(()) } else { Err(Refusal::Argument) }
}

unsafe extern "C" fn matmul_i8_i32(
    handle: *mut sys::bnb_matmul,
    q: *const i8,
    n_q: u64,
    n: u64,
    out: *mut i32,
    n_out: u64,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: handle, buffers and counts are the caller's by contract, and do not overlap.
        let (handle, q, out) =
            unsafe { (opened::<Handle, _>(handle)?, elements(q, n_q)?, elements_mut(out, n_out)?) };
        check_counts((handle.rows, handle.cols), n, n_q, n_out)?;
        Ok(handle.run.matmul_i8_i32(q, out)?)
    })
}

unsafe extern "C" fn linear_f32_f32(
    handle: *mut sys::bnb_matmul,
    x: *const f32,
    n_x: u64,
    n: u64,
    y: *mut f32,
    n_y: u64,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: handle, buffers and counts are the caller's by contract, and do not overlap.
        let (handle, x, y) =
            unsafe { (opened::<Handle, _>(handle)?, elements(x, n_x)?, elements_mut(y, n_y)?) };
        check_counts((handle.rows, handle.cols), n, n_x, n_y)?;
        Ok(handle.run.linear_f32_f32(x, y)?)
    })
}

unsafe extern "C" fn matmul_free(handle: *mut sys::bnb_matmul) {
    // SAFETY: it came from `matmul_prepare` and is not used again, by contract.
    unsafe { ended::<Handle, _>(handle) };
}

unsafe extern "C" fn matmul_bytes(handle: *const sys::bnb_matmul) -> u64 {
    let ask = || {
        // SAFETY: null, or made by `matmul_prepare` and not freed, by contract.
        let handle = unsafe { handle.cast::<Handle>().as_ref() }?;
        handle.run.prepared_bytes()
    };
    // Only backends that say it export this function.
    catch_unwind(AssertUnwindSafe(ask)).ok().flatten().unwrap_or(0) as u64
}

/// What a handle of float products leads to.
struct FloatHandle {
    run: Box<dyn FloatMatmul>,
    rows: usize,
    cols: usize,
}

/// # Safety
/// `raw` is null or leads to a matrix whose bytes stay valid and unchanged for `'a`.
unsafe fn float_matrix<'a>(
    raw: *const sys::bnb_float_matrix,
) -> Result<(FloatMatrix<'a>, Arithmetic), Refusal> {
    // SAFETY: null is checked; else the caller vouches for it.
    let raw = unsafe { raw.as_ref() }.ok_or(Refusal::Argument)?;
    let float_type = match raw.type_ {
        sys::BNB_TYPE_F32 => FloatType::F32,
        sys::BNB_TYPE_F16 => FloatType::F16,
        sys::BNB_TYPE_BF16 => FloatType::Bf16,
        sys::BNB_TYPE_Q8_0 => FloatType::Q8_0,
        sys::BNB_TYPE_Q6_K => FloatType::Q6K,
        _ => return Err(Refusal::Argument),
    };
    let arithmetic = match raw.arithmetic {
        sys::BNB_ARITHMETIC_F32 => Arithmetic::F32,
        sys::BNB_ARITHMETIC_NATIVE => Arithmetic::Native,
        _ => return Err(Refusal::Argument),
    };
    let (rows, cols) = (count::<f32>(raw.rows)?, count::<f32>(raw.cols)?);
    if rows == 0 || cols == 0 || !cols.is_multiple_of(float_type.block_len()) {
        let what = format!("{float_type:?} {rows}x{cols}");
        return Err(Refusal::Backend(BackendError::Unsupported { backend: String::new(), what }));
    }
    // SAFETY: the caller vouches for n_bytes bytes.
    let bytes = unsafe { elements(raw.bytes, raw.n_bytes) }?;
    let matrix = FloatMatrix::new(float_type, rows, cols, bytes).ok_or(Refusal::Argument)?;
    Ok((matrix, arithmetic))
}

unsafe extern "C" fn float_prepare<const I: usize>(
    raw: *const sys::bnb_float_matrix,
    n_max: u64,
    threads: u32,
    handle: *mut *mut sys::bnb_float_matmul,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: by contract the bytes stay valid and unchanged until float_free, which ends the handle that reads
        // them; `handle` is the caller's place for one pointer.
        let ((matrix, arithmetic), place) =
            unsafe { (float_matrix::<'static>(raw)?, elements_mut(handle, 1)?) };
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let n_max = count::<f32>(n_max)?;
        let run = backend(I)?.prepare_float_matmul(matrix, arithmetic, n_max, threads as usize)?;
        place[0] = Box::into_raw(Box::new(FloatHandle { run, rows, cols })).cast();
        Ok(())
    })
}

unsafe extern "C" fn float_matmul(
    handle: *mut sys::bnb_float_matmul,
    x: *const f32,
    n_x: u64,
    n: u64,
    y: *mut f32,
    n_y: u64,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: handle, buffers and counts are the caller's by contract, and do not overlap.
        let (handle, x, y) =
            unsafe { (opened::<FloatHandle, _>(handle)?, elements(x, n_x)?, elements_mut(y, n_y)?) };
        check_counts((handle.rows, handle.cols), n, n_x, n_y)?;
        Ok(handle.run.matmul_f32(x, y)?)
    })
}

unsafe extern "C" fn float_free(handle: *mut sys::bnb_float_matmul) {
    // SAFETY: it came from `float_prepare` and is not used again, by contract.
    unsafe { ended::<FloatHandle, _>(handle) };
}

unsafe extern "C" fn quiesce<const I: usize>() {
    let _ = catch_unwind(|| exported().get(I).map(|exported| exported.backend.quiesce()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_has_an_index() {
        let names: Vec<String> = backends::all().iter().map(|backend| backend.name().to_owned()).collect();
        assert!(names.len() <= MOST && names.len() == exported().len());
        for (index, name) in names.iter().enumerate() {
            let api = bitnet_backend_v1(index as u32);
            // SAFETY: not null, as the structure of a static.
            let text = unsafe { std::ffi::CStr::from_ptr((*api).name) };
            assert_eq!(text.to_str(), Ok(name.as_str()));
        }
        assert!(bitnet_backend_v1(names.len() as u32).is_null() && bitnet_backend_v1(u32::MAX).is_null());
    }

    /// What no checked caller of ours sends.
    #[test]
    fn hostile_calls_are_answered_not_obeyed() {
        let null = std::ptr::null::<u8>();
        let status = |answer: sys::bnb_status| answer as u32;
        for index in 0..exported().len() as u32 {
            // SAFETY: a static structure.
            let api = unsafe { *bitnet_backend_v1(index) };
            let layout =
                sys::bnb_layout { format: sys::BNB_FORMAT_I2_S, bm: 0, bk: 0, by: 0, rows: 1, cols: 128 };
            let quantize = api.quantize_weights.expect("offered");
            let mut scale = 0.0;
            // SAFETY: null pointers and counts of nothing are what is tested.
            unsafe {
                let none = std::ptr::null_mut();
                let answer = quantize(std::ptr::null(), 1, null.cast(), 0, none, 0, &raw mut scale);
                assert_eq!(status(answer), sys::BNB_INVALID_ARGUMENT);
                let answer = quantize(&raw const layout, 1, null.cast(), 128, none, 64, &raw mut scale);
                assert_eq!(status(answer), sys::BNB_INVALID_ARGUMENT, "null with a count");
                let answer = quantize(&raw const layout, 1, null.cast(), u64::MAX, none, 64, &raw mut scale);
                assert_eq!(status(answer), sys::BNB_INVALID_ARGUMENT, "absurd counts");
                let answer = quantize(&raw const layout, 9, null.cast(), 0, none, 0, &raw mut scale);
                assert_eq!(status(answer), sys::BNB_INVALID_ARGUMENT, "unknown rule");
                let huge = sys::bnb_layout { rows: u64::MAX / 2, ..layout };
                let answer = quantize(&raw const huge, 1, null.cast(), 0, none, 0, &raw mut scale);
                assert_eq!(status(answer), sys::BNB_INVALID_ARGUMENT, "overflowing shape");
                let odd = sys::bnb_layout { cols: 129, ..layout };
                let answer = quantize(&raw const odd, 1, null.cast(), 0, none, 0, &raw mut scale);
                assert_eq!(status(answer), sys::BNB_UNSUPPORTED);
                let run = api.matmul_i8_i32.expect("offered");
                assert_eq!(
                    status(run(none.cast(), null.cast(), 0, 0, none.cast(), 0)),
                    sys::BNB_INVALID_ARGUMENT
                );
                let prepare = api.matmul_prepare.expect("offered");
                let mut handle = std::ptr::null_mut();
                assert_eq!(
                    status(prepare(std::ptr::null(), 1, 1, &raw mut handle)),
                    sys::BNB_INVALID_ARGUMENT
                );
                assert!(handle.is_null());
                api.matmul_free.expect("offered")(std::ptr::null_mut());
                api.quiesce.expect("offered")();
            }
        }
    }

    /// The scale of such weights leaves the range of float32.
    #[test]
    fn an_infinite_scale_is_unsupported_and_nothing_is_written() {
        let layout =
            sys::bnb_layout { format: sys::BNB_FORMAT_I2_S, bm: 0, bk: 0, by: 0, rows: 1, cols: 128 };
        let (src, mut dst, mut scale) = ([f32::MAX; 128], [0x5a_u8; 64], 7.0);
        for exported in exported().iter().filter(|exported| exported.why_not.is_none()) {
            let quantize = exported.api.quantize_weights.expect("offered");
            let rule = sys::BNB_RULE_ABSMEAN;
            // SAFETY: buffers and counts are as the contract demands.
            let answer = unsafe {
                let dst = dst.as_mut_ptr();
                quantize(&raw const layout, rule, src.as_ptr(), 128, dst, 64, &raw mut scale)
            };
            let what = exported.backend.name();
            assert_eq!((answer as u32, scale), (sys::BNB_UNSUPPORTED, 7.0), "{what}");
            assert_eq!(dst, [0x5a; 64], "{what}");
        }
    }

    /// The scale of weights stands in their bytes and beside them; one that is none is a wrong argument.
    #[test]
    fn a_scale_that_is_no_number_is_refused_everywhere() {
        let layout = Layout::i2s(1, 128).expect("legal");
        let mut bytes = vec![0; layout.packed_bytes()];
        crate::bitnet::formats::pack(&layout, &[1; 128], 0.5, &mut bytes).expect("legal");
        for scale in [f32::INFINITY, f32::NAN, -0.5] {
            let at = layout.scale_offset();
            bytes[at..at + 4].copy_from_slice(&scale.to_le_bytes());
            let raw = sys::bnb_weights {
                layout: sys::bnb_layout {
                    format: sys::BNB_FORMAT_I2_S,
                    bm: 0,
                    bk: 0,
                    by: 0,
                    rows: 1,
                    cols: 128,
                },
                bytes: bytes.as_ptr(),
                n_bytes: bytes.len() as u64,
                scale,
            };
            for exported in exported().iter().filter(|exported| exported.why_not.is_none()) {
                let dequantize = exported.api.dequantize_weights.expect("offered");
                let mut dst = [7.0; 128];
                // SAFETY: buffers and counts are as the contract demands.
                let answer = unsafe { dequantize(&raw const raw, dst.as_mut_ptr(), 128) };
                let what = exported.backend.name();
                assert_eq!(answer as u32, sys::BNB_INVALID_ARGUMENT, "{what}: {scale}");
                assert_eq!(dst, [7.0; 128], "{what}: {scale}");
            }
        }
    }

    /// A handle refuses counts that are not its shape, and computes with those that are.
    #[test]
    fn handles_check_their_counts() {
        let layout = Layout::i2s(3, 128).expect("legal");
        let mut bytes = vec![0; layout.packed_bytes()];
        crate::bitnet::formats::pack(&layout, &[1; 384], 0.5, &mut bytes).expect("legal");
        let raw = sys::bnb_weights {
            layout: sys::bnb_layout { format: sys::BNB_FORMAT_I2_S, bm: 0, bk: 0, by: 0, rows: 3, cols: 128 },
            bytes: bytes.as_ptr(),
            n_bytes: bytes.len() as u64,
            scale: 0.5,
        };
        let (q, mut out) = ([2_i8; 128], [0_i32; 3]);
        for exported in exported().iter().filter(|exported| exported.why_not.is_none()) {
            let mut handle = std::ptr::null_mut();
            // SAFETY: buffers and counts are as the contract demands, but where a refusal is tested.
            unsafe {
                let prepare = exported.api.matmul_prepare.expect("offered");
                let wrong = sys::bnb_weights { scale: 0.25, ..raw };
                assert_eq!(
                    prepare(&raw const wrong, 1, 1, &raw mut handle) as u32,
                    sys::BNB_INVALID_ARGUMENT
                );
                assert_eq!(prepare(&raw const raw, 1, 1, &raw mut handle) as u32, sys::BNB_OK);
                let run = exported.api.matmul_i8_i32.expect("offered");
                assert_eq!(
                    run(handle, q.as_ptr(), 127, 1, out.as_mut_ptr(), 3) as u32,
                    sys::BNB_INVALID_ARGUMENT
                );
                assert_eq!(
                    run(handle, q.as_ptr(), 128, 1, out.as_mut_ptr(), 2) as u32,
                    sys::BNB_INVALID_ARGUMENT
                );
                assert_eq!(run(handle, q.as_ptr(), 128, 1, out.as_mut_ptr(), 3) as u32, sys::BNB_OK);
                exported.api.matmul_free.expect("offered")(handle);
            }
            assert_eq!(out, [256; 3], "{}", exported.backend.name());
        }
    }

    /// Float products through the exported functions, and what they refuse.
    #[test]
    fn float_handles_check_their_matrix_and_their_counts() {
        let bytes: Vec<u8> = (0..3 * 40).flat_map(|k| (k as f32).to_le_bytes()).collect();
        let raw = sys::bnb_float_matrix {
            type_: sys::BNB_TYPE_F32,
            arithmetic: sys::BNB_ARITHMETIC_F32,
            rows: 3,
            cols: 40,
            bytes: bytes.as_ptr(),
            n_bytes: bytes.len() as u64,
        };
        type Change = fn(&mut sys::bnb_float_matrix);
        let refused: [(Change, u32); 10] = [
            (|raw| raw.type_ = sys::BNB_TYPE_I2_S, sys::BNB_INVALID_ARGUMENT),
            (|raw| raw.type_ = 99, sys::BNB_INVALID_ARGUMENT),
            (|raw| raw.type_ = sys::BNB_TYPE_Q8_0, sys::BNB_UNSUPPORTED),
            (|raw| raw.type_ = sys::BNB_TYPE_F16, sys::BNB_INVALID_ARGUMENT),
            (|raw| raw.arithmetic = 0, sys::BNB_INVALID_ARGUMENT),
            (|raw| raw.arithmetic = sys::BNB_ARITHMETIC_NATIVE, sys::BNB_UNSUPPORTED),
            (|raw| raw.rows = 0, sys::BNB_UNSUPPORTED),
            (|raw| raw.rows = u64::MAX, sys::BNB_INVALID_ARGUMENT),
            (|raw| (raw.rows, raw.cols) = (1 << 40, 1 << 40), sys::BNB_INVALID_ARGUMENT),
            (|raw| raw.bytes = std::ptr::null(), sys::BNB_INVALID_ARGUMENT),
        ];
        for index in 0..exported().len() {
            // SAFETY: a static structure.
            let api = unsafe { *bitnet_backend_v1(index as u32) };
            let (Some(prepare), Some(run), Some(free)) =
                (api.float_prepare, api.float_matmul, api.float_free)
            else {
                panic!("every index has the functions");
            };
            let exported = &exported()[index];
            if exported.why_not.is_some() || !exported.backend.name().starts_with("rust-") {
                continue;
            }
            let mut handle = std::ptr::null_mut();
            // SAFETY: buffers and counts are as the contract demands, but where a refusal is tested.
            unsafe {
                for (change, expected) in refused {
                    let mut wrong = raw;
                    change(&mut wrong);
                    assert_eq!(prepare(&raw const wrong, 2, 1, &raw mut handle) as u32, expected);
                    assert!(handle.is_null());
                }
                assert_eq!(
                    prepare(std::ptr::null(), 2, 1, &raw mut handle) as u32,
                    sys::BNB_INVALID_ARGUMENT
                );
                assert_eq!(prepare(&raw const raw, 2, 1, &raw mut handle) as u32, sys::BNB_OK);
                let (x, mut y) = ([1.0_f32; 120], [0.0_f32; 9]);
                for (n_x, n, n_y) in [(39, 1, 3), (40, 1, 2), (80, 1, 6), (120, 3, 9), (40, u64::MAX, 3)] {
                    let answer = run(handle, x.as_ptr(), n_x, n, y.as_mut_ptr(), n_y);
                    assert_eq!(answer as u32, sys::BNB_INVALID_ARGUMENT, "{n_x} {n} {n_y}");
                }
                assert_eq!(
                    run(handle, std::ptr::null(), 40, 1, y.as_mut_ptr(), 3) as u32,
                    sys::BNB_INVALID_ARGUMENT
                );
                assert_eq!(
                    run(std::ptr::null_mut(), x.as_ptr(), 0, 0, y.as_mut_ptr(), 0) as u32,
                    sys::BNB_INVALID_ARGUMENT
                );
                assert_eq!(run(handle, x.as_ptr(), 40, 1, y.as_mut_ptr(), 3) as u32, sys::BNB_OK);
                assert_eq!(y[..3], [780.0, 2380.0, 3980.0], "{}", exported.backend.name());
                free(handle);
                free(std::ptr::null_mut());
            }
        }
    }

    /// A function that would answer 0 for "not said" is not offered.
    #[test]
    fn bytes_of_prepared_weights_are_said_or_not_offered() {
        let layout = Layout::i2s(2, 128).expect("legal");
        let bytes = vec![0; layout.packed_bytes()];
        for (index, exported) in exported().iter().enumerate().filter(|(_, e)| e.why_not.is_none()) {
            let weights = Weights::new(layout, &bytes).expect("legal");
            let said = exported.backend.prepare_matmul(weights, 1, 1).expect("prepares").prepared_bytes();
            assert_eq!(said.is_some(), exported.api.matmul_bytes.is_some(), "{index}");
        }
        let oracle = exported()[0].api.matmul_bytes.expect("the oracle says");
        let raw = sys::bnb_weights {
            layout: sys::bnb_layout { format: sys::BNB_FORMAT_I2_S, bm: 0, bk: 0, by: 0, rows: 2, cols: 128 },
            bytes: bytes.as_ptr(),
            n_bytes: bytes.len() as u64,
            scale: 0.0,
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: as the contract demands.
        unsafe {
            let prepare = exported()[0].api.matmul_prepare.expect("offered");
            assert_eq!(prepare(&raw const raw, 1, 1, &raw mut handle) as u32, sys::BNB_OK);
            assert_eq!(oracle(handle), 3 * 128, "codes of two rows, and one row of activations");
            exported()[0].api.matmul_free.expect("offered")(handle);
        }
    }
}
