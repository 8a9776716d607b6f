//! Whole models behind the contract: the functions that came with minor 1, as a safe [`WholeModel`].

use super::safe::ContractBackend;
use super::sys;
use crate::backends::{BackendError, WholeModel};
use crate::bitnet::formats::{self, WeightFormat};
use crate::bitnet::model::{
    Activation, CacheType, FloatType, Graph, NamedTensor, Numerics, RopePairs, RunOptions, TensorData,
};
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr;

/// Asks `backend` to make the model ready.
pub(super) fn prepare<'a>(
    backend: &'a ContractBackend,
    graph: &Graph,
    tensors: &[NamedTensor<'a>],
    options: &RunOptions,
) -> Result<Box<dyn WholeModel + 'a>, BackendError> {
    const DOING: &str = "making a whole model";
    let function = backend.offered(backend.api.engine_create, "whole models")?;
    backend.offered(backend.api.engine_prefill, "whole models: it has no engine_prefill")?;
    backend.offered(backend.api.engine_logits, "whole models: it has no engine_logits")?;
    let raw =
        raw_model(graph, options).ok_or_else(|| backend.unsupported("numbers of threads beyond 2^32"))?;
    let names: Result<Vec<CString>, _> =
        tensors.iter().map(|tensor| CString::new(tensor.name.as_str())).collect();
    let names = names.map_err(|_| backend.unsupported("names of tensors with a NUL inside"))?;
    let raw_tensors: Vec<sys::bnb_tensor> =
        tensors.iter().zip(&names).map(|(tensor, name)| raw_tensor(name, &tensor.data)).collect();
    let mut handle = ptr::null_mut();
    // SAFETY: the model, the tensors and their names live during the call; the bytes of the tensors outlive the handle,
    // because `ContractModel` borrows them for 'a, and their number is that of the shape, which was checked when
    // `Weights` and `FloatMatrix` were made.
    let status = backend
        .call(|| unsafe { function(&raw, raw_tensors.as_ptr(), raw_tensors.len() as u64, &mut handle) })?;
    match u32::try_from(status) {
        Ok(sys::BNB_NON_FINITE) => {
            return Err(backend.internal(format!("{DOING}: it says that a norm is not finite")));
        }
        Ok(sys::BNB_INVALID_DATA) => {
            first_illegal_code(tensors)?;
            return Err(backend.internal(format!("{DOING}: it refused weights whose codes are all legal")));
        }
        _ => backend.answer(status, DOING, &[])?,
    }
    if handle.is_null() {
        return Err(backend.internal(format!("{DOING}: it answered OK without an engine")));
    }
    Ok(Box::new(ContractModel { backend, handle, taps: Vec::new(), bytes: PhantomData }))
}

/// The first code that no packer produces, as an error.
fn first_illegal_code(tensors: &[NamedTensor<'_>]) -> Result<(), BackendError> {
    for tensor in tensors {
        if let TensorData::Ternary(weights) = tensor.data {
            formats::unpack(&weights, &mut vec![0; weights.layout().n_weights()])?;
        }
    }
    Ok(())
}

/// `None` where the number of threads has no place.
fn raw_model(graph: &Graph, options: &RunOptions) -> Option<sys::bnb_model> {
    Some(sys::bnb_model {
        activation: match graph.activation {
            Activation::Silu => sys::BNB_ACTIVATION_SILU,
            Activation::ReluSquared => sys::BNB_ACTIVATION_RELU_SQUARED,
        },
        rope: match graph.rope {
            RopePairs::Halves => sys::BNB_ROPE_HALVES,
            RopePairs::Neighbours => sys::BNB_ROPE_NEIGHBOURS,
        },
        sub_norms: graph.sub_norms.into(),
        numerics: match options.numerics {
            Numerics::Ggml => sys::BNB_NUMERICS_GGML,
            Numerics::PureF32 => sys::BNB_NUMERICS_PURE_F32,
        },
        kv_type: match options.cache {
            CacheType::F16 => sys::BNB_TYPE_F16,
            CacheType::F32 => sys::BNB_TYPE_F32,
        },
        threads: u32::try_from(options.threads).ok()?,
        rope_base: graph.rope_base,
        norm_eps: graph.norm_eps,
        hidden: graph.hidden as u64,
        ffn: graph.ffn as u64,
        layers: graph.layers as u64,
        heads: graph.heads as u64,
        kv_heads: graph.kv_heads as u64,
        head_dim: graph.head_dim as u64,
        vocab: graph.vocab as u64,
        context: options.context as u64,
        batch: options.batch as u64,
        outputs: options.outputs as u64,
    })
}

fn raw_tensor(name: &CStr, data: &TensorData<'_>) -> sys::bnb_tensor {
    let (type_, rows, cols, bytes, tile) = match data {
        TensorData::Ternary(weights) => {
            let layout = weights.layout();
            let type_ = match layout.format() {
                WeightFormat::I2S => sys::BNB_TYPE_I2_S,
                WeightFormat::Tl1 => sys::BNB_TYPE_TL1,
                WeightFormat::Tl2 => sys::BNB_TYPE_TL2,
            };
            (type_, layout.rows(), layout.cols(), weights.bytes(), layout.tile())
        }
        TensorData::Floats(matrix) => {
            let type_ = match matrix.float_type() {
                FloatType::F32 => sys::BNB_TYPE_F32,
                FloatType::F16 => sys::BNB_TYPE_F16,
                FloatType::Q8_0 => sys::BNB_TYPE_Q8_0,
                FloatType::Q6K => sys::BNB_TYPE_Q6_K,
                FloatType::Bf16 => sys::BNB_TYPE_BF16,
            };
            (type_, matrix.rows(), matrix.cols(), matrix.bytes(), None)
        }
    };
    // A side of a matrix in memory; a larger one is refused by the callee, because u32::MAX divides nothing.
    let narrow = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    sys::bnb_tensor {
        name: name.as_ptr(),
        type_,
        bm: tile.map_or(0, |tile| narrow(tile.bm)),
        bk: tile.map_or(0, |tile| narrow(tile.bk)),
        by: tile.map_or(0, |tile| narrow(tile.by)),
        rows: rows as u64,
        cols: cols as u64,
        bytes: bytes.as_ptr(),
        n_bytes: bytes.len() as u64,
    }
}

/// Values that the engine writes during its calls. Between them they are read; a Rust reference exists only then.
struct Tap {
    name: CString,
    values: *mut [f32],
}

impl Tap {
    fn new(backend: &ContractBackend, name: &str, n: usize) -> Result<Self, BackendError> {
        let name = CString::new(name).map_err(|_| backend.unsupported("names with a NUL inside"))?;
        let mut values = Vec::new();
        let out_of_memory = |_| BackendError::OutOfMemory { backend: backend.name.clone() };
        values.try_reserve_exact(n).map_err(out_of_memory)?;
        values.resize(n, 0.0);
        Ok(Self { name, values: Box::into_raw(values.into_boxed_slice()) })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and the engine was told to forget it before.
        drop(unsafe { Box::from_raw(self.values) });
    }
}

/// An engine behind the contract; freed on drop.
struct ContractModel<'a> {
    backend: &'a ContractBackend,
    handle: *mut sys::bnb_engine,
    taps: Vec<Tap>,
    bytes: PhantomData<&'a [u8]>,
}

impl ContractModel<'_> {
    /// A status of a call that runs tokens.
    fn ran(&self, status: sys::bnb_status, doing: &str) -> Result<(), BackendError> {
        if u32::try_from(status) == Ok(sys::BNB_NON_FINITE) {
            return Err(BackendError::NonFinite { index: 0, value: f32::NAN });
        }
        self.backend.answer(status, doing, &[])
    }

    /// Tells the engine where to write that intermediate; null for nowhere.
    fn set_tap(&self, name: *const std::ffi::c_char, dst: *mut f32, n: usize) -> Result<(), BackendError> {
        let function = self.backend.offered(self.backend.api.engine_tap, "taps")?;
        // SAFETY: the handle is live and used by one thread; the name is null or text of this call; `dst` is null or
        // leads to n values that live until the tap ends.
        let status = self.backend.call(|| unsafe { function(self.handle, name, dst, n as u64) })?;
        self.backend.answer(status, "this tap", &[])
    }
}

impl WholeModel for ContractModel<'_> {
    fn prefill(&mut self, tokens: &[u32], n_outputs: usize) -> Result<(), BackendError> {
        let function = self.backend.offered(self.backend.api.engine_prefill, "running tokens")?;
        let n = tokens.len() as u64;
        // SAFETY: the handle is live and used by one thread (&mut); the tokens are valid for their count. Taps lead to
        // buffers of their own, of which no reference exists now.
        let status =
            self.backend.call(|| unsafe { function(self.handle, tokens.as_ptr(), n, n_outputs as u64) })?;
        self.ran(status, "running tokens")
    }

    fn decode(&mut self, token: u32) -> Result<(), BackendError> {
        let Some(function) = self.backend.api.engine_decode else { return self.prefill(&[token], 1) };
        // SAFETY: as above.
        let status = self.backend.call(|| unsafe { function(self.handle, token) })?;
        self.ran(status, "running a token")
    }

    fn logits(&mut self, out: &mut [f32]) -> Result<(), BackendError> {
        let function = self.backend.offered(self.backend.api.engine_logits, "logits")?;
        let n = out.len() as u64;
        // SAFETY: the handle is live and used by one thread (&mut); `out` is valid for its count.
        let status = self.backend.call(|| unsafe { function(self.handle, out.as_mut_ptr(), n) })?;
        self.backend.answer(status, "logits", &[])
    }

    fn tap(&mut self, name: &str, n: usize) -> Result<(), BackendError> {
        let tap = Tap::new(self.backend, name, n)?;
        self.set_tap(tap.name.as_ptr(), tap.values.cast(), n)?;
        self.taps.push(tap);
        Ok(())
    }

    fn tapped(&self, name: &str) -> Option<&[f32]> {
        let tap = self.taps.iter().find(|tap| tap.name.to_bytes() == name.as_bytes())?;
        // SAFETY: it came from a box and is alive; the engine writes during calls only, which take `self` by &mut.
        Some(unsafe { &*tap.values })
    }

    fn untap(&mut self) {
        if self.taps.is_empty() {
            return;
        }
        match self.set_tap(ptr::null(), ptr::null_mut(), 0) {
            Ok(()) => self.taps.clear(),
            // It may go on writing there: the buffers are given up rather than freed under it.
            Err(_) => self.taps.drain(..).for_each(std::mem::forget),
        }
    }

    fn reset(&mut self) -> Result<(), BackendError> {
        let function = self.backend.offered(self.backend.api.engine_reset, "a reset")?;
        // SAFETY: the handle is live and used by one thread (&mut).
        let status = self.backend.call(|| unsafe { function(self.handle) })?;
        self.backend.answer(status, "a reset", &[])
    }
}

impl Drop for ContractModel<'_> {
    fn drop(&mut self) {
        if let Some(function) = self.backend.api.engine_free {
            // SAFETY: the handle came from this backend's engine_create and is freed once; the buffers of taps are
            // dropped after it. A changed floating-point mode is put back and has spoilt nothing.
            let _ = self.backend.call(|| unsafe { function(self.handle) });
        }
    }
}
