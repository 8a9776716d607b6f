//! Small documents that only Python asks for, as serde data.

use super::{file_error, input_error, typed_error};
use crate::backends::{Availability, Backend};
use crate::bitnet::formats::identify::{self, Finding};
use crate::bitnet::formats::repacked::Repacked;
use crate::bitnet::model::config::ModelConfig;
use crate::bitnet::model::gguf::Gguf;
use crate::bitnet::model::map::Map;
use crate::bitnet::model::weights::{ModelFormat, WrittenModel};
use crate::campaign::{self, Ceilings};
use crate::measure::Fingerprint;
use crate::workloads::catalog::{self, Profile};
use pyo3::PyResult;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Most weights that raw bytes are read as: 4 GiB of codes. The largest published matrices have a quarter of that.
const MOST_RAW_WEIGHTS: usize = 1 << 32;

/// Whether a backend can run here, and why not.
fn availability(backend: &Arc<dyn Backend>) -> (bool, Option<String>) {
    match backend.availability() {
        Availability::Ready => (true, None),
        Availability::Unavailable(why) => (false, Some(why.to_string())),
    }
}

/// What is available here and why not, and the machine's ceilings if they were measured.
pub(super) fn doctor(known: &[Arc<dyn Backend>], ceilings: Option<Ceilings>) -> Value {
    let describe = |backend: &Arc<dyn Backend>| {
        let (available, why) = availability(backend);
        let info = backend.build_info();
        json!({
            "name": backend.name(), "isa": backend.isa(), "available": available, "why_not": why,
            "repacks": backend.repacks().map(Repacked::name),
            "compiler": info.compiler, "version": info.version, "flags": info.flags,
            "optimisation": info.optimisation, "source_hash": info.source_hash,
        })
    };
    #[cfg(feature = "ffi")]
    let bindings = crate::backends::contract::BINDINGS_ORIGIN;
    #[cfg(not(feature = "ffi"))]
    let bindings = "none";
    json!({
        "tool": campaign::tool(),
        "backends": known.iter().map(describe).collect::<Vec<_>>(),
        "bindings": bindings,
        "fingerprint": Fingerprint::of_this_machine(Vec::new(), None),
        "ceilings": ceilings.map(|found| json!({
            "values": found.values, "repetitions": found.setting.repetitions, "caches": found.setting.caches,
            "absent": found.absent.iter().map(|(name, why)| json!({"name": name, "reason": why})).collect::<Vec<_>>(),
        })),
        "not_in_this_version": [
            {"what": "GPU", "reason": "no GPU backend is part of this version; the cargo feature `gpu` is empty"},
            {"what": "BITNET_CPP_DIR", "reason": "comparing with a bitnet.cpp build of yours is not part of this version"},
        ],
    })
}

/// Workloads of a profile, and the backends that may run them.
pub(super) fn workloads(profile: Profile, known: &[Arc<dyn Backend>]) -> Value {
    let catalog = catalog::catalog(profile);
    let describe = |workload: &crate::workloads::Workload| {
        json!({
            "id": workload.id, "category": workload.category.name(), "class": workload.class.name(),
            "weights": workload.work.weights, "bytes": workload.work.bytes, "ops": workload.work.ops,
        })
    };
    let cannot = |(id, reason): &(String, String)| json!({"id": id, "reason": reason});
    let who = |backend: &Arc<dyn Backend>| {
        let (available, why) = availability(backend);
        json!({"name": backend.name(), "available": available, "why_not": why})
    };
    json!({
        "profile": profile.name(),
        "workloads": catalog.workloads.iter().map(describe).collect::<Vec<_>>(),
        "unsupported": catalog.unsupported.iter().map(cannot).collect::<Vec<_>>(),
        "backends": known.iter().map(who).collect::<Vec<_>>(),
    })
}

/// What each ternary tensor of a file is consistent with.
pub(super) fn identify(path: &Path, tensor: Option<&str>, shape: Option<(usize, usize)>) -> PyResult<Value> {
    let mut blocks = Vec::new();
    if let Some((rows, cols)) = shape {
        let n_weights = rows.saturating_mul(cols);
        if n_weights == 0 || n_weights > MOST_RAW_WEIGHTS {
            let limit = format!("1 to {MOST_RAW_WEIGHTS} weights");
            return Err(input_error(format!("shape {rows}x{cols}: expected {limit}")));
        }
        // A map: no layout reads bytes of another length than its own, so nothing of an unsuitable file is read.
        let bytes = Map::open(path).map_err(|why| file_error(format!("{}: {why}", path.display())))?;
        blocks.push(block(&path.display().to_string(), "raw bytes", &bytes, rows, cols));
    } else {
        let gguf = Gguf::open(path).map_err(|why| typed_error(&why))?;
        let wanted = |name: &str| tensor.is_none_or(|tensor| tensor == name);
        let ternary = gguf.tensors().iter().filter(|info| info.tensor_type().ternary().is_some());
        for info in ternary.filter(|info| wanted(info.name())) {
            let bytes = gguf.tensor_bytes(info);
            blocks.push(block(info.name(), info.tensor_type().name(), bytes, info.rows(), info.cols()));
        }
        if blocks.is_empty() {
            let what = tensor.map_or("ternary tensor (I2_S, TL1, TL2)".to_owned(), |name| {
                format!("ternary tensor {name:?}")
            });
            return Err(input_error(format!("{}: holds no {what}", path.display())));
        }
    }
    Ok(json!({"file": path.display().to_string(), "tensors": blocks}))
}

fn block(name: &str, declared: &str, bytes: &[u8], rows: usize, cols: usize) -> Value {
    let found = identify::identify(bytes, rows, cols);
    let describe = |identification: &identify::Identification| {
        let (finding, why) = match &identification.finding {
            Finding::Consistent { .. } => ("consistent", None),
            Finding::Doubtful { why } => ("doubtful", Some(why.clone())),
            Finding::Impossible { why } => ("impossible", Some(why.to_string())),
        };
        json!({"layout": identification.name, "finding": finding, "why": why,
               "zero_share": identification.statistics.map(|statistics| statistics.zero_share)})
    };
    json!({
        "tensor": name, "declared": declared, "rows": rows, "cols": cols, "bytes": bytes.len(),
        "layouts": found.iter().map(describe).collect::<Vec<_>>(),
        "conclusion": identify::conclusion(&found),
    })
}

/// A model file that was made.
pub(super) fn written(
    path: &Path,
    config: &ModelConfig,
    format: ModelFormat,
    seed: u64,
    written: &WrittenModel,
) -> Value {
    json!({
        "file": path.display().to_string(), "preset": config.name, "format": format.name(), "seed": seed,
        "bytes": written.bytes, "sha256": written.sha256, "ternary_weights": config.n_ternary_weights(),
    })
}
