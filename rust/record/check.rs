//! What must be true of a recording beyond its types. Checked on reading and before writing.

use std::collections::{BTreeMap, BTreeSet};

use super::recording::{Recording, SCHEMA};
use super::series::Series;
use crate::parity::Contract;

/// A rule that a recording breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Invalid {
    /// Where, as a path in the document: `series[3].block`.
    pub place: String,
    /// What stands there and what was expected.
    pub what: String,
}

fn require(
    holds: bool,
    place: impl FnOnce() -> String,
    what: impl FnOnce() -> String,
) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid { place: place(), what: what() }) }
}

fn finite(value: f64, place: impl FnOnce() -> String) -> Result<(), Invalid> {
    require(value.is_finite(), place, || format!("is {value}, expected a finite number"))
}

impl Recording {
    /// Checks everything that the types cannot hold: the schema's name, columns of equal length, every sample
    /// named once, launches that exist, finite numbers (JSON has no others), counts that fit each other.
    ///
    /// # Errors
    /// The first [`Invalid`] place.
    pub fn check(&self) -> Result<(), Invalid> {
        require(
            self.schema == SCHEMA,
            || "schema".into(),
            || format!("is {:?}, expected {SCHEMA:?}", self.schema),
        )?;
        finite(self.plan.budget_s, || "plan.budget_s".into())?;
        require(self.plan.budget_s >= 0.0, || "plan.budget_s".into(), || "is negative".into())?;
        for (name, value) in &self.ceilings {
            let place = || format!("ceilings.{name}");
            finite(*value, place)?;
            require(*value > 0.0, place, || format!("is {value}, expected more than 0"))?;
        }
        let launches = self.check_launches()?;
        let mut labels = BTreeMap::new();
        for (i, series) in self.series.iter().enumerate() {
            check_series(i, series, &launches)?;
            if let Some(first) = labels.insert(series.label(), i) {
                return Err(Invalid {
                    place: format!("series[{i}]"),
                    what: format!("repeats series[{first}]: {}", series.label()),
                });
            }
        }
        self.check_origin()?;
        self.check_results()
    }

    fn check_origin(&self) -> Result<(), Invalid> {
        for (id, benchmark) in self.origin.iter().flat_map(|origin| &origin.benchmarks) {
            let place = |field: &str| format!("origin.benchmarks.{id}.summary.{field}");
            let Some(summary) = &benchmark.summary else { continue };
            finite(summary.value, || place("value"))?;
            require(summary.value > 0.0, || place("value"), || "is not positive".into())?;
            let spread = summary.stddev.unwrap_or(0.0);
            finite(spread, || place("stddev"))?;
            require(spread >= 0.0, || place("stddev"), || "is negative".into())?;
        }
        Ok(())
    }

    fn check_launches(&self) -> Result<BTreeSet<u32>, Invalid> {
        let mut indices = BTreeSet::new();
        for (i, launch) in self.launches.iter().enumerate() {
            require(
                indices.insert(launch.index),
                || format!("launches[{i}].index"),
                || format!("{} stands twice", launch.index),
            )?;
            if let Some(share) = launch.disturbance {
                require(
                    (0.0..=1.0).contains(&share),
                    || format!("launches[{i}].disturbance"),
                    || format!("is {share}, expected 0 to 1"),
                )?;
            }
        }
        Ok(indices)
    }

    fn check_results(&self) -> Result<(), Invalid> {
        for (i, row) in self.agreements.iter().enumerate() {
            let place = |field: &str| format!("agreements[{i}].{field}");
            require(
                row.mismatches <= row.compared,
                || place("mismatches"),
                || format!("is {}, more than the {} compared", row.mismatches, row.compared),
            )?;
            let equal = row.compared > 0 && row.mismatches == 0 && row.length_mismatch.is_none();
            require(
                !row.exact || equal,
                || place("exact"),
                || "is true, but nothing was compared, or something differs".into(),
            )?;
            let first_fits = row.first_mismatch.is_some() == (row.mismatches > 0);
            require(
                first_fits,
                || place("first_mismatch"),
                || format!("does not fit {} mismatches", row.mismatches),
            )?;
            for (name, value) in &row.metrics {
                finite(*value, || place(&format!("metrics.{name}")))?;
            }
            if let Contract::Relative { rtol, atol, .. } = &row.contract {
                finite(*rtol, || place("contract.relative.rtol"))?;
                finite(*atol, || place("contract.relative.atol"))?;
            }
        }
        for (i, row) in self.accuracy.iter().enumerate() {
            finite(row.accuracy_percent, || format!("accuracy[{i}].accuracy_percent"))?;
            finite(row.relative_l2, || format!("accuracy[{i}].relative_l2"))?;
            finite(row.max_abs, || format!("accuracy[{i}].max_abs"))?;
            finite(row.snr_db.unwrap_or(0.0), || format!("accuracy[{i}].snr_db"))?;
        }
        Ok(())
    }
}

fn check_series(i: usize, series: &Series, launches: &BTreeSet<u32>) -> Result<(), Invalid> {
    let samples = series.value_ns.len();
    let columns = [
        ("launch", series.launch.len()),
        ("block", series.block.len()),
        ("order", series.order.len()),
        ("iterations", series.iterations.len()),
    ];
    for (name, length) in columns {
        require(
            length == samples,
            || format!("series[{i}].{name}"),
            || format!("has {length} entries, value_ns has {samples}; columns must be equally long"),
        )?;
    }
    let switches = series.context_switches.len();
    require(
        switches == 0 || switches == samples,
        || format!("series[{i}].context_switches"),
        || format!("has {switches} entries, value_ns has {samples}; expected none or as many"),
    )?;
    let mut seen = BTreeSet::new();
    for s in 0..samples {
        let launch = series.launch[s];
        require(
            launches.contains(&launch),
            || format!("series[{i}].launch[{s}]"),
            || format!("is {launch}, which is no index of launches"),
        )?;
        require(series.iterations[s] > 0, || format!("series[{i}].iterations[{s}]"), || "is 0".into())?;
        let key = (launch, series.block[s], series.order[s]);
        require(
            seen.insert(key),
            || format!("series[{i}].order[{s}]"),
            || format!("launch {launch}, block {}, order {} stands twice", key.1, key.2),
        )?;
    }
    Ok(())
}
