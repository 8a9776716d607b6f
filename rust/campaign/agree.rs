//! Do they agree: a backend's results against the oracle's, on the buffers that will be timed.

use crate::backends::{Backend, BackendError};
use crate::parity::{self, Agreement};
use crate::record::AgreementRow;
use crate::workloads::{Inputs, Output, Run, Workload, explain};
use std::time::{Duration, Instant};

/// What the first run of a backend showed.
pub(super) enum First<'a> {
    /// It cannot do this; the reason.
    Unsupported(String),
    /// It failed or disagreed. No timing follows.
    Failed(Box<AgreementRow>),
    /// It agreed; ready to be timed.
    Agreed(Box<AgreementRow>, Box<dyn Run + 'a>),
}

/// Prepares `backend`, runs it once and compares with `expected`.
pub(super) fn first_run<'a>(
    workload: &Workload,
    inputs: &'a Inputs<'_>,
    backend: &'a dyn Backend,
    expected: &dyn Run,
) -> First<'a> {
    let begin = Instant::now();
    let prepared = workload.prepare(inputs, backend);
    let prepare_ns = begin.elapsed().as_nanos() as f64;
    let mut run = match prepared {
        Ok(run) => run,
        Err(BackendError::Unsupported { what, .. }) => {
            return First::Unsupported(format!("does not support {what}"));
        }
        Err(error) => return First::Failed(Box::new(errored(&workload.id, backend.name(), &error))),
    };
    let mut row = match poisoned_run(workload, inputs, backend, expected, run.as_mut()) {
        Err(BackendError::Unsupported { what, .. }) => {
            return First::Unsupported(format!("does not support {what}"));
        }
        Err(error) => return First::Failed(Box::new(errored(&workload.id, backend.name(), &error))),
        Ok(row) => row,
    };
    row.metrics.insert("prepare_ns".into(), prepare_ns);
    if row.holds() {
        row.metrics.extend(empty_call_ns(run.as_mut()).map(|ns| ("empty_call_ns".into(), ns)));
    }
    if row.holds() { First::Agreed(Box::new(row), run) } else { First::Failed(Box::new(row)) }
}

/// Empty calls that are timed, after one that is not, unless they take longer than [`EMPTY_CALLS_FOR`].
const EMPTY_CALLS: usize = 31;
const EMPTY_CALLS_FOR: Duration = Duration::from_millis(50);

/// The median time of an empty call, for a kernel that is not reached directly.
fn empty_call_ns(run: &mut dyn Run) -> Option<f64> {
    run.empty_call()?.ok()?;
    let begin = Instant::now();
    let mut times = Vec::with_capacity(EMPTY_CALLS);
    while times.len() < EMPTY_CALLS && (times.is_empty() || begin.elapsed() < EMPTY_CALLS_FOR) {
        let begin = Instant::now();
        run.empty_call()?.ok()?;
        times.push(begin.elapsed().as_nanos());
    }
    times.sort_unstable();
    Some(times[times.len() / 2] as f64)
}

/// Poisons the outputs, runs once and compares.
fn poisoned_run(
    workload: &Workload,
    inputs: &Inputs<'_>,
    backend: &dyn Backend,
    expected: &dyn Run,
    run: &mut dyn Run,
) -> Result<AgreementRow, BackendError> {
    run.poison();
    run.run()?;
    Ok(compare(workload, inputs, backend.name(), expected, run))
}

/// As often as every copy of the weights is looked at, and at least this often.
const RUNS_AFTERWARDS: usize = 3;

/// Once more on the very buffers that were timed: a kernel that decays, or computes only sometimes, is as wrong as
/// one that never worked. `None` where it still agrees.
pub(super) fn afterwards(
    workload: &Workload,
    inputs: &Inputs<'_>,
    backend: &dyn Backend,
    expected: &dyn Run,
    run: &mut dyn Run,
) -> Option<AgreementRow> {
    for _ in 0..run.copies().max(RUNS_AFTERWARDS) {
        let row = poisoned_run(workload, inputs, backend, expected, run)
            .unwrap_or_else(|error| errored(&workload.id, backend.name(), &error));
        if !row.holds() {
            return Some(row);
        }
    }
    None
}

/// The agreement of all outputs of one run, as one row: counts added, the first mismatch kept and its cause named.
pub(super) fn compare(
    workload: &Workload,
    inputs: &Inputs<'_>,
    backend: &str,
    expected: &dyn Run,
    actual: &dyn Run,
) -> AgreementRow {
    let mut total: Option<AgreementRow> = None;
    for ((part, expected), (_, actual)) in expected.outputs().into_iter().zip(actual.outputs()) {
        let agreement = compare_output(workload, expected, actual);
        let mut row = AgreementRow::new(&workload.id, backend, &agreement);
        if !row.holds() {
            row.extra.insert("output".into(), part.into());
            row.cause = explain::explain(workload, inputs, expected, actual).map(|cause| cause.sentence);
        }
        total = Some(match total {
            None => row,
            Some(so_far) => joined(so_far, row),
        });
    }
    let mut row = total.expect("every workload has outputs");
    if let Some(accuracy) = workload.accuracy(inputs, actual) {
        row.metrics.insert("relative_l2_error".into(), accuracy.relative_l2_error);
        row.metrics.insert("snr_db".into(), accuracy.snr_db);
    }
    row
}

fn compare_output(workload: &Workload, expected: Output<'_>, actual: Output<'_>) -> Agreement {
    let contract = &workload.contract;
    match (expected, actual) {
        (Output::U8(expected), Output::U8(actual)) => parity::compare(contract, expected, actual),
        (Output::I8(expected), Output::I8(actual)) => parity::compare(contract, expected, actual),
        (Output::I32(expected), Output::I32(actual)) => parity::compare(contract, expected, actual),
        (Output::F32(expected), Output::F32(actual)) => parity::compare(contract, expected, actual),
        // One workload has one type of output; nothing compared is no agreement.
        _ => parity::compare::<u8>(contract, &[], &[]),
    }
}

/// Two outputs of one run as one row. What failed first is what is shown.
fn joined(first: AgreementRow, second: AgreementRow) -> AgreementRow {
    let (shown, other) = if first.holds() && !second.holds() { (second, first) } else { (first, second) };
    let mut metrics = shown.metrics;
    for (name, value) in other.metrics {
        let most = metrics.entry(name).or_insert(value);
        *most = most.max(value);
    }
    AgreementRow {
        exact: shown.exact && other.exact,
        compared: shown.compared + other.compared,
        mismatches: shown.mismatches + other.mismatches,
        length_mismatch: shown.length_mismatch.or(other.length_mismatch),
        metrics,
        ..shown
    }
}

/// The row of a backend that answered an error: nothing was compared, so it does not hold.
pub(super) fn errored(workload: &str, backend: &str, error: &dyn std::fmt::Display) -> AgreementRow {
    let nothing = parity::compare::<u8>(&parity::Contract::Exact, &[], &[]);
    let mut row = AgreementRow::new(workload, backend, &nothing);
    row.cause = Some(error.to_string());
    row
}
