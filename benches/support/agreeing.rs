//! What every bench does: takes workloads from the catalogue, lets each backend that runs here agree with the oracle
//! first, and measures it then. A fast wrong backend is not measured, and neither is nothing.

use bitnet_perfgate::backends::{self, Availability, Backend, BackendError};
use bitnet_perfgate::parity::compare;
use bitnet_perfgate::workloads::catalog::{Profile, catalog};
use bitnet_perfgate::workloads::{Inputs, Output, Run, Workload};
use criterion::{Criterion, Throughput};
use std::time::Duration;

const SEED: u64 = 42;
/// Operations above which plain loops would take most of the time.
const PLAIN_LOOP_OPS: u64 = 40_000_000;

/// Short measurements: these numbers are unpaired, and show orders of size.
pub fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
}

/// Benches the workloads of `profile` that are `wanted`.
///
/// # Panics
/// When a backend disagrees with the oracle, or nothing was measured.
pub fn bench(criterion: &mut Criterion, profile: Profile, wanted: impl Fn(&Workload) -> bool) {
    let mut measured = 0;
    for workload in catalog(profile).workloads.into_iter().filter(wanted) {
        let inputs = workload.inputs(SEED).expect("the catalogue's layouts are legal");
        let first_copy = inputs.one_copy();
        let oracle = backends::by_name("rust-scalar").expect("always there");
        let mut expected =
            workload.prepare(&first_copy, oracle.as_ref()).expect("the oracle runs everything");
        expected.run().expect("the oracle runs everything");
        let mut group = criterion.benchmark_group(&workload.id);
        group.throughput(match workload.work.ops {
            0 => Throughput::Elements(workload.work.weights),
            _ => Throughput::Bytes(workload.work.bytes),
        });
        for backend in backends::all().iter().filter(|backend| backend.availability() == Availability::Ready)
        {
            let plain = ["scalar", "portable"].contains(&backend.isa());
            if plain && (workload.work.ops > PLAIN_LOOP_OPS || workload.id.ends_with("/cold")) {
                continue;
            }
            match agreeing(&workload, &inputs, backend.as_ref(), expected.as_ref()) {
                Ok(Some(mut run)) => {
                    group.bench_function(backend.name(), |bencher| {
                        // Not called for what a filter on the command line leaves out.
                        measured += 1;
                        bencher.iter(|| run.run().expect("it ran before"));
                    });
                }
                Ok(None) => {}
                Err(why) => panic!("{} on {}: {why}", workload.id, backend.name()),
            }
        }
        group.finish();
    }
    let only_listed = std::env::args().any(|argument| argument == "--list");
    assert!(measured > 0 || only_listed, "nothing was measured");
}

/// The workload ready on `backend`, once it has given the oracle's results; `None`, said on stderr, where it is not
/// offered.
fn agreeing<'a>(
    workload: &Workload,
    inputs: &'a Inputs<'_>,
    backend: &'a dyn Backend,
    expected: &dyn Run,
) -> Result<Option<Box<dyn Run + 'a>>, String> {
    let text = |error: BackendError| error.to_string();
    let mut run = match workload.prepare(inputs, backend) {
        Err(why @ BackendError::Unsupported { .. }) => {
            eprintln!("{} is not measured: {why}", workload.id);
            return Ok(None);
        }
        answer => answer.map_err(text)?,
    };
    run.poison();
    run.run().map_err(text)?;
    for ((part, expected), (_, actual)) in expected.outputs().into_iter().zip(run.outputs()) {
        let agreement = match (expected, actual) {
            (Output::U8(e), Output::U8(a)) => compare(&workload.contract, e, a),
            (Output::I8(e), Output::I8(a)) => compare(&workload.contract, e, a),
            (Output::I32(e), Output::I32(a)) => compare(&workload.contract, e, a),
            (Output::F32(e), Output::F32(a)) => compare(&workload.contract, e, a),
            _ => return Err(format!("{part}: two types of output")),
        };
        if !agreement.holds() {
            return Err(format!("{part}: {} of {} values differ", agreement.mismatches, agreement.compared));
        }
    }
    Ok(Some(run))
}
