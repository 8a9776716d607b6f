//! The catalogue's workloads on every backend, through the campaign that the command line runs.

use super::support::{subjects, takes_part};
use bitnet_perfgate::backends::detect::{Avx512Bf16, Avx512Fp16};
use bitnet_perfgate::backends::{self, Backend, BackendError, BuildInfo, Matmul, WeightRule};
use bitnet_perfgate::bitnet::formats::{Layout, Weights};
use bitnet_perfgate::campaign::{self, Cast, Request, TimingPlan};
use bitnet_perfgate::gate::{self, Answer, Policy};
use bitnet_perfgate::record::{AgreementRow, Recording};
use bitnet_perfgate::workloads::catalog::{Profile, catalog};
use bitnet_perfgate::workloads::{Category, NATIVE_SUFFIX};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn request(workloads: &[&str]) -> Request {
    Request {
        profile: Profile::Quick,
        seed: 42,
        categories: Vec::new(),
        workloads: workloads.iter().map(|id| (*id).to_owned()).collect(),
        model: None,
        timing: None,
    }
}

fn compared(workloads: &[&str], cast: &Cast) -> Recording {
    campaign::run(&request(workloads), cast, &mut |_| ControlFlow::Continue(())).expect("the catalogue runs")
}

/// Spoils the products of every call after the first `right` ones.
fn decaying(right: usize) -> impl Fn(&mut [i32]) + Send + Sync {
    let calls = AtomicUsize::new(0);
    move |out| {
        if calls.fetch_add(1, Ordering::Relaxed) >= right {
            out.fill(0);
        }
    }
}

/// A kernel that is right once and then stops computing is found after the timing, and its times are not kept.
#[test]
fn a_kernel_that_stops_computing_is_not_timed() {
    let workload = "matmul/i2_s/640x2560/b1/t1/hot";
    let spoiled = Arc::new(Spoiled { inner: backends::rust_scalar::RustScalar, spoil: decaying(1) });
    let mut everybody = backends::all();
    everybody.push(spoiled);
    let request = Request {
        timing: Some(TimingPlan { blocks: 2, min_blocks: 2, budget_ns: 1, ..TimingPlan::standard() }),
        ..request(&[workload])
    };
    let recording =
        campaign::run(&request, &Cast::new(everybody), &mut |_| ControlFlow::Continue(())).expect("it runs");
    recording.check().expect("a legal recording");
    let row = recording.agreements.iter().find(|row| row.backend == "rust-spoiled").expect("a row");
    assert!(!row.holds(), "{row:?}");
    assert!(recording.series.iter().all(|series| series.backend != "rust-spoiled"));
    assert_eq!(gate::judge(&gate::Case::alone(&recording, &Policy::default())).verdict, Answer::Fail);
}

/// Every pair is compared, and nothing is left out; every one agrees to the bit, but for native arithmetic, which few
/// backends have: within its contract. Whole models have a test of their own, on a
/// model that plain loops can bear in an unoptimised build.
#[test]
fn every_quick_workload_agrees_on_every_backend() {
    let here = catalog(Profile::Quick).workloads;
    let here: Vec<&str> = here
        .iter()
        .filter(|workload| workload.category != Category::Inference)
        .map(|workload| workload.id.as_str())
        .collect();
    let recording = compared(&here, &Cast::new(backends::all()));
    let others = &subjects()[1..];
    if cfg!(feature = "ffi") {
        assert!(!others.is_empty(), "the portable C++ backend runs everywhere: something must be compared");
    }
    let is_native = |id: &str| id.ends_with(NATIVE_SUFFIX);
    let taken = |id: &&str| others.iter().filter(|backend| takes_part(&***backend, id)).count();
    let pairs = here.iter().filter(|id| !is_native(id)).map(taken).sum::<usize>();
    let (native, rest): (Vec<_>, Vec<_>) =
        recording.agreements.iter().partition(|row| is_native(&row.workload));
    let unequal: Vec<_> = rest.iter().filter(|row| !row.exact).collect();
    assert!(unequal.is_empty(), "{unequal:#?}");
    assert_eq!(rest.len(), pairs, "skipped: {:#?}", recording.skipped);
    assert!(recording.agreements.iter().all(|row| row.holds() && row.compared > 0));
    assert!(recording.series.is_empty(), "nothing was to be timed");
    println!("{pairs} workload x backend pairs, all exact, and {} in native arithmetic", native.len());
}

/// On hardware that has it native arithmetic is another one, within its contract, and as accurate as the type is; without
/// it the workloads are no part of the plan, and the reason is said.
#[test]
fn native_arithmetic_reports_its_accuracy_or_why_there_is_none() {
    let halves = [("f16", Avx512Fp16::detect().err()), ("bf16", Avx512Bf16::detect().err())];
    for ((name, missing), snr_db) in halves.into_iter().zip([60.0..68.0, 50.0..56.0]) {
        for batch in [1, 16] {
            let plain = format!("mixed_precision/{name}/640x2560/b{batch}/t1");
            let id = format!("{plain}{NATIVE_SUFFIX}");
            let recording = compared(&[&plain, &id], &Cast::new(backends::all()));
            let rows: Vec<_> = recording.agreements.iter().filter(|row| row.workload == id).collect();
            let planned = recording.plan.workloads.iter().any(|planned| planned.id == id);
            assert_eq!(planned, missing.is_none(), "{missing:?}");
            if missing.is_some() {
                let skipped = recording.skipped.iter().find(|skipped| skipped.what == id);
                assert!(rows.is_empty() && skipped.is_some_and(|one| one.reason.contains("native")));
                continue;
            }
            let sides = usize::from(cfg!(feature = "cpu")) + usize::from(cfg!(feature = "ffi"));
            assert_eq!(rows.len(), sides, "{rows:#?}");
            for row in rows {
                assert!(row.holds() && !row.exact && row.compared == batch * 640, "{row:#?}");
                assert!(snr_db.contains(&row.metrics["snr_db"]), "{row:#?}");
                let same_inputs =
                    |other: &&AgreementRow| other.workload == plain && other.backend == row.backend;
                let f32 = recording.agreements.iter().find(same_inputs).expect("the same in f32");
                let lost = f32.metrics["snr_db"] - row.metrics["snr_db"];
                assert!((1.0..10.0).contains(&lost), "{lost} dB by native arithmetic");
            }
        }
    }
}

/// What storage costs is measured beside the speed: relative errors of the size of half a unit of the significand.
#[test]
fn mixed_precision_reports_what_storage_costs() {
    let ids = ["f32", "f16", "bf16"].map(|name| format!("mixed_precision/{name}/640x2560/b4/t1"));
    let recording = compared(&ids.each_ref().map(String::as_str), &Cast::new(backends::all()));
    for (id, range) in ids.iter().zip([1e-8..1e-6, 1e-4..2.0_f64.powi(-11), 1e-3..2.0_f64.powi(-8)]) {
        let rows: Vec<_> = recording.agreements.iter().filter(|row| row.workload == *id).collect();
        let is_rust = |backend: &&Arc<dyn Backend>| backend.name().starts_with("rust-");
        let rust =
            subjects().iter().filter(|backend| is_rust(backend) && takes_part(&***backend, id)).count() - 1;
        assert!(
            rows.len() >= rust && rows.iter().all(|row| row.exact && row.compared == 4 * 640),
            "{rows:#?}"
        );
        for row in rows {
            let (error, snr) = (row.metrics["relative_l2_error"], row.metrics["snr_db"]);
            assert!(range.contains(&error), "{id}: {error:e}");
            assert!((snr + 20.0 * error.log10()).abs() < 1e-6, "{id}: {snr} dB for {error:e}");
        }
    }
}

/// Whole models give the same bits on every backend: Rust over each backend's products, C++ by an engine of its own, on
/// one thread and on two.
#[test]
fn the_tiny_model_is_exact_on_every_backend() {
    let ids: Vec<String> = [1, 2]
        .iter()
        .flat_map(|threads| {
            ["prefill/tiny/i2_s/pp32", "decode/tiny/i2_s/tg16", "ttft/tiny/i2_s/pp32"]
                .map(|id| format!("{id}/t{threads}"))
        })
        .collect();
    let named: Vec<&str> = ids.iter().map(String::as_str).collect();
    let recording = compared(&named, &Cast::new(backends::all()));
    let unequal: Vec<_> = recording.agreements.iter().filter(|row| !row.exact).collect();
    assert!(unequal.is_empty(), "{unequal:#?}");
    let others: Vec<String> = subjects().iter().map(|backend| backend.name().to_owned()).collect();
    for id in &named {
        for name in others.iter().filter(|name| *name != "rust-scalar") {
            let row = recording.agreements.iter().find(|row| row.workload == *id && row.backend == *name);
            match row {
                Some(row) => assert!(row.compared >= 320, "{id} on {name}: {row:?}"),
                None => {
                    // Plain loops have one thread; nobody else is left out.
                    let what = format!("{id} on {name}");
                    let skipped = recording.skipped.iter().find(|skipped| skipped.what == what);
                    let reason = skipped.map_or("", |skipped| skipped.reason.as_str());
                    assert!(id.ends_with("/t2") && reason.contains("2 threads"), "{what}: {reason:?}");
                }
            }
        }
    }
}

/// A backend that is right except where `spoil` makes it wrong.
struct Spoiled<F> {
    inner: backends::rust_scalar::RustScalar,
    spoil: F,
}

impl<F: Fn(&mut [i32]) + Send + Sync> Backend for Spoiled<F> {
    fn name(&self) -> &str {
        "rust-spoiled"
    }
    fn isa(&self) -> &str {
        "scalar"
    }
    fn build_info(&self) -> BuildInfo {
        self.inner.build_info()
    }
    fn availability(&self) -> backends::Availability {
        backends::Availability::Ready
    }
    fn quantize_weights(
        &self,
        l: &Layout,
        r: WeightRule,
        s: &[f32],
        d: &mut [u8],
    ) -> Result<f32, BackendError> {
        self.inner.quantize_weights(l, r, s, d)
    }
    fn dequantize_weights(&self, w: &Weights<'_>, d: &mut [f32]) -> Result<(), BackendError> {
        self.inner.dequantize_weights(w, d)
    }
    fn quantize_activations(
        &self,
        x: &[f32],
        cols: usize,
        q: &mut [i8],
        scale: &mut [f32],
        sum: &mut [i32],
    ) -> Result<(), BackendError> {
        self.inner.quantize_activations(x, cols, q, scale, sum)
    }
    fn prepare_matmul<'a>(
        &'a self,
        w: Weights<'a>,
        n: usize,
        t: usize,
    ) -> Result<Box<dyn Matmul + 'a>, BackendError> {
        Ok(Box::new(SpoiledMatmul { inner: self.inner.prepare_matmul(w, n, t)?, spoil: &self.spoil }))
    }
}

struct SpoiledMatmul<'a, F> {
    inner: Box<dyn Matmul + 'a>,
    spoil: &'a F,
}

impl<F: Fn(&mut [i32])> Matmul for SpoiledMatmul<'_, F> {
    fn matmul_i8_i32(&mut self, q: &[i8], out: &mut [i32]) -> Result<(), BackendError> {
        self.inner.matmul_i8_i32(q, out)?;
        (self.spoil)(out);
        Ok(())
    }
    fn linear_f32_f32(&mut self, x: &[f32], y: &mut [f32]) -> Result<(), BackendError> {
        self.inner.linear_f32_f32(x, y)
    }
}

/// The harness must be able to see: wrong products are a failed agreement with the place and the named cause, and
/// a verdict of fail that routes to the cross-validation specialist.
#[test]
fn wrong_products_are_seen_placed_and_named() {
    let negate = |out: &mut [i32]| out.iter_mut().for_each(|x| *x = -*x);
    let nudge = |out: &mut [i32]| out[17] += 1;
    for (fault, spoil, cause, place) in
        [("sign", negate as fn(&mut [i32]), "opposite sign", 0), ("one value", nudge, "", 17)]
    {
        let spoiled = Arc::new(Spoiled { inner: backends::rust_scalar::RustScalar, spoil });
        let recording = compared(&["matmul/i2_s/640x2560/b1/t1/hot"], &Cast::new(vec![spoiled]));
        assert_eq!(recording.agreements.len(), 1, "{fault}");
        let row = &recording.agreements[0];
        assert!(!row.holds() && !row.exact, "{fault}");
        assert!(row.cause.as_deref().unwrap_or_default().contains(cause), "{fault}: {:?}", row.cause);
        let first = row.first_mismatch.as_ref().expect("a first mismatch");
        assert!(first.index <= place, "{fault}: first at {}", first.index);
        let verdict = gate::judge(&gate::Case::alone(&recording, &Policy::default()));
        assert_eq!(verdict.verdict, Answer::Fail, "{fault}");
        assert_eq!(verdict.route.next, "crossval-specialist", "{fault}");
    }
}

/// Backends that repack weights are never what a verdict depends on, and keep out of what is not about their products
/// unless they are asked for; what preparing took is recorded.
#[test]
fn repacking_backends_are_bystanders_that_say_what_repacking_takes() {
    let ids = ["quantize/i2_s/640x2560", "matmul/tl2/640x2560/b1/t1/hot", "matmul/i2_s/640x2560/b1/t1/hot"];
    let repacking: Vec<_> = subjects().into_iter().filter(|backend| backend.repacks().is_some()).collect();
    let everybody = compared(&ids, &Cast::new(backends::all()));
    let named = repacking.iter().map(|backend| backend.name().to_owned()).collect();
    let asked_for = compared(&ids, &Cast::new(backends::all()).requested(named));
    for backend in &repacking {
        let name = backend.name();
        assert!(!everybody.plan.required.iter().any(|required| required == name));
        let rows = |recording: &Recording| -> Vec<String> {
            let own = recording.agreements.iter().filter(|row| row.backend == name && row.exact);
            own.map(|row| row.workload.clone()).collect()
        };
        assert_eq!(rows(&everybody), ids[2..]);
        assert_eq!(rows(&asked_for), [ids[0], ids[2]]);
        let refused = format!("{} on {name}", ids[1]);
        let why = |recording: &Recording| {
            recording.skipped.iter().find(|skipped| skipped.what == refused).map(|row| row.reason.clone())
        };
        assert_eq!(why(&everybody), None);
        assert_eq!(
            why(&asked_for).as_deref(),
            Some("does not support tl2: it repacks i2_s and nothing else")
        );
        let memory: Vec<_> = everybody.memory.iter().filter(|row| row.backend == name).collect();
        let copy = backend.repacks().expect("it repacks").packed_bytes(640, 2560) as u64;
        assert!(
            matches!(memory[..], [row] if row.meter == "prepared_bytes" && row.workload == ids[2] && row.value_bytes > copy),
            "{memory:?}"
        );
    }
}
