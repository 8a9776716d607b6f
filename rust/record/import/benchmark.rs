//! What every importer hands over, and how it becomes series, summaries or a named reason.

use crate::measure::Fingerprint;
use crate::record::{
    Extra, ImportedBenchmark, Meter, Origin, PlannedWorkload, Recording, Series, Skipped, Summary, Work,
};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Largest share by which rounding to whole nanoseconds may move a sample.
const MOST_ROUNDING: f64 = 1e-3;

/// Counts and times below this are exact in an f64, and fit every integer.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// What one file holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// What tells machines apart, by the tool's own field names.
    pub machine: BTreeMap<String, String>,
    /// The same in our own fields, as far as they are known.
    pub fingerprint: Fingerprint,
    /// Whatever else the file says of the whole.
    pub configuration: Extra,
    /// When it was measured.
    pub started: Option<Timestamp>,
    pub benchmarks: Vec<Benchmark>,
    /// What is not there, and why.
    pub skipped: Vec<(String, String)>,
}

/// Samples as the tool gives them, entry i of each column.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    /// Calls in the sample.
    pub iterations: Vec<f64>,
    /// Time of all calls of the sample, in ns, or a count of another meter.
    pub total: Vec<f64>,
    /// CPU time of the same calls in ns, where it is that of the measuring thread; as long as `total`, or empty.
    pub cpu_ns: Vec<f64>,
}

/// One benchmark of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Benchmark {
    pub name: String,
    pub work: Work,
    /// What decides the work.
    pub setting: Extra,
    /// Whatever else is said of it.
    pub notes: Extra,
    pub samples: Samples,
    /// What the samples count if it is not wall time.
    pub meter: Option<String>,
    /// Used only where there are no samples.
    pub summary: Option<Summary>,
    /// Why it has no result.
    pub failed: Option<String>,
    pub suspect: Option<String>,
}

/// A recording in the making.
pub(super) struct Assembly<'a> {
    pub recording: &'a mut Recording,
    pub origin: &'a mut Origin,
    /// Whose results: the backend's name.
    pub tool: &'static str,
    /// Where the series of each workload stand.
    pub series: HashMap<String, Vec<usize>>,
}

impl Benchmark {
    /// Adds the samples, else the summary, else the reason why there is neither.
    pub fn add_to(self, into: &mut Assembly<'_>, id: &str, launch: u32) {
        let Assembly { recording, origin, tool, series: known } = into;
        if !known.contains_key(id) {
            recording.plan.workloads.push(PlannedWorkload {
                id: id.to_owned(),
                category: "imported".into(),
                class: "core".into(),
                work: self.work.clone(),
                extra: Extra::new(),
            });
        }
        known.entry(id.to_owned()).or_default();
        let mut skip = |reason: String| {
            recording.skipped.push(Skipped { what: id.to_owned(), reason, extra: Extra::new() });
        };
        let result = match (&self.failed, self.samples.total.is_empty()) {
            (Some(why), _) => return skip(format!("failed: {why}")),
            (None, false) => self.columns(id, launch, tool).map(|series| (series, None)),
            (None, true) => match self.summary.clone() {
                Some(summary) => sound(summary).map(|summary| (Vec::new(), Some(summary))),
                None => return skip("holds no samples and no summary".into()),
            },
        };
        let (series, summary) = match result {
            Ok(found) => found,
            Err(why) => return skip(why),
        };
        let places = known.entry(id.to_owned()).or_default();
        for piece in series {
            let same = places.iter().find(|&&place| recording.series[place].meter == piece.meter);
            match same {
                // Workload, backend and meter are the same: that is all that append asks for.
                Some(&place) => drop(recording.series[place].append(&piece)),
                None => {
                    places.push(recording.series.len());
                    recording.series.push(piece);
                }
            }
        }
        // The first file's word stands; later launches add samples.
        origin.benchmarks.entry(id.to_owned()).or_insert_with(|| ImportedBenchmark {
            name: self.name,
            setting: self.setting,
            notes: self.notes,
            summary,
            suspect: self.suspect,
            extra: Extra::new(),
        });
    }

    fn columns(&self, id: &str, launch: u32, tool: &str) -> Result<Vec<Series>, String> {
        let n = self.samples.total.len();
        let iterations = whole(&self.samples.iterations, "iteration count")?;
        let meter = self.meter.clone().map_or(Meter::WallNs, Meter::Other);
        let series = |meter, values: &[f64]| -> Result<Series, String> {
            Ok(Series {
                workload: id.to_owned(),
                backend: tool.to_owned(),
                reference: tool.to_owned(),
                meter,
                launch: vec![launch; n],
                block: (0..n as u32).collect(),
                order: vec![0; n],
                iterations: iterations.clone(),
                value_ns: whole(values, "time")?,
                context_switches: Vec::new(),
                extra: Extra::new(),
            })
        };
        let mut all = vec![series(meter, &self.samples.total)?];
        if self.samples.cpu_ns.len() == n {
            // A CPU clock that is too coarse reads 0: then wall time alone is kept.
            all.extend(series(Meter::ThreadCpuNs, &self.samples.cpu_ns).ok());
        }
        Ok(all)
    }
}

/// Positive whole numbers; a clock's reading in seconds is one in ns after rounding.
fn whole(values: &[f64], what: &str) -> Result<Vec<u64>, String> {
    let one = |(i, &value): (usize, &f64)| {
        let rounded = value.round();
        if !(value > 0.0 && value <= MOST_EXACT) {
            Err(format!("{what} of sample {i} is {value}, expected a positive number"))
        } else if (rounded - value).abs() > MOST_ROUNDING * value {
            Err(format!("{what} of sample {i} is {value}: too small to be held as a whole number"))
        } else {
            Ok(rounded as u64)
        }
    };
    values.iter().enumerate().map(one).collect()
}

fn sound(summary: Summary) -> Result<Summary, String> {
    let Summary { value, stddev, .. } = summary;
    if !(value > 0.0 && value.is_finite()) {
        return Err(format!("its {} is {value}, expected a positive number", summary.statistic));
    }
    match stddev {
        Some(spread) if !(spread >= 0.0 && spread.is_finite()) => {
            Err(format!("its standard deviation is {spread}, expected a number from 0"))
        }
        _ => Ok(summary),
    }
}

/// A mean with its spread, converted to ns by `ns_per_unit`.
pub(super) fn mean_ns(mean: f64, stddev: Option<f64>, n: Option<u64>, ns_per_unit: f64) -> Summary {
    Summary {
        statistic: "mean".into(),
        unit: "ns".into(),
        rate: false,
        value: mean * ns_per_unit,
        stddev: stddev.map(|spread| spread * ns_per_unit),
        n,
        extra: Extra::new(),
    }
}

/// Nanoseconds in a unit of time.
pub(super) fn ns_per(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1.0),
        "us" | "µs" => Some(1e3),
        "ms" => Some(1e6),
        "s" => Some(1e9),
        _ => None,
    }
}

/// A value as text, without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
