//! hyperfine `--export-json`: `results[]` of `command`, `times[]` in seconds, `exit_codes[]`; each time is one process.

use super::Shape;
use super::benchmark::{Benchmark, Found, Samples, mean_ns};
use super::node::Node;

const NS_PER_S: f64 = 1e9;

pub(super) fn found(root: &Node<'_>) -> Result<Found, Shape> {
    let benchmarks = root.get("results")?.list()?.iter().map(benchmark).collect::<Result<_, _>>()?;
    Ok(Found { benchmarks, ..Found::default() })
}

fn benchmark(result: &Node<'_>) -> Result<Benchmark, Shape> {
    let times = result.find("times").map(|times| times.numbers()).transpose()?.unwrap_or_default();
    let stddev = result.find("stddev").map(|stddev| stddev.number()).transpose()?;
    let summary = mean_ns(result.get("mean")?.number()?, stddev, None, NS_PER_S);
    let mut found = Benchmark {
        name: result.get("command")?.text()?.to_owned(),
        samples: Samples {
            iterations: vec![1.0; times.len()],
            total: times.iter().map(|seconds| seconds * NS_PER_S).collect(),
            cpu_ns: Vec::new(),
        },
        failed: exit_codes(result)?,
        summary: Some(summary),
        ..Benchmark::default()
    };
    for (name, value) in result.fields()? {
        match name.as_str() {
            "command" | "times" | "exit_codes" => {}
            "parameters" => drop(found.setting.insert(name.clone(), value.clone())),
            _ => drop(found.notes.insert(name.clone(), value.clone())),
        }
    }
    Ok(found)
}

/// Runs that did not end with 0; null is a run that a signal ended.
fn exit_codes(result: &Node<'_>) -> Result<Option<String>, Shape> {
    let Some(codes) = result.find("exit_codes") else { return Ok(None) };
    let codes = codes.list()?;
    let strange = codes.iter().find(|code| !(code.value.is_null() || code.value.is_i64()));
    if let Some(code) = strange {
        return code.expected("an exit code");
    }
    let bad: Vec<_> = codes.iter().filter(|code| code.value.as_i64() != Some(0)).collect();
    Ok(bad.first().map(|first| {
        format!(
            "{} of {} runs did not end with exit code 0, the first with {}",
            bad.len(),
            codes.len(),
            first.value
        )
    }))
}
