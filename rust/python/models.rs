//! Whole models from Python: what a file holds, tokens from it, and where two engines part.

use super::{guarded, input_error, json, typed_error};
use crate::backends::{self, Availability, Backend};
use crate::bitnet::model::gguf::Gguf;
use crate::bitnet::model::{CacheType, Numerics, RunOptions, TensorData, read_model};
use crate::campaign;
use crate::inference::divergence::{Divergence, diverge};
use crate::inference::{self, Engine};
use crate::measure::wall_ns;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How an engine is asked for from Python: rule of rounding, type of the cache, threads.
pub(super) type Asked = (String, String, usize);

pub(super) fn options(
    (numerics, cache, threads): &Asked,
    context: usize,
    batch: usize,
    outputs: usize,
) -> PyResult<RunOptions> {
    let unknown = |what: &str, found: &str, known: &str| {
        input_error(format!("no {what} is called {found:?}; known: {known}"))
    };
    Ok(RunOptions {
        numerics: match numerics.as_str() {
            "ggml" => Numerics::Ggml,
            "pure-f32" => Numerics::PureF32,
            other => return Err(unknown("rule of rounding", other, "ggml, pure-f32")),
        },
        cache: match cache.as_str() {
            "f16" => CacheType::F16,
            "f32" => CacheType::F32,
            other => return Err(unknown("type of cache", other, "f16, f32")),
        },
        threads: *threads,
        context,
        batch,
        outputs,
    })
}

pub(super) fn opened(path: &Path) -> PyResult<Gguf<'static>> {
    Gguf::open(path).map_err(|why| typed_error(&why))
}

/// An error about a file that does not name it yet.
pub(super) fn about(path: &Path, why: impl std::fmt::Display) -> PyErr {
    input_error(format!("{}: {why}", path.display()))
}

/// Every backend that can run here, plugins behind the built-in ones.
pub(super) fn available(plugins: &[PathBuf]) -> PyResult<Vec<Arc<dyn Backend>>> {
    let mut known = backends::all();
    known.extend(campaign::load(plugins).map_err(input_error)?);
    Ok(known)
}

/// The named backend, or the last one here whose name begins so: the fastest.
pub(super) fn chosen(
    known: &[Arc<dyn Backend>],
    name: Option<&str>,
    prefix: &str,
) -> PyResult<Arc<dyn Backend>> {
    let found = match name {
        Some(name) => known.iter().find(|backend| backend.name() == name),
        None => known.iter().rev().find(|backend| {
            backend.name().starts_with(prefix) && backend.availability() == Availability::Ready
        }),
    };
    let backend = found.ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|backend| backend.name()).collect();
        input_error(format!("no backend is called {:?}; known: {}", name.unwrap_or(prefix), names.join(", ")))
    })?;
    match backend.availability() {
        Availability::Ready => Ok(Arc::clone(backend)),
        Availability::Unavailable(why) => {
            Err(input_error(format!("{} is not available here: {why}", backend.name())))
        }
    }
}

/// Architecture, sides, types and sizes of a model file, and whether engines run it, as JSON text.
#[pyfunction]
fn model_info(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    guarded(py, || json(&described(&path, &opened(&path)?)))
}

/// The same of a file that Python has mapped already.
#[pyfunction]
fn mapped_model_info(py: Python<'_>, path: PathBuf, file: PyReadonlyArray1<'_, u8>) -> PyResult<String> {
    let bytes = file.as_slice().map_err(input_error)?;
    guarded(py, || {
        let gguf = Gguf::parse(bytes).map_err(|why| typed_error(&why.at(&path)))?;
        json(&described(&path, &gguf))
    })
}

fn described(path: &Path, gguf: &Gguf<'_>) -> Value {
    let mut types: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for info in gguf.tensors() {
        let entry = types.entry(info.tensor_type().to_string()).or_default();
        entry.0 += 1;
        entry.1 += gguf.tensor_bytes(info).len() as u64;
    }
    let types: Vec<Value> = types
        .iter()
        .map(|(name, (tensors, bytes))| json!({"type": name, "tensors": tensors, "bytes": bytes}))
        .collect();
    let tensors: Vec<Value> = gguf
        .tensors()
        .iter()
        .map(|info| {
            let bytes = gguf.tensor_bytes(info).len();
            let offset = gguf.tensor_range(info).map(|range| range.start);
            json!({"name": info.name(), "type": info.tensor_type().to_string(), "sides": info.dims(),
                       "offset": offset, "bytes": bytes})
        })
        .collect();
    let mut document = json!({
        "file": path, "bytes": gguf.bytes().len(), "types": types, "tensors": tensors,
        "architecture": gguf.metadata().get("general.architecture").and_then(|value| value.as_str()),
        "name": gguf.metadata().get("general.name").and_then(|value| value.as_str()),
    });
    let more = match read_model(gguf) {
        Err(why) => json!({"runs": false, "why_not": why.to_string()}),
        Ok((config, graph, tensors)) => {
            let of_head = tensors
                .iter()
                .find(|tensor| tensor.name == "output.weight")
                .or_else(|| tensors.iter().find(|tensor| tensor.name == "token_embd.weight"));
            let head = of_head.and_then(|tensor| match tensor.data {
                TensorData::Floats(matrix) => Some(format!("{:?}", matrix.float_type())),
                TensorData::Ternary(_) => None,
            });
            json!({
                "runs": true, "hidden": graph.hidden, "ffn": graph.ffn, "layers": graph.layers,
                "heads": graph.heads, "kv_heads": graph.kv_heads, "head_dim": graph.head_dim,
                "vocab": graph.vocab, "context": config.context, "rope_base": graph.rope_base,
                "norm_eps": graph.norm_eps, "ternary_weights": config.n_ternary_weights(),
                "head_type": head, "sub_norms": graph.sub_norms,
            })
        }
    };
    if let (Value::Object(into), Value::Object(more)) = (&mut document, more) {
        into.extend(more);
    }
    document
}

/// Runs `prompt` and then the most likely token, `n` times, as JSON text: the tokens, and the wall time of both parts.
#[pyfunction]
#[pyo3(signature = (path, prompt, n, backend, run, plugins, progress=None))]
#[expect(clippy::too_many_arguments, reason = "each is a keyword of the Python function")]
fn generate(
    py: Python<'_>,
    path: PathBuf,
    prompt: Vec<u32>,
    n: usize,
    backend: Option<String>,
    run: Asked,
    plugins: Vec<PathBuf>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    guarded(py, move || {
        let gguf = opened(&path)?;
        let (config, graph, tensors) = read_model(&gguf).map_err(|why| about(&path, why))?;
        let context = within_context(config.context, prompt.len(), n.saturating_sub(1))?;
        let backend = chosen(&available(&plugins)?, backend.as_deref(), "rust-")?;
        let options = options(&run, context, prompt.len(), 1)?;
        let mut engine = inference::engine(backend.as_ref(), &graph, &tensors, &options)
            .map_err(|why| about(&path, why))?;
        let begin = wall_ns();
        engine.prefill(&prompt, 1).map_err(|why| about(&path, why))?;
        let prefill_ns = wall_ns() - begin;
        let begin = wall_ns();
        let mut tokens: Vec<u32> = Vec::with_capacity(n);
        while tokens.len() < n {
            let next = inference::argmax(engine.logits());
            let next =
                next.ok_or_else(|| about(&path, "a logit is no number: there is no most likely token"))?;
            tokens.push(next);
            Python::attach(|py| {
                py.check_signals()?;
                progress.as_ref().map_or(Ok(()), |call| call.call1(py, (tokens.len(), n)).map(drop))
            })?;
            if tokens.len() < n {
                engine.decode(next).map_err(|why| about(&path, why))?;
            }
        }
        json(&json!({
            "file": path, "backend": engine.name(), "threads": options.threads, "numerics": run.0, "cache": run.1,
            "prompt": prompt, "tokens": tokens, "prefill_ns": prefill_ns, "decode_ns": wall_ns() - begin,
            // The first token comes out of the prefill.
            "decoded": n.saturating_sub(1),
        }))
    })
}

/// The positions that a prompt and the tokens `more` after it take.
pub(super) fn within_context(context: usize, prompt: usize, more: usize) -> PyResult<usize> {
    if prompt == 0 {
        return Err(input_error("no tokens were given, at least one is needed"));
    }
    let needed = prompt.saturating_add(more);
    if needed > context {
        let and_more = if more == 0 { String::new() } else { format!(" and {more} more") };
        return Err(input_error(format!(
            "{prompt} tokens{and_more} need {needed} positions, and the model was made for {context}"
        )));
    }
    Ok(needed)
}

/// Where the engines of two backends part on the same tokens, as JSON text. `step`: one token a call, else all at once.
/// `bound`: a difference counts from that share of an intermediate's root mean square on.
#[pyfunction]
#[pyo3(signature = (path, tokens, subject, reference, step, bound, run, plugins, subject_path=None))]
#[expect(clippy::too_many_arguments, reason = "each is a keyword of the Python function")]
fn trace(
    py: Python<'_>,
    path: PathBuf,
    tokens: Vec<u32>,
    subject: Option<String>,
    reference: Option<String>,
    step: bool,
    bound: f64,
    run: Asked,
    plugins: Vec<PathBuf>,
    subject_path: Option<PathBuf>,
) -> PyResult<String> {
    guarded(py, move || {
        if !(bound >= 0.0 && bound.is_finite()) {
            return Err(input_error(format!("bound {bound}: expected a number of at least 0")));
        }
        let known = available(&plugins)?;
        let reference = chosen(&known, reference.as_deref(), "cpp-")?;
        let subject = chosen(&known, subject.as_deref(), "rust-")?;
        let file_of_subject = subject_path.as_ref().unwrap_or(&path);
        if reference.name() == subject.name() && *file_of_subject == path {
            let name = subject.name();
            return Err(input_error(format!("{name} on {} is compared with itself", path.display())));
        }
        let (gguf, subject_gguf) = (opened(&path)?, opened(file_of_subject)?);
        let (config, graph, tensors) = read_model(&gguf).map_err(|why| about(&path, why))?;
        let (_, subject_graph, subject_tensors) =
            read_model(&subject_gguf).map_err(|why| about(file_of_subject, why))?;
        let context = within_context(config.context, tokens.len(), 0)?;
        let batch = if step { 1 } else { tokens.len() };
        let options = options(&run, context, batch, batch)?;
        let engine = |backend, graph, tensors: &_, file: &Path| {
            inference::engine(backend, graph, tensors, &options).map_err(|why| about(file, why))
        };
        let mut one = engine(reference.as_ref(), &graph, &tensors, &path)?;
        let mut other = engine(subject.as_ref(), &subject_graph, &subject_tensors, file_of_subject)?;
        let calls: Vec<&[u32]> = tokens.chunks(batch).collect();
        let found = diverge(one.as_mut(), other.as_mut(), &calls, bound).map_err(|why| {
            // The engine that failed is named, not its file.
            match *file_of_subject == path {
                true => about(&path, why),
                false => input_error(format!("{} or {}: {why}", path.display(), file_of_subject.display())),
            }
        })?;
        let mut document = traced(&found, one.as_ref(), other.as_ref());
        document["file"] = json!(path);
        document["subject_file"] = json!(file_of_subject);
        document["tokens"] = json!(tokens);
        document["mode"] = json!(if step { "step" } else { "batch" });
        document["numerics"] = json!(run.0);
        document["cache"] = json!(run.1);
        document["threads"] = json!(run.2);
        document["bound"] = json!(bound);
        json(&document)
    })
}

fn traced(found: &Divergence, reference: &dyn Engine, subject: &dyn Engine) -> Value {
    let operations: Vec<Value> = found
        .operations
        .iter()
        .map(|row| {
            json!({
                "name": row.name, "layer": row.of.layer, "operation": row.of.operation.to_string(),
                "values": row.values, "differing": row.differing, "max_abs": row.max_abs,
                "relative": row.relative, "codes_flipped": row.codes_flipped,
            })
        })
        .collect();
    let first = found.first.as_ref().map(|first| {
        json!({
            "name": first.name, "layer": first.of.layer, "operation": first.of.operation.to_string(),
            "position": first.position, "index": first.index, "reference": first.reference, "subject": first.subject,
        })
    });
    let logits = &found.logits;
    json!({
        "schema": "bitnet-perfgate/trace/1",
        "reference": reference.name(), "subject": subject.name(), "layers": reference.graph().layers,
        "parted": first.is_some(), "first": first, "operations": operations,
        "not_shown": found.not_shown.iter().map(|(name, why)| json!({"name": name, "reason": why})).collect::<Vec<_>>(),
        "logits": {
            "tokens": logits.tokens, "top1": logits.top1, "top5": logits.top5, "kl_mean": logits.kl_mean,
            "kl_max": logits.kl_max, "max_abs": logits.max_abs,
        },
    })
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(model_info, module)?)?;
    module.add_function(wrap_pyfunction!(mapped_model_info, module)?)?;
    module.add_function(wrap_pyfunction!(generate, module)?)?;
    module.add_function(wrap_pyfunction!(trace, module)?)
}
