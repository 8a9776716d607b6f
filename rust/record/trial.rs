//! Samples measured elsewhere: two arrays of times, read from anybody's bytes.
//!
//! A trial is one JSON object: `baseline` and `candidate`, wall nanoseconds per sample in the order taken; optionally
//! `baseline_cpu` and `candidate_cpu` (CPU nanoseconds of the same samples), `launch` (which process pair took the
//! sample), `order` (who went first), `mode` (how it was collected) and `id`. Fields that this version does not know
//! are passed over. A calibration is `{"trials": [...]}`: earlier trials of a build against itself. Many trials are
//! JSON lines. Every error is one line with file, line and place.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// A longer document, or line of many, is refused: 10^6 samples with CPU time need 40 MB.
pub const MAX_TRIAL_BYTES: u64 = 128 << 20;

/// How the two sides were collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All of the baseline, then all of the candidate.
    Seq,
    /// Alternating, two live processes, not pinned.
    Int,
    /// Alternating on one CPU, one pair of processes.
    Intpin,
    /// Alternating on one CPU, five pairs of processes.
    Int5pin,
    /// Both at once on two CPUs.
    Duet,
}

impl Mode {
    /// Whether sample i of both sides was taken at about the same time.
    pub fn is_paired(self) -> bool {
        self != Self::Seq
    }
}

/// Times of both sides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trial {
    /// Whatever the file calls it.
    pub id: Option<serde_json::Value>,
    /// Wall time per sample, ns.
    pub baseline: Vec<f64>,
    /// The same of the candidate.
    pub candidate: Vec<f64>,
    /// CPU time of the same samples, ns: baseline, candidate.
    pub cpu: Option<[Vec<f64>; 2]>,
    /// The process pair of each sample; both sides have as many samples then.
    pub launch: Option<Vec<u32>>,
    /// Whether the file says in which order the sides were taken.
    pub ordered: bool,
    /// How it was collected, if the file says so.
    pub mode: Option<Mode>,
}

impl Trial {
    /// How it must be read: what does not say that its sides alternated is taken as one after the other.
    pub fn mode_or_guess(&self) -> Mode {
        let alternating = self.ordered && self.baseline.len() == self.candidate.len();
        self.mode.unwrap_or(if alternating { Mode::Int } else { Mode::Seq })
    }
}

/// Why a trial is not used. Names the file, the line where there are many, and the place.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The system refused.
    #[error("{}: cannot read it: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Longer than any trial.
    #[error("{at}: is longer than {MAX_TRIAL_BYTES} bytes, expected a trial of fewer samples")]
    TooLarge {
        /// File, and line of a file of many.
        at: String,
    },
    /// Not JSON, truncated, a value of another type, or one that no trial can have.
    #[error("{at}: at {place}: {what}")]
    Content {
        /// File, and line of a file of many.
        at: String,
        /// Path in the document; `.` is the whole.
        place: String,
        /// What stands there, and what was expected.
        what: String,
    },
}

#[derive(Deserialize)]
struct Document {
    id: Option<serde_json::Value>,
    baseline: Vec<f64>,
    candidate: Vec<f64>,
    baseline_cpu: Option<Vec<f64>>,
    candidate_cpu: Option<Vec<f64>>,
    launch: Option<Vec<u32>>,
    order: Option<Order>,
    mode: Option<Mode>,
}

#[derive(Deserialize)]
struct CalibrationDocument {
    trials: Vec<Document>,
}

/// Who went first, in any form that people write: coins, positions, names of the sides.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a list of 0 and 1, positions, true and false, or \"AB\" and \"BA\"")]
enum Order {
    Numbers(Vec<u32>),
    Coins(Vec<bool>),
    Places(Vec<Vec<u32>>),
    Names(Vec<Side>),
}

#[derive(Deserialize)]
enum Side {
    #[serde(alias = "A", alias = "ab")]
    AB,
    #[serde(alias = "B", alias = "ba")]
    BA,
}

/// Reads one trial.
///
/// # Errors
/// [`TrialError`]; never a panic, whatever the bytes.
pub fn read_trial(path: &Path) -> Result<Trial, TrialError> {
    parse_trial(&path.display().to_string(), &whole(path)?)
}

/// The same from text; `at` names it in errors.
///
/// # Errors
/// [`TrialError::Content`].
pub fn parse_trial(at: &str, text: &[u8]) -> Result<Trial, TrialError> {
    checked(typed(at, text)?, at, "")
}

/// Reads earlier trials of a build against itself.
///
/// # Errors
/// As [`read_trial`].
pub fn read_calibration(path: &Path) -> Result<Vec<Trial>, TrialError> {
    parse_calibration(&path.display().to_string(), &whole(path)?)
}

/// The same from text; `at` names it in errors.
///
/// # Errors
/// [`TrialError::Content`].
pub fn parse_calibration(at: &str, text: &[u8]) -> Result<Vec<Trial>, TrialError> {
    let document: CalibrationDocument = typed(at, text)?;
    let numbered = document.trials.into_iter().enumerate();
    numbered.map(|(index, trial)| checked(trial, at, &format!("trials[{index}]."))).collect()
}

/// Trials of a file of JSON lines, read one by one; empty lines are passed over, the first error is the last item.
pub struct TrialLines {
    path: PathBuf,
    reader: BufReader<File>,
    line: usize,
    broken: bool,
}

impl TrialLines {
    /// Opens the file.
    ///
    /// # Errors
    /// [`TrialError::Io`].
    pub fn open(path: &Path) -> Result<Self, TrialError> {
        let file = File::open(path).map_err(|source| TrialError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), line: 0, broken: false })
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, TrialError> {
        loop {
            let mut text = Vec::new();
            let mut limited = self.reader.by_ref().take(MAX_TRIAL_BYTES + 1);
            let read = limited.read_until(b'\n', &mut text);
            self.line += 1;
            match read.map_err(|source| TrialError::Io { path: self.path.clone(), source })? {
                0 => return Ok(None),
                bytes if bytes as u64 > MAX_TRIAL_BYTES => {
                    return Err(TrialError::TooLarge { at: self.place() });
                }
                _ if text.trim_ascii().is_empty() => {}
                _ => return Ok(Some(text)),
            }
        }
    }

    fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.line)
    }
}

impl Iterator for TrialLines {
    type Item = Result<Trial, TrialError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        let line = self.next_line().transpose()?;
        let trial = line.and_then(|text| parse_trial(&self.place(), &text));
        self.broken = trial.is_err();
        Some(trial)
    }
}

fn whole(path: &Path) -> Result<Vec<u8>, TrialError> {
    let io = |source| TrialError::Io { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).map_err(io)?.take(MAX_TRIAL_BYTES + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_TRIAL_BYTES {
        return Err(TrialError::TooLarge { at: path.display().to_string() });
    }
    Ok(text)
}

fn typed<'a, T: Deserialize<'a>>(at: &str, text: &'a [u8]) -> Result<T, TrialError> {
    let content = |place: String, what: String| TrialError::Content { at: at.to_owned(), place, what };
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| content(error.path().to_string(), error.inner().to_string()))?;
    json.end().map_err(|error| content(".".to_owned(), error.to_string()))?;
    Ok(value)
}

/// What must be true beyond the types.
fn checked(document: Document, at: &str, prefix: &str) -> Result<Trial, TrialError> {
    let refuse = |field: &str, what: String| {
        Err(TrialError::Content { at: at.to_owned(), place: format!("{prefix}{field}"), what })
    };
    let Document { id, baseline, candidate, baseline_cpu, candidate_cpu, launch, order, mode } = document;
    let columns = [
        ("baseline", Some(&baseline), None),
        ("candidate", Some(&candidate), None),
        ("baseline_cpu", baseline_cpu.as_ref(), Some(("baseline", baseline.len()))),
        ("candidate_cpu", candidate_cpu.as_ref(), Some(("candidate", candidate.len()))),
    ];
    for (name, values, of) in columns {
        let Some(values) = values else { continue };
        if values.is_empty() {
            return refuse(name, "is empty, expected times in ns".into());
        }
        if let Some(index) = values.iter().position(|time| !(time.is_finite() && *time > 0.0)) {
            let what = format!("is {}, expected a positive time in ns", values[index]);
            return refuse(&format!("{name}[{index}]"), what);
        }
        if let Some((other, n)) = of.filter(|(_, n)| *n != values.len()) {
            return refuse(name, format!("has {} entries, {other} has {n}, expected as many", values.len()));
        }
    }
    let (a, b) = (baseline.len(), candidate.len());
    if a != b && (mode.is_some_and(Mode::is_paired) || launch.is_some()) {
        return refuse("candidate", format!("has {b} samples, baseline has {a}, expected as many in pairs"));
    }
    if let Some(n) = launch.as_ref().map(Vec::len).filter(|n| *n != a) {
        return refuse("launch", format!("has {n} entries for {a} samples of each side, expected as many"));
    }
    let places = order.as_ref().map(|order| match order {
        Order::Numbers(numbers) => numbers.len(),
        Order::Coins(coins) => coins.len(),
        Order::Places(places) => places.len(),
        Order::Names(names) => names.len(),
    });
    if let Some(n) = places.filter(|n| *n > a + b) {
        return refuse("order", format!("has {n} entries for {} samples, expected at most as many", a + b));
    }
    let cpu = match (baseline_cpu, candidate_cpu) {
        (Some(baseline), Some(candidate)) => Some([baseline, candidate]),
        (None, None) => None,
        (Some(_), None) => return refuse("candidate_cpu", "is missing where baseline_cpu is given".into()),
        (None, Some(_)) => return refuse("baseline_cpu", "is missing where candidate_cpu is given".into()),
    };
    let ordered = places.is_some_and(|n| n > 0);
    Ok(Trial { id, baseline, candidate, cpu, launch, ordered, mode })
}
