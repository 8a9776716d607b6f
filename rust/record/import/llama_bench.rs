//! `llama-bench -o json` and `-o jsonl`: a row per test, `samples_ns` the time of each whole test.
//!
//! A test of `n_gen = 0` is prefill (`pp512`), of `n_prompt = 0` decode (`tg128`). Tokens per test are work, so a ratio of
//! times of one test is the inverse ratio of tokens/s. Unknown fields are settings of forks (`mla_attn`, `fused_moe`).

use super::Shape;
use super::benchmark::{Benchmark, Found, Samples, mean_ns, plain};
use super::node::Node;
use crate::measure::Fingerprint;
use crate::record::Work;
use serde_json::Value;

/// Fields that tell machines apart.
const MACHINE: [&str; 4] = ["cpu_info", "gpu_info", "backends", "devices"];

/// Fields of results and of the build, which may differ between two runs of one test.
const RESULTS: [&str; 9] = [
    "build_commit",
    "build_number",
    "model_filename",
    "test_time",
    "avg_ns",
    "stddev_ns",
    "avg_ts",
    "stddev_ts",
    "test",
];

/// Share by which a rate may differ from what its time says.
const MOST_DIFFERENCE: f64 = 0.01;

pub(super) fn is_row(value: &Value) -> bool {
    value.get("n_prompt").is_some()
        && ["samples_ns", "avg_ns", "avg_ts"].iter().any(|name| value.get(name).is_some())
}

pub(super) fn found(rows: &[Node<'_>]) -> Result<Found, Shape> {
    let mut found = Found::default();
    for row in rows {
        let mut told = std::collections::BTreeMap::new();
        for name in MACHINE {
            if let Some(field) = row.find(name) {
                told.insert(name.to_owned(), plain(field.value));
            }
        }
        if found.benchmarks.is_empty() {
            found.fingerprint = Fingerprint {
                cpu_model: told.get("cpu_info").cloned().unwrap_or_default(),
                gpu: told.get("gpu_info").filter(|gpu| !gpu.is_empty()).cloned(),
                ..Fingerprint::default()
            };
            for name in ["build_commit", "build_number", "model_filename"] {
                if let Some(field) = row.find(name) {
                    found.configuration.insert(name.into(), field.value.clone());
                }
            }
            found.started = row.find("test_time").and_then(|time| time.value.as_str()?.parse().ok());
            found.machine = told;
        } else if told != found.machine {
            return row
                .expected("a row of the same cpu_info, gpu_info, backends and devices as the first one");
        }
        found.benchmarks.push(benchmark(row)?);
    }
    Ok(found)
}

fn benchmark(row: &Node<'_>) -> Result<Benchmark, Shape> {
    let (prompt, generated) = (row.get("n_prompt")?.count()?, row.get("n_gen")?.count()?);
    let depth = row.find("n_depth").map(|depth| depth.count()).transpose()?.unwrap_or(0);
    let test = match (prompt, generated) {
        (_, 0) => format!("pp{prompt}"),
        (0, _) => format!("tg{generated}"),
        _ => format!("pp{prompt}+tg{generated}"),
    };
    let mut name = format!("{}/{test}", row.get("model_type")?.text()?);
    if depth > 0 {
        name = format!("{name}/d{depth}");
    }
    if let Some(threads) = row.find("n_threads") {
        name = format!("{name}/t{}", threads.count()?);
    }
    let times = row.find("samples_ns").map(|times| times.numbers()).transpose()?.unwrap_or_default();
    let rates = row.find("samples_ts").map(|rates| rates.numbers()).transpose()?.unwrap_or_default();
    let tokens = prompt.saturating_add(generated);
    let mut found = Benchmark {
        name,
        work: Work { tokens, ..Work::default() },
        suspect: contradiction(tokens, &times, &rates),
        samples: Samples { iterations: vec![1.0; times.len()], total: times, cpu_ns: Vec::new() },
        ..Benchmark::default()
    };
    let number = |name: &str| row.find(name).map(|field| field.number()).transpose();
    if let Some(mean) = number("avg_ns")? {
        found.summary = Some(mean_ns(mean, number("stddev_ns")?, None, 1.0));
    }
    for (name, value) in row.fields()? {
        let name = name.as_str();
        if name.starts_with("samples_") || MACHINE.contains(&name) {
            continue;
        }
        let kept = if RESULTS.contains(&name) { &mut found.notes } else { &mut found.setting };
        kept.insert(name.to_owned(), value.clone());
    }
    Ok(found)
}

/// Rates that do not follow from the times beside them.
fn contradiction(tokens: u64, times: &[f64], rates: &[f64]) -> Option<String> {
    if rates.is_empty() {
        return None;
    }
    let follows = |(ns, rate): (&f64, &f64)| (1e9 * tokens as f64 / ns / rate - 1.0).abs() <= MOST_DIFFERENCE;
    let whole = times.len() == rates.len() && times.iter().zip(rates).all(follows);
    (!whole).then(|| "synthetic: samples_ts do not follow from samples_ns".to_owned())
}
