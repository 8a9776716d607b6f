//! criterion over the quick profile of the catalogue, under the catalogue's ids, for every backend that runs here.
//!
//! A bench runs the same prepared object that parity compares and `run` times, and it is compared with the oracle
//! first: a fast wrong backend is not measured. These numbers are unpaired; for a comparison of two sides use
//! `python -m bitnet_perfgate run`, which interleaves them.

use bitnet_perfgate::backends::{self, Availability, Backend, BackendError};
use bitnet_perfgate::parity::{Contract, compare};
use bitnet_perfgate::workloads::catalog::{Profile, catalog};
use bitnet_perfgate::workloads::{Output, Run, Workload};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

const SEED: u64 = 42;
/// Operations above which plain loops would take most of the time.
const PLAIN_LOOP_OPS: u64 = 40_000_000;

fn catalogue(criterion: &mut Criterion) {
    let mut measured = 0;
    for workload in catalog(Profile::Quick).workloads {
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
                Ok(mut run) => {
                    group.bench_function(backend.name(), |bencher| {
                        bencher.iter(|| run.run().expect("it ran before"));
                    });
                    measured += 1;
                }
                Err(why) => panic!("{} on {}: {why}", workload.id, backend.name()),
            }
        }
        group.finish();
    }
    assert!(measured > 0, "nothing was measured");
}

/// The workload ready on `backend`, once it has given the oracle's results.
fn agreeing<'a>(
    workload: &Workload,
    inputs: &'a bitnet_perfgate::workloads::Inputs<'_>,
    backend: &'a dyn Backend,
    expected: &dyn Run,
) -> Result<Box<dyn Run + 'a>, String> {
    let text = |error: BackendError| error.to_string();
    let mut run = workload.prepare(inputs, backend).map_err(text)?;
    run.run().map_err(text)?;
    for ((part, expected), (_, actual)) in expected.outputs().into_iter().zip(run.outputs()) {
        let agreement = match (expected, actual) {
            (Output::U8(e), Output::U8(a)) => compare(&Contract::Exact, e, a),
            (Output::I8(e), Output::I8(a)) => compare(&Contract::Exact, e, a),
            (Output::I32(e), Output::I32(a)) => compare(&Contract::Exact, e, a),
            (Output::F32(e), Output::F32(a)) => compare(&Contract::Exact, e, a),
            _ => return Err(format!("{part}: two types of output")),
        };
        if !agreement.holds() {
            return Err(format!("{part}: {} of {} values differ", agreement.mismatches, agreement.compared));
        }
    }
    Ok(run)
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = catalogue
}
criterion_main!(benches);
