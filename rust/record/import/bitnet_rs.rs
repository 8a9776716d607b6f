//! Files of the BitNet.rs project that hold times or rates. Most hold one number per metric and no spread.
//!
//! ```text
//! baselines        baselines.<platform>.{rust_implementation, cpp_legacy}.<metric>
//! compare-metrics  metrics.{latency_p50_ms, tok_s, ...}, git.sha, device
//! rust-results     benchmarks[].{name, mean.estimate}
//! comparison       {rust, cpp}.{mean, stdev, iterations}
//! run              latency.*_ms, throughput.tokens_per_second           (`bitnet run --json-out`)
//! benchmark        results[].statistics.{mean, std, ...}                (`bitnet benchmark --format json`)
//! bench-decode     results.{throughput, first_token_ms}
//! ```
//!
//! The committed baselines are known to hold a time-out fallback; `suspect` says so where its marks are seen.

use super::Shape;
use super::benchmark::{Benchmark, Found, Samples, mean_ns, ns_per, plain};
use super::node::Node;
use super::suspect::percentiles;
use crate::record::{Extra, Summary};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Baselines,
    Metrics,
    Results,
    Comparison,
    Run,
    Benchmark,
    Decode,
}

/// Which of the files this is.
pub(super) fn kind(value: &Value) -> Option<Kind> {
    let is_object = |name: &str| value.get(name).is_some_and(Value::is_object);
    let results = value.get("results");
    if is_object("baselines") {
        Some(Kind::Baselines)
    } else if is_object("metrics") && (is_object("git") || is_object("device")) {
        Some(Kind::Metrics)
    } else if is_object("rust") && is_object("cpp") && is_object("comparison") {
        Some(Kind::Comparison)
    } else if value
        .get("benchmarks")
        .and_then(|rows| rows.get(0))
        .is_some_and(|row| row.get("mean").is_some())
    {
        Some(Kind::Results)
    } else if is_object("throughput") && is_object("latency") {
        Some(Kind::Run)
    } else if results.and_then(|rows| rows.get(0)).is_some_and(|row| row.get("statistics").is_some()) {
        Some(Kind::Benchmark)
    } else if results.is_some_and(|results| results.get("throughput").is_some()) {
        Some(Kind::Decode)
    } else {
        None
    }
}

pub(super) fn found(root: &Node<'_>) -> Result<Found, Shape> {
    let Some(kind) = kind(root.value) else {
        return root.expected("a file of BitNet.rs that holds times or rates (docs/IMPORTS.md lists them)");
    };
    let mut found = Found::default();
    for name in
        ["git", "device", "model", "system_info", "methodology", "metadata", "timestamp_utc", "version"]
    {
        if let Some(field) = root.find(name) {
            found.configuration.insert(name.into(), field.value.clone());
        }
    }
    if let Some(device) = root.find("device") {
        for name in ["backend", "compute_caps", "driver"] {
            if let Some(field) = device.find(name) {
                found.machine.insert(format!("device.{name}"), plain(field.value));
            }
        }
    }
    found.started = root.find("timestamp_utc").and_then(|time| time.value.as_str()?.parse().ok());
    let into = &mut found.benchmarks;
    match kind {
        Kind::Baselines => baselines(root, into)?,
        Kind::Metrics => metrics("metrics", &root.get("metrics")?, into)?,
        Kind::Run => {
            for name in ["latency", "throughput"] {
                metrics(&format!("run/{name}"), &root.get(name)?, into)?;
            }
        }
        Kind::Results => results(root, into)?,
        Kind::Comparison => comparison(root, into)?,
        Kind::Benchmark => {
            for (i, row) in root.get("results")?.list()?.iter().enumerate() {
                statistics(&format!("benchmark/{i}"), row, into)?;
            }
        }
        Kind::Decode => decode(&root.get("results")?, into)?,
    }
    Ok(found)
}

/// A metric by the end of its name: rates in tokens/s, times in ms. Memory, shares and scores are no speeds.
fn speed(name: &str, value: f64) -> Option<Summary> {
    let rate = name.contains("tokens_per_s") || name == "tok_s" || name.ends_with("_tps");
    let time = name.ends_with("_ms");
    let summary = |unit: &str, rate, value| Summary {
        statistic: "single".into(),
        unit: unit.into(),
        rate,
        value,
        ..Summary::default()
    };
    if rate {
        Some(summary("tokens/s", true, value))
    } else {
        time.then(|| summary("ns", false, value * 1e6))
    }
}

/// Every metric of an object that is a speed.
fn metrics(prefix: &str, node: &Node<'_>, into: &mut Vec<Benchmark>) -> Result<(), Shape> {
    let made_up = made_up(node)?;
    let mut notes = Extra::new();
    let first = into.len();
    for (name, field) in node.entries()? {
        let value = if field.value.is_number() { Some(field.number()?) } else { None };
        match value.and_then(|value| speed(name, value)) {
            Some(summary) => into.push(Benchmark {
                name: format!("{prefix}/{name}"),
                summary: Some(summary),
                suspect: made_up.clone(),
                ..Benchmark::default()
            }),
            None => drop(notes.insert(name.to_owned(), field.value.clone())),
        }
    }
    into[first..].iter_mut().for_each(|benchmark| benchmark.notes = notes.clone());
    Ok(())
}

/// Percentiles that follow from the middle of the same object.
fn made_up(node: &Node<'_>) -> Result<Option<String>, Shape> {
    let number = |names: [&str; 2]| {
        names.iter().find_map(|name| node.find(name)).map(|field| field.number()).transpose()
    };
    let middle = number(["mean_latency_ms", "latency_p50_ms"])?;
    let (p95, p99) =
        (number(["latency_p95_ms", "p95_latency_ms"])?, number(["latency_p99_ms", "p99_latency_ms"])?);
    Ok(middle.zip(p95.zip(p99)).and_then(|(middle, (p95, p99))| percentiles(middle, p95, p99)))
}

fn baselines(root: &Node<'_>, into: &mut Vec<Benchmark>) -> Result<(), Shape> {
    for (platform, sides) in root.get("baselines")?.entries()? {
        let first = into.len();
        for (side, node) in sides.entries()?.into_iter().filter(|(side, _)| *side != "performance_ratios") {
            metrics(&format!("baselines/{platform}/{side}"), &node, into)?;
        }
        // One made-up side makes its platform: both come from one script.
        let why = into[first..].iter().find_map(|benchmark| benchmark.suspect.clone());
        into[first..].iter_mut().for_each(|benchmark| benchmark.suspect.clone_from(&why));
    }
    Ok(())
}

fn results(root: &Node<'_>, into: &mut Vec<Benchmark>) -> Result<(), Shape> {
    for row in root.get("benchmarks")?.list()? {
        let mean = row.get("mean")?;
        let unit = mean.find("unit").map(|unit| unit.text()).transpose()?;
        let value = mean.get("estimate")?.number()?;
        into.push(Benchmark {
            name: format!("rust-results/{}", row.get("name")?.text()?),
            summary: Some(in_unit(value, None, None, unit)),
            ..Benchmark::default()
        });
    }
    Ok(())
}

/// A mean in the file's unit of time, or in one that it does not state.
fn in_unit(mean: f64, stddev: Option<f64>, n: Option<u64>, unit: Option<&str>) -> Summary {
    match unit.and_then(ns_per) {
        Some(scale) => mean_ns(mean, stddev, n, scale),
        None => Summary { unit: unit.unwrap_or("not stated").into(), ..mean_ns(mean, stddev, n, 1.0) },
    }
}

fn comparison(root: &Node<'_>, into: &mut Vec<Benchmark>) -> Result<(), Shape> {
    let mut means = Vec::new();
    for side in ["rust", "cpp"] {
        let node = root.get(side)?;
        let mean = node.get("mean")?.number()?;
        let stddev = node.find("stdev").map(|stdev| stdev.number()).transpose()?;
        let n = node.find("iterations").map(|n| n.count()).transpose()?;
        means.push((mean, stddev));
        into.push(Benchmark {
            name: format!("comparison/{side}"),
            summary: Some(in_unit(mean, stddev, n, None)),
            ..Benchmark::default()
        });
    }
    if means[0] == means[1] {
        let why = "synthetic: both sides are equal to the last digit".to_owned();
        into.iter_mut().for_each(|benchmark| benchmark.suspect = Some(why.clone()));
    }
    Ok(())
}

/// Means with their spread: `mean_latency_ms` beside `std_latency_ms`, `mean_tokens_per_second` beside `std_...`.
fn statistics(prefix: &str, row: &Node<'_>, into: &mut Vec<Benchmark>) -> Result<(), Shape> {
    let node = row.get("statistics")?;
    let number = |name: &str| node.find(name).map(|field| field.number()).transpose();
    let n = row.find("iterations").map(|n| n.count()).transpose()?;
    let suspect = made_up(&node)?;
    let mut add = |name: &str, summary: Summary| {
        into.push(Benchmark {
            name: format!("{prefix}/{name}"),
            summary: Some(summary),
            suspect: suspect.clone(),
            ..Benchmark::default()
        });
    };
    if let Some(mean) = number("mean_latency_ms")? {
        add("latency", mean_ns(mean, number("std_latency_ms")?, n, 1e6));
    }
    if let Some(mean) = number("mean_tokens_per_second")? {
        let spread = number("std_tokens_per_second")?;
        add("throughput", Summary { unit: "tokens/s".into(), rate: true, ..mean_ns(mean, spread, n, 1.0) });
    }
    Ok(())
}

/// Rates of single runs become times of one token.
fn decode(results: &Node<'_>, into: &mut Vec<Benchmark>) -> Result<(), Shape> {
    let throughput = results.get("throughput")?;
    let rates = throughput.find("samples").filter(|samples| samples.value.is_array());
    let rates = rates.map(|rates| rates.numbers()).transpose()?.unwrap_or_default();
    let mean = throughput.find("mean_tps").map(|mean| mean.number()).transpose()?;
    into.push(Benchmark {
        name: "bench-decode/throughput".into(),
        samples: Samples {
            iterations: vec![1.0; rates.len()],
            total: rates.iter().map(|rate| 1e9 / rate).collect(),
            cpu_ns: Vec::new(),
        },
        summary: mean.and_then(|mean| speed("mean_tps", mean)),
        ..Benchmark::default()
    });
    if let Some(first) = results.find("first_token_ms") {
        let mean = first.find("mean").map(|mean| mean.number()).transpose()?;
        let number = if first.value.is_number() { Some(first.number()?) } else { mean };
        into.extend(number.map(|ms| Benchmark {
            name: "bench-decode/first_token".into(),
            summary: speed("first_token_ms", ms),
            ..Benchmark::default()
        }));
    }
    Ok(())
}
