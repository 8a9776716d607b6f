//! `cargo criterion --message-format=json`: a message on each line; `benchmark-complete` holds totals of each sample.

use super::Shape;
use super::benchmark::{Benchmark, Found, Samples, mean_ns, ns_per};
use super::node::Node;

pub(super) fn found(lines: &[Node<'_>]) -> Result<Found, Shape> {
    let mut found = Found::default();
    for line in lines {
        // Other messages (group-complete, later ones) hold no results.
        if line.get("reason")?.text()? == "benchmark-complete" {
            found.benchmarks.push(benchmark(line)?);
        }
    }
    Ok(found)
}

fn benchmark(line: &Node<'_>) -> Result<Benchmark, Shape> {
    let unit = line.find("unit").map(|unit| unit.text()).transpose()?.unwrap_or("ns").to_owned();
    // Another unit than of time is another meter, and is kept as it is.
    let (scale, meter) = match ns_per(&unit) {
        Some(scale) => (scale, None),
        None => (1.0, Some(unit)),
    };
    let iterations = line.get("iteration_count")?.numbers()?;
    let values = line.get("measured_values")?;
    let total: Vec<f64> = values.numbers()?.iter().map(|value| value * scale).collect();
    if total.len() != iterations.len() {
        let what = format!("has {} entries, iteration_count has {}", total.len(), iterations.len());
        return Err(Shape { place: values.place, what });
    }
    let mut found = Benchmark {
        name: line.get("id")?.text()?.to_owned(),
        samples: Samples { iterations, total, cpu_ns: Vec::new() },
        meter,
        ..Benchmark::default()
    };
    if let Some(mean) = line.find("mean") {
        let scale = mean.find("unit").map_or(Some(1.0), |unit| ns_per(unit.value.as_str()?));
        found.summary = scale
            .map(|scale| mean.get("estimate")?.number().map(|ns| mean_ns(ns, None, None, scale)))
            .transpose()?;
    }
    for (name, value) in line.fields()? {
        match name.as_str() {
            "throughput" => drop(found.setting.insert(name.clone(), value.clone())),
            "id" | "reason" | "iteration_count" | "measured_values" | "report_directory" => {}
            _ => drop(found.notes.insert(name.clone(), value.clone())),
        }
    }
    Ok(found)
}
