//! Where the time of a whole model goes, by operation: our engine tells which operation is done, and a clock is read there.
//!
//! A product is timed with the quantisation of what it reads; products of the same activations run together and are one
//! group. Other engines tell nothing, so a backend that brings its own is looked at through its products alone.

use super::models::{Asked, about, available, chosen, opened, options, within_context};
use super::{guarded, json};
use crate::bitnet::model::read_model;
use crate::inference::{Engine, EngineError, Operation, Transformer};
use crate::measure::wall_ns;
use crate::rng::Rng;
use pyo3::prelude::*;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

/// What is told apart, in the order of computing.
const GROUPS: [&str; 11] = [
    "embedding",
    "norms",
    "attn_q, attn_k, attn_v",
    "rotation",
    "attention",
    "attn_output",
    "residual",
    "ffn_gate, ffn_up",
    "activation",
    "ffn_down",
    "head",
];

fn group(operation: Operation) -> usize {
    use Operation as O;
    match operation {
        O::Embedding => 0,
        O::AttnRms | O::AttnNorm | O::AttnSubRms | O::AttnSubNorm => 1,
        O::FfnRms | O::FfnNorm | O::FfnSubRms | O::FfnSubNorm | O::ResultNorm => 1,
        O::Query | O::Key | O::Value => 2,
        O::QueryRope | O::KeyRope => 3,
        O::Attention => 4,
        O::AttnOutput => 5,
        O::FfnInput | O::LayerOutput => 6,
        O::Gate | O::Up => 7,
        O::Activated | O::Gated => 8,
        O::Down => 9,
        O::Logits => 10,
    }
}

/// Time of each group, and when the last operation was done.
struct Clock {
    elapsed_ns: [u64; GROUPS.len()],
    last_ns: u64,
}

/// Runs `work` and gives its time: as a whole and by group.
fn timed(clock: &RefCell<Clock>, work: impl FnOnce() -> PyResult<()>) -> PyResult<(u64, Vec<Value>)> {
    let begin = wall_ns();
    *clock.borrow_mut() = Clock { elapsed_ns: [0; GROUPS.len()], last_ns: begin };
    work()?;
    let elapsed_ns = wall_ns() - begin;
    let of_groups = GROUPS.iter().zip(clock.borrow().elapsed_ns);
    Ok((elapsed_ns, of_groups.map(|(name, ns)| json!({"operation": name, "elapsed_ns": ns})).collect()))
}

/// Prefill and decode with the time of each operation, as JSON text. `work`: tokens of the prefill, tokens decoded after
/// them, the seed they are drawn from.
#[pyfunction]
fn time_breakdown(
    py: Python<'_>,
    path: PathBuf,
    work: (usize, usize, u64),
    backend: Option<String>,
    run: Asked,
    plugins: Vec<PathBuf>,
) -> PyResult<String> {
    guarded(py, move || {
        let (prefill, decode, seed) = work;
        let gguf = opened(&path)?;
        let (config, graph, tensors) = read_model(&gguf).map_err(|why| about(&path, why))?;
        let context = within_context(config.context, prefill, decode)?;
        let backend = chosen(&available(&plugins)?, backend.as_deref(), "rust-")?;
        let options = options(&run, context, prefill, 1)?;
        let mut engine = Transformer::new(backend.as_ref(), &graph, &tensors, &options)
            .map_err(|why| about(&path, why))?;
        let mut random = Rng::for_part(seed, "tokens of a time breakdown");
        let tokens: Vec<u32> =
            (0..prefill + decode).map(|_| random.below(graph.vocab as u64) as u32).collect();
        let failed = |why: EngineError| about(&path, why);
        let (first, rest) = tokens.split_at(prefill);
        // A run that nobody times: what is read and written for the first time costs more.
        engine.prefill(first, 1).map_err(failed)?;
        engine.reset().map_err(failed)?;

        let clock = Rc::new(RefCell::new(Clock { elapsed_ns: [0; GROUPS.len()], last_ns: 0 }));
        let heard = Rc::clone(&clock);
        engine.watch(Some(Box::new(move |of| {
            let (now, mut clock) = (wall_ns(), heard.borrow_mut());
            let since = now - clock.last_ns;
            clock.elapsed_ns[group(of.operation)] += since;
            clock.last_ns = now;
        })));
        let mut phases = Vec::new();
        let signals = || Python::attach(|py| py.check_signals());
        let (elapsed_ns, operations) = timed(&clock, || engine.prefill(first, 1).map_err(failed))?;
        phases.push(json!({"phase": "prefill", "tokens": prefill, "elapsed_ns": elapsed_ns, "operations": operations}));
        if decode > 0 {
            let (elapsed_ns, operations) = timed(&clock, || {
                rest.iter().try_for_each(|&token| {
                    signals()?;
                    engine.decode(token).map_err(failed)
                })
            })?;
            phases.push(json!({"phase": "decode", "tokens": decode, "elapsed_ns": elapsed_ns, "operations": operations}));
        }
        json(&json!({
            "schema": "bitnet-perfgate/time-breakdown/1",
            "file": path, "backend": backend.name(), "threads": run.2, "numerics": run.0, "cache": run.1, "seed": seed,
            "phases": phases,
        }))
    })
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(time_breakdown, module)?)
}
