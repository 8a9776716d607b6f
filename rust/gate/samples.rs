//! From series to what `stats` takes: log-ratios of block minima with their launches, and typical calls.
//!
//! A launch belongs to a stage; the stages are judged apart, because the second one is measured only after the first
//! looked too slow.

use crate::record::{Meter, Recording, Series};
use crate::stats::{self, Column};
use std::collections::{BTreeMap, BTreeSet};

/// The suffix of a second instance of a backend, the A/A arm.
const TWIN: &str = "+aa";

/// Whether a series is the second instance of its reference: a control, never a subject.
pub(super) fn is_twin(series: &Series) -> bool {
    series.backend.strip_suffix(TWIN) == Some(series.reference.as_str())
}

/// Series of one meter by what they are.
pub(super) struct Samples<'a> {
    recording: &'a Recording,
    meter: Meter,
}

/// Blocks that two sides share.
#[derive(Clone, Debug, Default)]
pub(super) struct Paired {
    /// ln(subject / other) of block minima.
    pub log_ratio: Vec<f64>,
    /// The launch of each block.
    pub launch: Vec<u32>,
    /// Median over blocks of the subject's fastest call, in ns.
    pub subject_ns: Option<f64>,
    /// The same of the other side.
    pub other_ns: Option<f64>,
}

impl Paired {
    /// Launches with at least one block.
    pub fn n_launches(&self) -> usize {
        self.launch.iter().collect::<BTreeSet<_>>().len()
    }
}

impl<'a> Samples<'a> {
    pub fn of(recording: &'a Recording, meter: Meter) -> Self {
        Self { recording, meter }
    }

    /// Every series that is neither its own reference nor an A/A arm.
    pub fn subjects(&self) -> impl Iterator<Item = &'a Series> + use<'a> {
        let meter = self.meter.clone();
        let of_meter = self.recording.series.iter().filter(move |series| series.meter == meter);
        of_meter.filter(|series| series.backend != series.reference && !is_twin(series))
    }

    /// The samples of one backend on one workload, as timed against `reference`.
    pub fn find(&self, workload: &str, backend: &str, reference: &str) -> Option<&'a Series> {
        self.recording.series.iter().find(|series| {
            series.meter == self.meter
                && series.workload == workload
                && series.backend == backend
                && series.reference == reference
        })
    }

    /// ln(second instance / first instance) on a workload, over all launches of the first stage; `None` if there is no
    /// A/A arm, or no usable block in it.
    pub fn twin_effect(&self, workload: &str, reference: &str) -> Option<f64> {
        let first = self.find(workload, reference, reference)?;
        let twin = self.find(workload, &format!("{reference}{TWIN}"), reference)?;
        let blocks = paired(twin, first, &launches(self.recording, 1)).ok()?;
        stats::hodges_lehmann(&blocks.log_ratio).ok().flatten()
    }

    /// Every A/A result of the recording, by workload and reference.
    pub fn twin_effects(&self) -> BTreeMap<(&'a str, &'a str), f64> {
        let twins =
            self.recording.series.iter().filter(|series| series.meter == self.meter && is_twin(series));
        let effect = |series: &'a Series| {
            let key = (series.workload.as_str(), series.reference.as_str());
            self.twin_effect(key.0, key.1).map(|effect| (key, effect))
        };
        twins.filter_map(effect).collect()
    }
}

/// Indices of the launches of a stage.
pub(super) fn launches(recording: &Recording, stage: u8) -> BTreeSet<u32> {
    recording.launches.iter().filter(|launch| launch.stage == stage).map(|launch| launch.index).collect()
}

/// The blocks of those launches that both sides have.
pub(super) fn paired(subject: &Series, other: &Series, launches: &BTreeSet<u32>) -> Result<Paired, String> {
    let (subject, other) = (Calls::of(subject, launches)?, Calls::of(other, launches)?);
    let ratios = stats::block_minima_log_ratios(other.column(), subject.column());
    let ratios = ratios.map_err(|why| why.to_string())?;
    Ok(Paired {
        launch: ratios.block.iter().map(|block| (block >> 32) as u32).collect(),
        log_ratio: ratios.log_ratio,
        subject_ns: subject.typical_ns()?,
        other_ns: other.typical_ns()?,
    })
}

/// A series as time per call, blocks numbered across launches.
struct Calls {
    block: Vec<u64>,
    call_ns: Vec<f64>,
}

impl Calls {
    fn of(series: &Series, launches: &BTreeSet<u32>) -> Result<Self, String> {
        if series.iterations.contains(&0) {
            return Err(format!("{} has a sample of 0 iterations", series.label()));
        }
        let chosen: Vec<usize> =
            (0..series.len()).filter(|&i| launches.contains(&series.launch[i])).collect();
        let block = |i: usize| u64::from(series.launch[i]) << 32 | u64::from(series.block[i]);
        let call_ns = |i: usize| series.value_ns[i] as f64 / series.iterations[i] as f64;
        Ok(Self {
            block: chosen.iter().map(|&i| block(i)).collect(),
            call_ns: chosen.iter().map(|&i| call_ns(i)).collect(),
        })
    }

    fn column(&self) -> Column<'_> {
        Column { block: &self.block, value: &self.call_ns }
    }

    /// Median over blocks of the block's fastest call.
    fn typical_ns(&self) -> Result<Option<f64>, String> {
        let mut minima = BTreeMap::new();
        for (&block, &ns) in self.block.iter().zip(&self.call_ns) {
            let fastest = minima.entry(block).or_insert(ns);
            *fastest = ns.min(*fastest);
        }
        stats::median(&minima.into_values().collect::<Vec<_>>()).map_err(|why| why.to_string())
    }
}
