//! The arithmetic on made-up numbers.

use super::*;
use crate::record::{Backend, CeilingSetting, Work, parse_recording};
use serde_json::json;
use std::path::Path;

/// One product of `bytes` and `ops`, timed on one backend: calls of 100, 80 and 90 ns.
fn recording(id: &str, backend: &str, bytes: u64, ops: u64) -> Recording {
    let golden = include_bytes!("../../../tests/golden/records/recording-v1.json");
    let mut recording = parse_recording(Path::new("golden"), golden).expect("the golden recording");
    let planned = &mut recording.plan.workloads[0];
    planned.id = id.into();
    planned.work = Work { weights: 4 * bytes, bytes, ops, ..Work::default() };
    recording.plan.workloads.truncate(1);
    recording.plan.backends = vec![Backend { name: backend.into(), ..Backend::default() }];
    let mut series = recording.series.iter().find(|s| s.meter == Meter::WallNs).expect("wall times").clone();
    (series.workload, series.backend) = (id.into(), backend.into());
    (series.value_ns, series.iterations) = (vec![1000, 800, 180], vec![10, 10, 2]);
    recording.series = vec![series];
    let rates = [
        ("l1_read_t1_gb_per_s", 100.0),
        ("l2_read_t1_gb_per_s", 50.0),
        ("l2_read_t2_gb_per_s", 90.0),
        ("l3_read_t2_gb_per_s", 40.0),
        ("dram_read_t1_gb_per_s", 10.0),
        ("int8_dot_avx2_t1_gop_per_s", 400.0),
        ("int8_dot_avx2_t2_gop_per_s", 800.0),
        ("int8_dot_avxvnni_t1_gop_per_s", 500.0),
        ("int8_dot_portable_t1_gop_per_s", 5.0),
        ("int8_dot_scalar_t1_gop_per_s", 5.0),
        ("f32_fma_avx2_t1_gop_per_s", 50.0),
        ("f32_fma_avx512vnni_t1_gop_per_s", 100.0),
        ("f32_fma_neon_t1_gop_per_s", 100.0),
        ("f16_fma_avx512vnni_t1_gop_per_s", 200.0),
        ("bf16_dot_avx512vnni_t1_gop_per_s", 40.0),
        ("bf16_dot_avx512vnni_t2_gop_per_s", 80.0),
    ];
    recording.ceilings = rates.map(|(name, rate)| (name.to_owned(), rate)).into();
    let caches = [(1, 100), (2, 1000), (3, 10_000)];
    let caches = caches.map(|(level, bytes)| json!({"level": level, "size_bytes": bytes}));
    let setting = json!({"repetitions": 12, "caches": caches});
    recording.ceiling_setting = Some(serde_json::from_value(setting).expect("a setting"));
    recording
}

#[test]
fn the_larger_bound_binds_and_the_fastest_call_counts() {
    let table = [
        // 800 bytes at 50 GB/s are 16 ns, 1600 operations at 400 GOP/s 4 ns; the fastest call took 80 ns.
        ("matmul/i2_s/1x1/b1/t1/hot", "rust-avx2", 800, 1600, 0.2, "l2_read_t1"),
        ("matmul/i2_s/1x1/b16/t1/hot", "rust-avx2", 800, 25_600, 0.8, "int8_dot_avx2_t1"),
        ("matmul/i2_s/1x1/b16/t1/hot", "cpp-avxvnni", 800, 30_000, 0.75, "int8_dot_avxvnni_t1"),
        ("linear/tl2/1x1/b1/t1/cold", "rust-avx2", 800, 1600, 1.0, "dram_read_t1"),
        ("file:0123abcd/linear/i2_s/1x1/b1/t1/cold+tensor=a/b", "rust-avx2", 800, 1600, 1.0, "dram_read_t1"),
        // Not clipped: a worse moment, or weights that lay nearer.
        ("matmul/i2_s/1x1/b1/t1/cold", "rust-avx2", 1600, 1600, 2.0, "dram_read_t1"),
        ("matmul/i2_s/1x1/b1/t1/hot", "rust-avx2", 100, 160, 0.0125, "l1_read_t1"),
        // Each of two threads holds its half in the second level; of the third they share the whole.
        ("matmul/i2_s/1x1/b1/t2/hot", "rust-avx2", 1800, 1600, 0.25, "l2_read_t2"),
        ("matmul/i2_s/1x1/b1/t2/hot", "rust-avx2", 3200, 1600, 1.0, "l3_read_t2"),
        // The same arithmetic for floats with and without products of bytes.
        ("mixed_precision/f16/1x1/b1/t1", "rust-avxvnni", 100, 2000, 0.5, "f32_fma_avx2_t1"),
        ("mixed_precision/f16/1x1/b1/t1", "cpp-neondotprod", 100, 2000, 0.25, "f32_fma_neon_t1"),
        // The hardware's own arithmetic of a type has a peak of its own, and not always a higher one.
        ("mixed_precision/f16/1x1/b1/t1", "rust-avx512vnni", 100, 2000, 0.25, "f32_fma_avx512vnni_t1"),
        (
            "mixed_precision/f16/1x1/b1/t1+arithmetic=native",
            "rust-avx512vnni",
            100,
            2000,
            0.125,
            "f16_fma_avx512vnni",
        ),
        (
            "mixed_precision/bf16/1x1/b1/t1+arithmetic=native",
            "cpp-avx512vnni",
            100,
            2000,
            0.625,
            "bf16_dot_avx512vnni",
        ),
        (
            "mixed_precision/bf16/1x1/b1/t2+arithmetic=native",
            "rust-avx512vnni",
            1800,
            800,
            0.25,
            "l2_read_t2",
        ),
        ("matmul/i2_s/1x1/b1/t1/hot", "rust-avx2@new", 800, 1600, 0.2, "l2_read_t1"),
    ];
    for (id, backend, bytes, ops, share, binds) in table {
        let recording = recording(id, backend, bytes, ops);
        recording.ceilings.values().for_each(|rate| assert!(*rate > 0.0));
        let found = efficiencies(&recording);
        let [found] = found.as_slice() else { panic!("{id} on {backend}: {found:?}") };
        assert!((found.share / share - 1.0).abs() < 1e-12, "{id} on {backend}: {found:?}");
        assert!(found.binds.starts_with(binds), "{id} on {backend}: {found:?}");
        assert!([&found.bandwidth, &found.peak].contains(&&found.binds));
        assert_eq!(found.fastest_ns, 80.0);
        assert!((found.bound_ns - 80.0 * share).abs() < 1e-9);
    }
}

#[test]
fn without_its_ceilings_a_product_has_no_efficiency() {
    let id = "matmul/i2_s/1x1/b1/t1/hot";
    type Change = fn(&mut Recording);
    let table: [(&str, Change, &str); 10] = [
        (
            "rust-avx2",
            |r| {
                r.ceilings.remove("l2_read_t1_gb_per_s");
            },
            "no ceiling l2_read_t1_gb_per_s",
        ),
        (
            "rust-avx2",
            |r| {
                r.ceilings.remove("int8_dot_avx2_t1_gop_per_s");
            },
            "no ceiling int8_dot_avx2_t1",
        ),
        ("rust-avx2", |r| r.ceiling_setting = None, "no cache sizes"),
        ("rust-avx2", |r| r.ceiling_setting = Some(CeilingSetting::default()), "no cache sizes"),
        ("rust-avx2", |r| r.series.clear(), "not timed"),
        ("plugin@libplugin", |_| (), "no instruction set of its own"),
        ("rust-scalar", |_| (), "no instruction set of its own"),
        ("cpp-portable", |_| (), "no instruction set of its own"),
        ("c-kernel@libkernel", |_| (), "no ceiling int8_dot_kernel_t1"),
        ("my-avx2@python", |_| (), "no instruction set of its own"),
    ];
    for (backend, change, words) in table {
        let mut recording = recording(id, backend, 800, 1600);
        change(&mut recording);
        assert_eq!(efficiencies(&recording), []);
        let why = efficiency(&recording, &recording.plan.workloads[0], backend).expect_err(backend);
        assert!(why.contains(words), "{why}");
    }
    // Weights larger than every cache come from memory, whatever the name of the workload says.
    let large = recording(id, "rust-avx2", 20_000, 1600);
    assert_eq!(efficiencies(&large)[0].binds, "dram_read_t1_gb_per_s");
    for other in ["quantize/i2_s/1x1", "overhead/call", "decode/tiny/i2_s/tg1/t1"] {
        assert_eq!(efficiencies(&recording(other, "rust-avx2", 800, 1600)), [], "{other} is no product");
    }
}

/// A kernel that remembers its last answer is as fast as no cache is; two builds of it have no other rule that sees it.
#[test]
fn who_is_far_beyond_the_ceilings_gives_no_evidence() {
    let policy = Policy::default();
    let id = "matmul/i2_s/1x1/b1/t1/hot";
    // The fastest call took 80 ns, the nearest cache gives 100 GB/s: 20,000 bytes are 2.5 times as fast.
    for (backend, bytes, answer, words) in [
        ("c-kernel@new", 19_900, Some(Answer::Pass), "nobody is beyond 2.5 times"),
        ("c-kernel@new", 20_100, Some(Answer::Neutral), "it did not read its weights"),
        ("rust-avx2@new", 2100, Some(Answer::Pass), "nobody"),
    ] {
        let mut one = recording(id, backend, bytes, 1600);
        let found = plausible(&one, &policy);
        assert_eq!(found.verdict, answer, "{backend} {bytes}: {}", found.reason);
        assert!(found.reason.contains(words), "{}", found.reason);
        assert_eq!(
            rule(&one, &Baseline::NotAsked, &policy, None).verdict,
            answer.filter(|a| *a == Answer::Neutral)
        );
        one.ceilings.clear();
        assert_eq!(plausible(&one, &policy).verdict, None, "no ceilings are no pass");
    }
    // Reading is possible, and the arithmetic is not: 80 ns at 400 GOP/s are 32,000 operations.
    let computed = |ops| plausible(&recording(id, "rust-avx2@new", 800, ops), &policy).verdict;
    assert_eq!([computed(79_000), computed(81_000)], [Some(Answer::Pass), Some(Answer::Neutral)]);
    let untimed = recording("quantize/i2_s/1x1", "rust-avx2@new", 20_100, 0);
    assert_eq!(plausible(&untimed, &policy).verdict, None, "no product is no pass");
}

#[test]
fn classes_begin_where_they_say() {
    let policy = EfficiencyPolicy::default();
    let classes = [0.0, 0.199, 0.2, 0.59, 0.6, 0.8, 1.7].map(|share| policy.class(share));
    assert_eq!(classes, [0, 0, 1, 2, 3, 4, 4]);
}
