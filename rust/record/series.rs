//! Samples of one workload, backend and meter, as columns of equal length.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::recording::Extra;
use crate::measure::{GroupCounts, GroupSamples, Sample};

/// What a value counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Wall time in ns.
    #[default]
    WallNs,
    /// CPU time of the measuring thread in ns.
    ThreadCpuNs,
    /// Instructions retired.
    Instructions,
    /// A meter of a later version, kept.
    #[serde(untagged)]
    Other(String),
}

impl Meter {
    /// The name in recordings.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::WallNs => "wall_ns".into(),
            Self::ThreadCpuNs => "thread_cpu_ns".into(),
            Self::Instructions => "instructions".into(),
            Self::Other(name) => name.as_str().into(),
        }
    }
}

/// Raw samples as columns: entry i of every column belongs to sample i.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Workload id.
    pub workload: String,
    /// Whose samples these are.
    pub backend: String,
    /// The backend that was interleaved as reference; equal to `backend` for the reference's own samples.
    pub reference: String,
    /// What `value_ns` counts.
    pub meter: Meter,
    /// Index of the process.
    pub launch: Vec<u32>,
    /// Index of the block within its process.
    pub block: Vec<u32>,
    /// Position of the sample among all of its block, both sides counted, from 0.
    pub order: Vec<u32>,
    /// Calls in the sample.
    pub iterations: Vec<u64>,
    /// Value of the sample, all its calls together.
    pub value_ns: Vec<u64>,
    /// Involuntary context switches meanwhile; empty if the platform does not tell.
    #[serde(default)]
    pub context_switches: Vec<u64>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Why two pieces of a series cannot be joined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("series {left} cannot be continued by {right}")]
pub struct SeriesError {
    /// Workload, backend, reference and meter of the series.
    pub left: String,
    /// The same of the piece.
    pub right: String,
}

impl Series {
    /// One side's samples as series: wall time, and thread CPU time where every sample has it.
    /// `side` is an index into the group's sides.
    pub fn from_group(
        group: &GroupSamples,
        side: u32,
        launch: u32,
        workload: &str,
        backend: &str,
        reference: &str,
    ) -> Vec<Self> {
        let samples: Vec<&Sample> = group.samples.iter().filter(|sample| sample.side == side).collect();
        let switches: Option<Vec<u64>> =
            samples.iter().map(|sample| sample.switches.map(|switches| switches.involuntary)).collect();
        let series = |meter, value_ns| Self {
            workload: workload.to_owned(),
            backend: backend.to_owned(),
            reference: reference.to_owned(),
            meter,
            launch: vec![launch; samples.len()],
            block: samples.iter().map(|sample| sample.block).collect(),
            order: samples.iter().map(|sample| sample.order).collect(),
            iterations: samples.iter().map(|sample| sample.iterations).collect(),
            value_ns,
            context_switches: switches.clone().unwrap_or_default(),
            extra: Extra::new(),
        };
        let mut all = vec![series(Meter::WallNs, samples.iter().map(|sample| sample.wall_ns).collect())];
        if let Some(cpu) = samples.iter().map(|sample| sample.cpu_ns).collect::<Option<Vec<u64>>>() {
            all.push(series(Meter::ThreadCpuNs, cpu));
        }
        all
    }

    /// One side's instruction counts. `side` is an index into the group's sides.
    pub fn from_counts(
        group: &GroupCounts,
        side: u32,
        launch: u32,
        workload: &str,
        backend: &str,
        reference: &str,
    ) -> Self {
        let samples: Vec<_> = group.samples.iter().filter(|sample| sample.side == side).collect();
        Self {
            workload: workload.to_owned(),
            backend: backend.to_owned(),
            reference: reference.to_owned(),
            meter: Meter::Instructions,
            launch: vec![launch; samples.len()],
            block: samples.iter().map(|sample| sample.block).collect(),
            order: samples.iter().map(|sample| sample.order).collect(),
            iterations: samples.iter().map(|sample| sample.iterations).collect(),
            value_ns: samples.iter().map(|sample| sample.instructions).collect(),
            context_switches: Vec::new(),
            extra: Extra::new(),
        }
    }

    /// Samples it holds.
    pub fn len(&self) -> usize {
        self.value_ns.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.value_ns.is_empty()
    }

    /// Continues this series with another launch's samples of the same workload, backend, reference and meter.
    ///
    /// # Errors
    /// [`SeriesError`] if it is another series; nothing is changed then.
    pub fn append(&mut self, more: &Self) -> Result<(), SeriesError> {
        if self.key() != more.key() {
            return Err(SeriesError { left: self.label(), right: more.label() });
        }
        let switches_known = (self.is_empty() || !self.context_switches.is_empty())
            && (more.is_empty() || !more.context_switches.is_empty());
        self.launch.extend(&more.launch);
        self.block.extend(&more.block);
        self.order.extend(&more.order);
        self.iterations.extend(&more.iterations);
        self.value_ns.extend(&more.value_ns);
        if switches_known {
            self.context_switches.extend(&more.context_switches);
        } else {
            self.context_switches.clear();
        }
        Ok(())
    }

    fn key(&self) -> (&str, &str, &str, &Meter) {
        (&self.workload, &self.backend, &self.reference, &self.meter)
    }

    /// Workload, backend, reference and meter as text.
    pub fn label(&self) -> String {
        format!("{} of {} against {} ({})", self.workload, self.backend, self.reference, self.meter.name())
    }
}
