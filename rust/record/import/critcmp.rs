//! `critcmp --export`: one saved baseline, `criterion_benchmark_v1` and `criterion_estimates_v1` per benchmark, no samples.

use super::Shape;
use super::benchmark::Found;
use super::criterion;
use super::node::Node;

pub(super) fn found(root: &Node<'_>) -> Result<Found, Shape> {
    let mut found = Found::default();
    found.configuration.insert("name".into(), root.get("name")?.value.clone());
    for (name, entry) in root.get("benchmarks")?.entries()? {
        let mut benchmark = criterion::named(&entry.get("criterion_benchmark_v1")?)?;
        if benchmark.name.is_empty() {
            benchmark.name = name.to_owned();
        }
        benchmark.summary = Some(criterion::estimates(&entry.get("criterion_estimates_v1")?)?);
        found.benchmarks.push(benchmark);
    }
    Ok(found)
}
