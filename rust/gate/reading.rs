//! A verdict from a file, and the blocks behind one of its comparisons: what a reader of documents needs besides them.

use super::samples::{self, launches};
use super::verdict::{Against, Comparison, SCHEMA, Verdict};
use crate::record::Recording;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Larger files are refused before they are read.
pub const MAX_VERDICT_BYTES: u64 = 64 << 20;

/// Why a file is no verdict. Names the file, the place in it, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// The system refused.
    #[error("{}: cannot read it: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It is larger than any verdict.
    #[error("{}: more than {MAX_VERDICT_BYTES} bytes, which no verdict has", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON, truncated, or a value of the wrong type.
    #[error("{}: at {place}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Path in the document; `.` is the whole.
        place: String,
        /// What stands there, what was expected, with line and column.
        what: String,
    },
    /// Another schema.
    #[error("{}: has schema {found:?}, expected {SCHEMA:?}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// It speaks of workloads that the recording does not have.
    #[error("{}: is no verdict on this recording: it judges {workload:?}, which was not planned there", path.display())]
    OtherRecording {
        /// The verdict's file.
        path: PathBuf,
        /// The first such workload.
        workload: String,
    },
}

/// Reads the verdict at `path`, and its text: what a later version wrote into it is in the text alone.
///
/// # Errors
/// Every [`VerdictError`] but the last; never a panic, whatever the bytes.
pub fn read_verdict(path: &Path) -> Result<(Verdict, String), VerdictError> {
    let io = |source| VerdictError::Io { path: path.to_owned(), source };
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_VERDICT_BYTES + 1).read_to_end(&mut content).map_err(io)?;
    if content.len() as u64 > MAX_VERDICT_BYTES {
        return Err(VerdictError::TooLarge { path: path.to_owned() });
    }
    let verdict = parse_verdict(path, &content)?;
    let text = String::from_utf8(content).map_err(|error| io(std::io::Error::other(error)))?;
    Ok((verdict, text))
}

/// The same from bytes in memory; `path` names them in errors.
///
/// # Errors
/// As [`read_verdict`], without input and output.
pub fn parse_verdict(path: &Path, content: &[u8]) -> Result<Verdict, VerdictError> {
    // The name of the schema first: the fields of another one would only give misleading errors.
    #[derive(Deserialize)]
    struct Probe {
        schema: String,
    }
    let probe: Probe = typed(path, content)?;
    if probe.schema != SCHEMA {
        return Err(VerdictError::Schema { path: path.to_owned(), found: probe.schema });
    }
    typed(path, content)
}

/// Refuses a verdict that speaks of workloads which the recording does not have.
///
/// # Errors
/// [`VerdictError::OtherRecording`]; `path` names the verdict.
pub fn check_belongs(path: &Path, verdict: &Verdict, recording: &Recording) -> Result<(), VerdictError> {
    let planned = |id: &str| recording.plan.workloads.iter().any(|planned| planned.id == id);
    match verdict.comparisons.iter().find(|comparison| !planned(&comparison.workload)) {
        None => Ok(()),
        Some(comparison) => {
            Err(VerdictError::OtherRecording { path: path.to_owned(), workload: comparison.workload.clone() })
        }
    }
}

fn typed<T: DeserializeOwned>(path: &Path, content: &[u8]) -> Result<T, VerdictError> {
    let mut json = serde_json::Deserializer::from_slice(content);
    let malformed =
        |place: String, what: String| VerdictError::Malformed { path: path.to_owned(), place, what };
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| malformed(error.path().to_string(), error.inner().to_string()))?;
    json.end().map_err(|error| malformed(".".into(), error.to_string()))?;
    Ok(value)
}

/// One block of a comparison that was interleaved: what its estimate is made of.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BlockRatio {
    /// The process.
    pub launch: u32,
    /// Subject over other side, of block minima.
    pub ratio: f64,
}

/// The blocks behind a comparison of interleaved sides, in the order measured; empty where the sides share none.
pub fn blocks(recording: &Recording, comparison: &Comparison) -> Vec<BlockRatio> {
    if comparison.against == Against::Baseline {
        return Vec::new();
    }
    let samples = samples::Samples::of(recording, comparison.meter.clone());
    let mut subjects = samples.subjects();
    let subject = subjects
        .find(|series| series.workload == comparison.workload && series.backend == comparison.subject);
    let Some(subject) = subject else { return Vec::new() };
    let Some(other) = samples.find(&subject.workload, &subject.reference, &subject.reference) else {
        return Vec::new();
    };
    let chosen = launches(recording, comparison.stage);
    let Ok(paired) = samples::paired(subject, other, &chosen) else { return Vec::new() };
    let ratios = paired.log_ratio.iter().map(|log| log.exp());
    paired.launch.iter().zip(ratios).map(|(&launch, ratio)| BlockRatio { launch, ratio }).collect()
}
