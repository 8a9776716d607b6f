//! criterion on disk: `<group>/[<function>/][<value>/]{new, base, <saved baseline>}/{benchmark,sample,estimates}.json`.
//!
//! Folder names are shortened copies of ids, so names come from `benchmark.json`. `sample.json` holds totals in ns; up to
//! 0.3.3 it was a bare `[[iterations], [times]]`, and keys of estimates began with a capital. After every run criterion
//! copies `new` over `base`: where both are equal to the byte there was one run only, and that is said.

use super::benchmark::{Benchmark, Found, Samples, mean_ns};
use super::node::{Node, lenient};
use super::{ImportError, Shape, bytes_of};
use crate::record::{Summary, Work};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders below each other, and entries in all, that are looked at.
const MOST_DEPTH: usize = 8;
const MOST_ENTRIES: usize = 200_000;

pub(super) fn is_sample(value: &Value) -> bool {
    (value.get("iters").is_some() && value.get("times").is_some())
        || value.get(0).is_some_and(Value::is_array)
}

/// Every benchmark of a tree that has results of that name.
pub(super) fn tree(root: &Path, saved: &str) -> Result<Found, ImportError> {
    let mut runs = Vec::new();
    let mut entries = 0;
    collect(root, 0, &mut entries, &mut runs)?;
    runs.sort();
    let mut found = Found::default();
    let (mut copies, mut others) = (0, std::collections::BTreeSet::new());
    for run in &runs {
        let name = run.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name != saved {
            others.insert(name);
            continue;
        }
        found.benchmarks.push(benchmark(run)?);
        let (new, base) = (run.with_file_name("new"), run.with_file_name("base"));
        let same = |other: &Path| {
            let bytes = |folder: &Path| fs::read(folder.join("sample.json")).ok();
            other != run && bytes(other).is_some_and(|other| Some(other) == bytes(run))
        };
        copies += usize::from(matches!(saved, "new" | "base") && (same(&new) || same(&base)));
    }
    if found.benchmarks.is_empty() {
        let names = others.into_iter().collect::<Vec<_>>().join(", ");
        let what = if names.is_empty() {
            "holds no benchmark.json, expected a tree of criterion such as target/criterion".to_owned()
        } else {
            format!("holds no results called {saved:?}, expected one of: {names}")
        };
        return Err(ImportError::Unusable { path: root.to_owned(), what });
    }
    if copies > 0 {
        let reason = format!(
            "base and new are the same run in {copies} of {} benchmarks: criterion copies new over base, nothing older is kept",
            found.benchmarks.len()
        );
        found.skipped.push(("base against new".into(), reason));
    }
    Ok(found)
}

/// Folders that hold a `benchmark.json`.
fn collect(
    folder: &Path,
    depth: usize,
    entries: &mut usize,
    runs: &mut Vec<PathBuf>,
) -> Result<(), ImportError> {
    let io_error = |source| ImportError::Io { path: folder.to_owned(), action: "list it", source };
    if folder.join("benchmark.json").is_file() {
        runs.push(folder.to_owned());
    }
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        *entries += 1;
        if *entries > MOST_ENTRIES {
            let what = format!("holds more than {MOST_ENTRIES} entries, expected target/criterion");
            return Err(ImportError::Unusable { path: folder.to_owned(), what });
        }
        // Links are not followed: a tree may lie about its depth.
        if depth < MOST_DEPTH && entry.file_type().map_err(io_error)?.is_dir() {
            collect(&entry.path(), depth + 1, entries, runs)?;
        }
    }
    Ok(())
}

fn document(path: &Path) -> Result<Value, ImportError> {
    lenient(&bytes_of(path)?)
        .map_err(|why| ImportError::Unusable { path: path.to_owned(), what: format!("is no JSON: {why}") })
}

fn benchmark(run: &Path) -> Result<Benchmark, ImportError> {
    let within = |path: PathBuf| move |why: Shape| ImportError::Unusable { path, what: why.to_string() };
    let path = run.join("benchmark.json");
    let value = document(&path)?;
    let mut found = named(&Node::root(&value)).map_err(within(path))?;
    let path = run.join("sample.json");
    if path.is_file() {
        let value = document(&path)?;
        let (samples, mode) = samples(&Node::root(&value)).map_err(within(path))?;
        found.samples = samples;
        found.notes.insert("sampling_mode".into(), mode);
    }
    let path = run.join("estimates.json");
    if path.is_file() {
        let value = document(&path)?;
        found.summary = Some(estimates(&Node::root(&value)).map_err(within(path))?);
    }
    Ok(found)
}

/// Name and work of a benchmark; its results are elsewhere.
pub(super) fn named(root: &Node<'_>) -> Result<Benchmark, Shape> {
    let text = |name: &str| root.find(name).map(|field| field.text()).transpose();
    // Older files have no full_id: it is made of the three parts.
    let name = match text("full_id")? {
        Some(full) => full.to_owned(),
        None => {
            let parts = [Some(root.get("group_id")?.text()?), text("function_id")?, text("value_str")?];
            parts.into_iter().flatten().collect::<Vec<_>>().join("/")
        }
    };
    let mut found = Benchmark { name, ..Benchmark::default() };
    for (name, value) in root.fields()? {
        let kept = if name == "throughput" { &mut found.setting } else { &mut found.notes };
        kept.insert(name.clone(), value.clone());
    }
    if let Some(bytes) =
        root.find("throughput").and_then(|throughput| throughput.value.get("Bytes")?.as_u64())
    {
        found.work = Work { bytes, ..Work::default() };
    }
    Ok(found)
}

fn samples(root: &Node<'_>) -> Result<(Samples, Value), Shape> {
    let (iterations, times, mode) = match root.value {
        Value::Array(_) => match root.list()?.as_slice() {
            [iterations, times] => (iterations.clone(), times.clone(), Value::Null),
            _ => return root.expected("[[iterations], [times]]"),
        },
        _ => (root.get("iters")?, root.get("times")?, root.get("sampling_mode")?.value.clone()),
    };
    let samples = Samples { iterations: iterations.numbers()?, total: times.numbers()?, cpu_ns: Vec::new() };
    if samples.iterations.len() != samples.total.len() {
        let what =
            format!("has {} entries, the iterations have {}", samples.total.len(), samples.iterations.len());
        return Err(Shape { place: times.place, what });
    }
    Ok((samples, mode))
}

/// Mean and standard deviation in ns.
pub(super) fn estimates(root: &Node<'_>) -> Result<Summary, Shape> {
    let of = |new: &str, old: &str| root.find(new).or_else(|| root.find(old));
    let mean = of("mean", "Mean").map_or_else(|| root.get("mean"), Ok)?;
    let mean = mean.get("point_estimate")?.number()?;
    let stddev = of("std_dev", "StdDev").map(|field| field.get("point_estimate")?.number()).transpose()?;
    Ok(mean_ns(mean, stddev, None, 1.0))
}
