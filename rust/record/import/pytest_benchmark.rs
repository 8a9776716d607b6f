//! pytest-benchmark JSON: `benchmarks[].stats`, seconds per call; `data` holds the rounds, already divided by the calls.

use super::Shape;
use super::benchmark::{Benchmark, Found, Samples, mean_ns, plain};
use super::node::Node;
use crate::measure::Fingerprint;

const NS_PER_S: f64 = 1e9;

/// Fields of `machine_info` that tell machines and interpreters apart.
const MACHINE: [&str; 5] = ["node", "machine", "system", "python_implementation", "python_version"];

/// Fields of `machine_info.cpu` likewise. Clock rates flicker.
const CPU: [&str; 6] = ["brand_raw", "vendor_id_raw", "family", "model", "stepping", "count"];

pub(super) fn found(root: &Node<'_>) -> Result<Found, Shape> {
    let machine = root.get("machine_info")?;
    let mut found = Found::default();
    let cpu = machine.find("cpu");
    let mut tell = |node: Option<&Node<'_>>, place: &str, names: &[&str]| {
        for name in names {
            if let Some(field) = node.and_then(|node| node.find(name)) {
                found.machine.insert(format!("{place}.{name}"), plain(field.value));
            }
        }
    };
    tell(Some(&machine), "machine_info", &MACHINE);
    tell(cpu.as_ref(), "machine_info.cpu", &CPU);
    let text = |node: Option<&Node<'_>>, name: &str| {
        node.and_then(|node| node.find(name)).map(|field| plain(field.value)).unwrap_or_default()
    };
    found.fingerprint = Fingerprint {
        os: text(Some(&machine), "system").to_lowercase(),
        arch: text(Some(&machine), "machine"),
        cpu_model: text(cpu.as_ref(), "brand_raw"),
        cpu_vendor: text(cpu.as_ref(), "vendor_id_raw"),
        cores: text(cpu.as_ref(), "count").parse().unwrap_or(0),
        ..Fingerprint::default()
    };
    for name in ["commit_info", "machine_info", "version"] {
        if let Some(field) = root.find(name) {
            found.configuration.insert(name.into(), field.value.clone());
        }
    }
    found.started = root.find("datetime").and_then(|date| date.value.as_str()?.parse().ok());
    found.benchmarks = root.get("benchmarks")?.list()?.iter().map(benchmark).collect::<Result<_, _>>()?;
    Ok(found)
}

fn benchmark(row: &Node<'_>) -> Result<Benchmark, Shape> {
    let name = row.find("fullname").map_or_else(|| row.get("name"), Ok)?.text()?.to_owned();
    let stats = row.get("stats")?;
    let number = |name: &str| stats.find(name).map(|field| field.number()).transpose();
    let iterations = number("iterations")?.unwrap_or(1.0);
    let data = stats.find("data").or_else(|| row.find("data"));
    let data = data.map(|data| data.numbers()).transpose()?.unwrap_or_default();
    let rounds = stats.find("rounds").map(|rounds| rounds.count()).transpose()?;
    let mut found = Benchmark {
        name,
        samples: Samples {
            iterations: vec![iterations; data.len()],
            total: data.iter().map(|seconds| seconds * iterations * NS_PER_S).collect(),
            cpu_ns: Vec::new(),
        },
        summary: Some(mean_ns(stats.get("mean")?.number()?, number("stddev")?, rounds, NS_PER_S)),
        ..Benchmark::default()
    };
    for (name, value) in row.fields()? {
        match name.as_str() {
            "params" | "param" => drop(found.setting.insert(name.clone(), value.clone())),
            "stats" | "data" | "fullname" => {}
            _ => drop(found.notes.insert(name.clone(), value.clone())),
        }
    }
    // How many rounds were asked for decides nothing; what a round is does.
    for name in ["disable_gc", "timer"] {
        if let Some(option) = row.find("options").and_then(|options| options.find(name)) {
            found.setting.insert(format!("options.{name}"), option.value.clone());
        }
    }
    for (name, value) in stats.fields()?.iter().filter(|(name, _)| *name != "data") {
        found.notes.insert(format!("stats.{name}"), value.clone());
    }
    Ok(found)
}
