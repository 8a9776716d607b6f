//! google-benchmark JSON: `benchmarks[]`, one row per repetition, times per iteration in `time_unit`.
//!
//! Rows of one `run_name` are the samples of one benchmark. Aggregate rows are used only where there are no others.
//! Old files have no `run_type`: there an aggregate is known by the end of its name. `cpu_time` is kept where one thread
//! ran and the benchmark's author did not choose another clock, which the name then says.

use super::Shape;
use super::benchmark::{Benchmark, Found, mean_ns, ns_per, plain};
use super::node::Node;
use crate::measure::Fingerprint;
use std::collections::HashMap;

/// Fields of `context` that tell machines and builds apart. Clock rates flicker, and loads and dates say nothing.
const MACHINE: [&str; 5] = ["host_name", "num_cpus", "cpu_scaling_enabled", "caches", "library_build_type"];

/// Fields of a row that are read, or are results.
const KNOWN: [&str; 16] = [
    "name",
    "family_index",
    "per_family_instance_index",
    "run_name",
    "run_type",
    "repetitions",
    "repetition_index",
    "threads",
    "iterations",
    "real_time",
    "cpu_time",
    "time_unit",
    "aggregate_name",
    "aggregate_unit",
    "error_occurred",
    "error_message",
];

/// Ends of names that say which clock the author chose.
const OTHER_CLOCKS: [&str; 3] = ["/real_time", "/manual_time", "/process_time"];

pub(super) fn found(root: &Node<'_>) -> Result<Found, Shape> {
    let context = root.get("context")?;
    let mut found = Found::default();
    for (name, value) in context.fields()? {
        if MACHINE.contains(&name.as_str()) {
            found.machine.insert(format!("context.{name}"), plain(value));
        }
        found.configuration.insert(name.clone(), value.clone());
    }
    let cores = context.find("num_cpus").map(|cpus| cpus.count()).transpose()?;
    found.fingerprint =
        Fingerprint { cores: cores.unwrap_or(0).min(u64::from(u32::MAX)) as u32, ..Fingerprint::default() };
    found.started = context.find("date").and_then(|date| date.value.as_str()?.parse().ok());
    let mut places = HashMap::new();
    for row in root.get("benchmarks")?.list()? {
        let name = row.find("run_name").map_or_else(|| row.get("name"), Ok)?.text()?;
        let aggregate = aggregate(&row)?;
        let name = match &aggregate {
            Some(kind) if row.find("run_name").is_none() => {
                name.strip_suffix(&format!("_{kind}")).unwrap_or(name)
            }
            _ => name,
        };
        let place = *places.entry(name.to_owned()).or_insert_with(|| {
            found.benchmarks.push(Benchmark { name: name.to_owned(), ..Benchmark::default() });
            found.benchmarks.len() - 1
        });
        add_row(&mut found.benchmarks[place], &row, aggregate.as_deref())?;
    }
    Ok(found)
}

fn aggregate(row: &Node<'_>) -> Result<Option<String>, Shape> {
    if let Some(kind) = row.find("run_type") {
        return match kind.text()? {
            "iteration" => Ok(None),
            "aggregate" => Ok(Some(row.get("aggregate_name")?.text()?.to_owned())),
            _ => kind.expected("iteration or aggregate"),
        };
    }
    let name = row.get("name")?.text()?;
    let kinds = ["mean", "median", "stddev", "cv"];
    Ok(kinds.iter().find(|kind| name.ends_with(&format!("_{kind}"))).map(|kind| (*kind).to_owned()))
}

fn add_row(into: &mut Benchmark, row: &Node<'_>, aggregate: Option<&str>) -> Result<(), Shape> {
    let bad =
        ["error_occurred", "skipped"].iter().find(|field| row.value.get(**field).is_some_and(|v| *v == true));
    if let Some(field) = bad {
        let message =
            ["error_message", "skip_message"].iter().find_map(|name| row.value.get(*name)?.as_str());
        into.failed = Some(format!("{field}: {}", message.unwrap_or("no message")));
        return Ok(());
    }
    if let Some(threads) = row.find("threads") {
        into.setting.insert("threads".into(), threads.value.clone());
    }
    // cv is a share, its time unit says nothing.
    if aggregate == Some("cv") {
        return Ok(());
    }
    let Some(unit) = row.find("time_unit").map_or(Some(1.0), |unit| ns_per(unit.value.as_str()?)) else {
        return row.get("time_unit")?.expected("ns, us, ms or s");
    };
    let real = row.get("real_time")?.number()?;
    if let Some(kind) = aggregate {
        let n = row.find("repetitions").map(|n| n.count()).transpose()?;
        let summary = into.summary.get_or_insert_with(|| mean_ns(f64::NAN, None, n, 1.0));
        match kind {
            "mean" => summary.value = real * unit,
            "stddev" => summary.stddev = Some(real * unit),
            _ => {}
        }
        return Ok(());
    }
    let iterations = row.get("iterations")?.count()? as f64;
    let single = row.find("threads").is_none_or(|threads| threads.value == 1);
    let cpu =
        row.find("cpu_time").filter(|_| single && !OTHER_CLOCKS.iter().any(|end| into.name.contains(end)));
    into.samples.iterations.push(iterations);
    into.samples.total.push(real * unit * iterations);
    if let Some(cpu) = cpu {
        into.samples.cpu_ns.push(cpu.number()? * unit * iterations);
    }
    for (name, value) in row.fields()?.iter().filter(|(name, _)| !KNOWN.contains(&name.as_str())) {
        into.notes.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(())
}
