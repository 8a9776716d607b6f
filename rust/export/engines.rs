//! Our engine behind the contract: one for each index, over the products of that index's backend.

use super::{Refusal, answered, backend, count, elements, elements_mut, ended, opened};
use crate::backends::contract::sys;
use crate::bitnet::formats::{Layout, Tile, WeightFormat, Weights};
use crate::bitnet::model::{FloatMatrix, FloatType};
use crate::inference::{
    Activation, CacheType, Engine, Graph, NamedTensor, Numerics, RopePairs, RunOptions, TensorData,
    Transformer,
};
use std::ffi::{CStr, c_char};

/// The engine functions of an index, in a table that has the others.
pub(super) fn with_engines<const I: usize>(table: sys::bnb_api) -> sys::bnb_api {
    sys::bnb_api {
        engine_create: Some(engine_create::<I>),
        engine_prefill: Some(engine_prefill),
        engine_decode: Some(engine_decode),
        engine_logits: Some(engine_logits),
        engine_tap: Some(engine_tap),
        engine_reset: Some(engine_reset),
        engine_free: Some(engine_free),
        ..table
    }
}

/// What a handle leads to.
struct Handle {
    engine: Transformer<'static>,
    taps: Vec<Tap>,
}

/// Where an intermediate is written after each call.
struct Tap {
    name: String,
    dst: *mut f32,
    n: usize,
}

fn graph_and_options(raw: &sys::bnb_model) -> Result<(Graph, RunOptions), Refusal> {
    let graph = Graph {
        activation: match raw.activation {
            sys::BNB_ACTIVATION_SILU => Activation::Silu,
            sys::BNB_ACTIVATION_RELU_SQUARED => Activation::ReluSquared,
            _ => return Err(Refusal::Argument),
        },
        rope: match raw.rope {
            sys::BNB_ROPE_HALVES => RopePairs::Halves,
            sys::BNB_ROPE_NEIGHBOURS => RopePairs::Neighbours,
            _ => return Err(Refusal::Argument),
        },
        sub_norms: match raw.sub_norms {
            0 => false,
            1 => true,
            _ => return Err(Refusal::Argument),
        },
        hidden: count::<f32>(raw.hidden)?,
        ffn: count::<f32>(raw.ffn)?,
        layers: count::<f32>(raw.layers)?,
        heads: count::<f32>(raw.heads)?,
        kv_heads: count::<f32>(raw.kv_heads)?,
        head_dim: count::<f32>(raw.head_dim)?,
        vocab: count::<f32>(raw.vocab)?,
        rope_base: raw.rope_base,
        norm_eps: raw.norm_eps,
    };
    let options = RunOptions {
        numerics: match raw.numerics {
            sys::BNB_NUMERICS_GGML => Numerics::Ggml,
            sys::BNB_NUMERICS_PURE_F32 => Numerics::PureF32,
            _ => return Err(Refusal::Argument),
        },
        cache: match raw.kv_type {
            sys::BNB_TYPE_F16 => CacheType::F16,
            sys::BNB_TYPE_F32 => CacheType::F32,
            _ => return Err(Refusal::Argument),
        },
        threads: raw.threads as usize,
        context: count::<f32>(raw.context)?,
        batch: count::<f32>(raw.batch)?,
        outputs: count::<f32>(raw.outputs)?,
    };
    Ok((graph, options))
}

/// # Safety
/// The name is null or NUL-terminated text, and the bytes stay valid and unchanged for `'a`.
unsafe fn tensor<'a>(raw: &sys::bnb_tensor) -> Result<NamedTensor<'a>, Refusal> {
    // SAFETY: the caller vouches for it.
    let name = unsafe { text(raw.name) }?.ok_or(Refusal::Argument)?.to_string();
    // SAFETY: the caller vouches for n_bytes bytes.
    let bytes = unsafe { elements(raw.bytes, raw.n_bytes) }?;
    let (rows, cols) = (count::<f32>(raw.rows)?, count::<f32>(raw.cols)?);
    rows.checked_mul(cols).and_then(|n| n.checked_mul(8)).ok_or(Refusal::Argument)?;
    let float_type = match raw.type_ {
        sys::BNB_TYPE_F32 => Some(FloatType::F32),
        sys::BNB_TYPE_F16 => Some(FloatType::F16),
        sys::BNB_TYPE_BF16 => Some(FloatType::Bf16),
        sys::BNB_TYPE_Q8_0 => Some(FloatType::Q8_0),
        sys::BNB_TYPE_Q6_K => Some(FloatType::Q6K),
        _ => None,
    };
    let format = match raw.type_ {
        sys::BNB_TYPE_I2_S => Some(WeightFormat::I2S),
        sys::BNB_TYPE_TL1 => Some(WeightFormat::Tl1),
        sys::BNB_TYPE_TL2 => Some(WeightFormat::Tl2),
        _ => None,
    };
    let tile = Tile { bm: raw.bm as usize, bk: raw.bk as usize, by: raw.by as usize };
    let tile = Some(tile).filter(|_| (raw.bm, raw.bk, raw.by) != (0, 0, 0));
    let data = match (float_type, format) {
        (Some(float_type), _) => {
            TensorData::Floats(FloatMatrix::new(float_type, rows, cols, bytes).ok_or(Refusal::Argument)?)
        }
        (None, Some(format)) => {
            let layout = Layout::from_parts(format, rows, cols, tile);
            let weights = layout.and_then(|layout| Weights::new(layout, bytes));
            TensorData::Ternary(weights.map_err(|why| Refusal::Backend(why.into()))?)
        }
        (None, None) => return Err(Refusal::Argument),
    };
    Ok(NamedTensor { name, data })
}

/// # Safety
/// `pointer` is null or leads to NUL-terminated text that lives for `'a`.
unsafe fn text<'a>(pointer: *const c_char) -> Result<Option<&'a str>, Refusal> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not null; the caller vouches for the rest.
    unsafe { CStr::from_ptr(pointer) }.to_str().map(Some).map_err(|_| Refusal::Argument)
}

unsafe extern "C" fn engine_create<const I: usize>(
    raw: *const sys::bnb_model,
    tensors: *const sys::bnb_tensor,
    n_tensors: u64,
    place: *mut *mut sys::bnb_engine,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: null is checked; else the model, the tensors and the place are the caller's by contract.
        let (raw, tensors, place) = unsafe {
            (raw.as_ref().ok_or(Refusal::Argument)?, elements(tensors, n_tensors)?, elements_mut(place, 1)?)
        };
        let (graph, options) = graph_and_options(raw)?;
        // SAFETY: by contract names live now, and the bytes stay valid and unchanged until engine_free, which ends the
        // handle that reads them.
        let tensors: Result<Vec<NamedTensor<'static>>, _> =
            tensors.iter().map(|raw| unsafe { tensor(raw) }).collect();
        let engine = Transformer::new(backend(I)?, &graph, &tensors?, &options)?;
        place[0] = Box::into_raw(Box::new(Handle { engine, taps: Vec::new() })).cast();
        Ok(())
    })
}

/// Runs tokens, then writes to where the taps lead.
fn run(handle: &mut Handle, tokens: &[u32], n_outputs: usize) -> Result<(), Refusal> {
    handle.engine.prefill(tokens, n_outputs)?;
    for tap in &handle.taps {
        let values = handle.engine.tapped(&tap.name).unwrap_or_default();
        let n = values.len().min(tap.n);
        // SAFETY: `dst` is valid for tap.n values until the tap is changed or the engine freed, by contract.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), tap.dst, n) };
    }
    Ok(())
}

unsafe extern "C" fn engine_prefill(
    handle: *mut sys::bnb_engine,
    tokens: *const u32,
    n: u64,
    n_outputs: u64,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: handle, tokens and count are the caller's by contract.
        let (handle, tokens) = unsafe { (opened::<Handle, _>(handle)?, elements(tokens, n)?) };
        run(handle, tokens, count::<f32>(n_outputs)?)
    })
}

unsafe extern "C" fn engine_decode(handle: *mut sys::bnb_engine, token: u32) -> sys::bnb_status {
    answered(|| {
        // SAFETY: the handle is the caller's by contract.
        run(unsafe { opened::<Handle, _>(handle) }?, &[token], 1)
    })
}

unsafe extern "C" fn engine_logits(
    handle: *mut sys::bnb_engine,
    logits: *mut f32,
    n_logits: u64,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: handle, buffer and count are the caller's by contract.
        let (handle, logits) = unsafe { (opened::<Handle, _>(handle)?, elements_mut(logits, n_logits)?) };
        let kept = handle.engine.logits();
        if kept.len() != logits.len() {
            return Err(Refusal::Argument);
        }
        logits.copy_from_slice(kept);
        Ok(())
    })
}

unsafe extern "C" fn engine_tap(
    handle: *mut sys::bnb_engine,
    name: *const c_char,
    dst: *mut f32,
    n_dst: u64,
) -> sys::bnb_status {
    answered(|| {
        // SAFETY: handle and text are the caller's by contract.
        let (handle, name) = unsafe { (opened::<Handle, _>(handle)?, text(name)?) };
        let Some(name) = name else {
            handle.engine.untap();
            handle.taps.clear();
            return Ok(());
        };
        if dst.is_null() {
            handle.taps.retain(|tap| tap.name != name);
            return Ok(());
        }
        if !dst.is_aligned() {
            return Err(Refusal::Argument);
        }
        handle.engine.tap(name)?;
        handle.taps.retain(|tap| tap.name != name);
        handle.taps.push(Tap { name: name.to_string(), dst, n: count::<f32>(n_dst)? });
        Ok(())
    })
}

unsafe extern "C" fn engine_reset(handle: *mut sys::bnb_engine) -> sys::bnb_status {
    answered(|| {
        // SAFETY: the handle is the caller's by contract.
        Ok(unsafe { opened::<Handle, _>(handle) }?.engine.reset()?)
    })
}

unsafe extern "C" fn engine_free(handle: *mut sys::bnb_engine) {
    // SAFETY: it came from `engine_create` and is not used again, by contract.
    unsafe { ended::<Handle, _>(handle) };
}

#[cfg(test)]
mod tests;
