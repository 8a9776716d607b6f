//! Real and hand-made files (`tests/golden/import/README.md` says which), and hostile copies of them.

use super::*;
use crate::record::{Meter, parse_recording};
use serde_json::json;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/import")
}

fn options() -> ImportOptions {
    ImportOptions { from: None, saved: "new".into(), tool: Tool::default() }
}

fn golden(name: &str) -> Recording {
    import(&[folder().join(name)], &options()).unwrap_or_else(|why| panic!("{why}"))
}

/// The recording of a document made here.
fn of(document: &Value) -> Result<Recording, String> {
    let (source, found) = from_bytes(document.to_string().as_bytes(), None)?;
    assemble(vec![(PathBuf::from("x.json"), source, found)], &options()).map_err(|why| why.to_string())
}

const FILES: [&str; 17] = [
    "bitnet-rs-baselines.json",
    "bitnet-rs-benchmark.json",
    "bitnet-rs-comparison.json",
    "bitnet-rs-decode.json",
    "bitnet-rs-metrics.json",
    "bitnet-rs-results.json",
    "bitnet-rs-run.json",
    "cargo-criterion.jsonl",
    "critcmp.json",
    "google-benchmark.json",
    "google-benchmark-aggregates.json",
    "google-benchmark-old.json",
    "hyperfine.json",
    "llama-bench.json",
    "llama-bench.jsonl",
    "pytest-benchmark.json",
    "pytest-benchmark-saved.json",
];

/// Per-call times of a workload's samples by wall clock.
fn calls(recording: &Recording, id: &str) -> Vec<f64> {
    let series =
        recording.series.iter().find(|series| series.workload == id && series.meter == Meter::WallNs);
    let series = series.unwrap_or_else(|| panic!("no series of {id}"));
    series.value_ns.iter().zip(&series.iterations).map(|(&ns, &n)| ns as f64 / n as f64).collect()
}

fn summary(recording: &Recording, id: &str) -> super::super::Summary {
    let known = &recording.origin.as_ref().expect("imported").benchmarks[id];
    known.summary.clone().unwrap_or_else(|| panic!("no summary of {id}"))
}

#[test]
fn every_golden_file_is_recognised_and_survives_writing() {
    for name in FILES {
        let recording = golden(name);
        let origin = recording.origin.as_ref().expect("imported");
        assert!(name.starts_with(&origin.tool), "{name} was taken for {}", origin.tool);
        assert_eq!(origin.files, [name]);
        assert!(!origin.benchmarks.is_empty(), "{name}");
        for known in &recording.plan.workloads {
            let (prefix, own) = known.id.split_once(':').expect("a prefix");
            assert!(Source::by_name(prefix).is_some() && !own.is_empty(), "{}", known.id);
        }
        let text = serde_json::to_vec(&recording).expect("serialises");
        assert_eq!(parse_recording(Path::new(name), &text).expect("a recording"), recording);
    }
    let listed = std::fs::read_dir(folder()).expect("listed").count();
    assert_eq!(listed, FILES.len() + 6, "three trees, two more files and the README are tested by name");
}

#[test]
fn criterion_trees_old_and_new() {
    let recording = golden("criterion");
    let id = "criterion:overhead/call/rust-avx2";
    let file = folder().join("criterion/overhead_call/rust-avx2/new/sample.json");
    let sample: Value = serde_json::from_slice(&std::fs::read(file).expect("there")).expect("JSON");
    let (total, n) = (sample["times"][3].as_f64().expect("ns"), sample["iters"][3].as_f64().expect("calls"));
    assert_eq!(calls(&recording, id)[3], total / n);
    assert_eq!(calls(&recording, id).len(), 20);
    assert_eq!(recording.plan.workloads.len(), 3);
    assert!(recording.origin.as_ref().expect("imported").benchmarks[id].setting.contains_key("throughput"));
    assert_eq!(recording.skipped, [], "base is of an earlier run");

    let saved = |saved: &str| {
        let options = ImportOptions { saved: saved.into(), ..options() };
        import(&[folder().join("criterion")], &options)
    };
    let second = saved("second").expect("a saved baseline");
    assert_eq!(calls(&second, id), calls(&recording, id), "this run was saved under that name");
    assert_ne!(calls(&saved("base").expect("base"), id), calls(&recording, id));
    let error = saved("third").expect_err("no such name").to_string();
    assert!(
        error.ends_with("holds no results called \"third\", expected one of: base, new, second"),
        "{error}"
    );

    let one_run = golden("criterion-one-run");
    assert_eq!(one_run.skipped[0].what, "base against new");
    assert!(one_run.skipped[0].reason.contains("the same run in 1 of 1 benchmarks"), "{:?}", one_run.skipped);
    assert_eq!(
        calls(&golden("criterion-old"), id),
        calls(&one_run, id),
        "the old layout holds the same numbers"
    );
}

#[test]
fn criterion_without_samples_has_its_summary() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("g/new");
    std::fs::create_dir_all(&run).expect("made");
    std::fs::write(run.join("benchmark.json"), r#"{"group_id": "g", "function_id": null, "value_str": "7"}"#)
        .expect("written");
    let write = |text: &str| std::fs::write(run.join("estimates.json"), text).expect("written");
    let read = || import(&[folder.path().to_owned()], &options());
    let skipped = read().expect("a named benchmark").skipped;
    assert_eq!(
        (skipped[0].what.as_str(), skipped[0].reason.as_str()),
        ("criterion:g/7", "holds no samples and no summary")
    );
    write(r#"{"Mean": {"point_estimate": 12.5}, "StdDev": {"point_estimate": 0.5}}"#);
    let found = summary(&read().expect("a summary"), "criterion:g/7");
    assert_eq!((found.value, found.stddev, found.unit.as_str()), (12.5, Some(0.5), "ns"));
    write(r#"{"mean": {}}"#);
    let error = read().expect_err("no estimate").to_string();
    assert!(error.ends_with("g/new/estimates.json: at mean: has no field \"point_estimate\""), "{error}");
    std::fs::write(run.join("sample.json"), r#"[[1, 2], [3]]"#).expect("written");
    let error = read().expect_err("unequal").to_string();
    assert!(error.ends_with("sample.json: at .[1]: has 1 entries, the iterations have 2"), "{error}");
}

#[test]
fn lines_of_cargo_criterion_and_exports_of_critcmp() {
    let lines = golden("cargo-criterion.jsonl");
    let id = "criterion:overhead/call/rust-avx2";
    assert!(calls(&lines, id).len() >= 10 && calls(&lines, id).iter().all(|ns| (1.0..1000.0).contains(ns)));
    let exported = golden("critcmp.json");
    assert_eq!(exported.series, []);
    let found = summary(&exported, id);
    assert!((1.0..1000.0).contains(&found.value) && found.stddev.expect("a spread") > 0.0);
    let cycles = json!({"reason": "benchmark-complete", "id": "a", "unit": "cycles", "iteration_count": [1, 1], "measured_values": [7, 8]});
    assert_eq!(of(&cycles).expect("another meter").series[0].meter, Meter::Other("cycles".into()));
    let uneven = json!({"reason": "benchmark-complete", "id": "a", "unit": "ns", "iteration_count": [1], "measured_values": [7, 8]});
    assert_eq!(of(&uneven).expect_err("uneven"), "at measured_values: has 2 entries, iteration_count has 1");
}

#[test]
fn google_benchmark_rows_are_samples() {
    let recording = golden("google-benchmark.json");
    let id = "google-benchmark:BM_sum/1024";
    let wall = calls(&recording, id);
    assert_eq!(wall.len(), 12, "aggregates are no samples");
    assert!((wall[0] / 4.8060018804233476e+02 - 1.0).abs() < 1e-8, "{}", wall[0]);
    let cpu = recording.series.iter().find(|series| series.meter == Meter::ThreadCpuNs).expect("CPU time");
    assert_eq!(cpu.len(), 12);
    let failed =
        recording.skipped.iter().find(|row| row.what == "google-benchmark:BM_broken").expect("named");
    assert_eq!(failed.reason, "failed: error_occurred: input file is missing");
    assert_eq!(recording.fingerprint.cores, 2);

    let aggregates = golden("google-benchmark-aggregates.json");
    let found = summary(&aggregates, id);
    assert!(aggregates.series.is_empty() && found.n == Some(5) && found.stddev.expect("a spread") > 0.0);
    assert_eq!(calls(&golden("google-benchmark-old.json"), id), wall, "without run_type names tell");

    let row = |unit: &str, name: &str| {
        json!({"context": {}, "benchmarks": [{"name": name, "run_name": name, "run_type": "iteration", "threads": 1,
            "iterations": 3, "real_time": 2.5, "cpu_time": 2.0, "time_unit": unit}]})
    };
    for (unit, ns) in [("ns", 7.5), ("us", 7500.0), ("ms", 7.5e6), ("s", 7.5e9)] {
        match of(&row(unit, "a")) {
            Ok(recording) if recording.series.is_empty() => {
                assert_eq!(unit, "ns");
                assert!(
                    recording.skipped[0].reason.contains("too small to be held"),
                    "{:?}",
                    recording.skipped
                );
            }
            other => assert_eq!(other.expect("read").series[0].value_ns, [ns as u64], "{unit}"),
        }
    }
    assert_eq!(of(&row("us", "a/real_time")).expect("read").series.len(), 1, "the author chose wall time");
    assert_eq!(
        of(&row("h", "a")).expect_err("a unit"),
        "at benchmarks[0].time_unit: is \"h\", expected ns, us, ms or s"
    );
}

#[test]
fn hyperfine_seconds_and_exit_codes() {
    let recording = golden("hyperfine.json");
    let id = "hyperfine:gzip -kc gb.cpp";
    assert_eq!(recording.series[0].value_ns[..3], [953_501, 3_753_266, 4_033_356]);
    assert_eq!(calls(&recording, id).len(), 20);
    let failed = golden("hyperfine-failed.json");
    assert!(failed.series.is_empty());
    assert_eq!(
        failed.skipped[0].reason,
        "failed: 5 of 5 runs did not end with exit code 0, the first with 1"
    );
    let summary_only = json!({"results": [{"command": "a", "mean": 0.5, "stddev": null, "median": 0.5}]});
    let found = summary(&of(&summary_only).expect("read"), "hyperfine:a");
    assert_eq!((found.value, found.stddev), (0.5e9, None));
    let twice = json!({"results": [{"command": "a", "mean": 1.0, "times": [1.0]}, {"command": "a", "mean": 1.0, "times": [2.0]}]});
    let ids: Vec<String> =
        of(&twice).expect("read").plan.workloads.into_iter().map(|planned| planned.id).collect();
    assert_eq!(ids, ["hyperfine:a", "hyperfine:a#2"]);
}

#[test]
fn pytest_benchmark_rounds() {
    let recording = golden("pytest-benchmark.json");
    let origin = recording.origin.as_ref().expect("imported");
    let id = "pytest-benchmark:test_b.py::test_sum[100]";
    assert_eq!(recording.series[0].iterations[0], 10, "data is divided by the calls, totals are not");
    let stated = &origin.benchmarks[id].notes["stats.min"].as_f64().expect("seconds");
    assert!(calls(&recording, id).iter().all(|ns| *ns >= stated * 1e9 * 0.999));
    assert_eq!(recording.fingerprint.cpu_model, origin.machine["machine_info.cpu.brand_raw"]);
    let saved = golden("pytest-benchmark-saved.json");
    assert!(saved.series.is_empty() && summary(&saved, id).n.expect("rounds") > 100);
}

#[test]
fn llama_bench_tests_are_named_by_what_they_do() {
    let (array, lines) = (golden("llama-bench.json"), golden("llama-bench.jsonl"));
    for recording in [&array, &lines] {
        let ids: Vec<&str> = recording.plan.workloads.iter().map(|planned| planned.id.as_str()).collect();
        let model = "llama-bench:bitnet 2B I2_S - 2 bpw ternary";
        assert_eq!(ids, [format!("{model}/pp512/t4"), format!("{model}/tg128/t4")]);
        assert_eq!(recording.plan.workloads[0].work.tokens, 512);
        assert_eq!(recording.series.len(), 2);
        assert!(
            recording
                .origin
                .as_ref()
                .expect("imported")
                .benchmarks
                .values()
                .all(|known| known.suspect.is_none())
        );
    }
    let setting = |recording: &Recording| {
        recording.origin.as_ref().expect("imported").benchmarks.values().next().expect("one").setting.clone()
    };
    assert!(setting(&lines).contains_key("mla_attn"), "unknown fields are settings");
    assert!(!setting(&array).contains_key("avg_ts") && setting(&array).contains_key("n_batch"));
    let mut wrong: Value =
        serde_json::from_slice(&std::fs::read(folder().join("llama-bench.json")).expect("there"))
            .expect("JSON");
    wrong[0]["samples_ts"][2] = json!(1.0);
    let marked = of(&wrong).expect("read").origin.expect("imported");
    assert!(marked.benchmarks.values().next().expect("one").suspect.is_some());
    wrong[1]["cpu_info"] = json!("another CPU");
    assert!(of(&wrong).expect_err("two machines").starts_with("at .[1]: is "));
}

#[test]
fn made_up_files_of_bitnet_rs_are_marked() {
    let baselines = golden("bitnet-rs-baselines.json").origin.expect("imported");
    for (id, known) in &baselines.benchmarks {
        assert_eq!(known.suspect.is_some(), id.contains("linux-x86_64"), "{id}: {:?}", known.suspect);
    }
    let rate =
        &baselines.benchmarks["bitnet-rs:baselines/linux-aarch64/cpp_legacy/throughput_tokens_per_second"];
    let rate = rate.summary.clone().expect("a rate");
    assert_eq!((rate.unit.as_str(), rate.rate, rate.value), ("tokens/s", true, 61.7));
    let time = summary(&golden("bitnet-rs-run.json"), "bitnet-rs:run/latency/total_ms");
    assert_eq!((time.unit.as_str(), time.value), ("ns", 1_631.7e6));
    assert_eq!(summary(&golden("bitnet-rs-comparison.json"), "bitnet-rs:comparison/rust").unit, "not stated");
    assert_eq!(golden("bitnet-rs-decode.json").series[0].len(), 6);
    let equal = json!({"rust": {"mean": 1.5}, "cpp": {"mean": 1.5}, "comparison": {}});
    assert!(
        of(&equal)
            .expect("read")
            .origin
            .expect("imported")
            .benchmarks
            .values()
            .all(|known| known.suspect.is_some())
    );
}

#[test]
fn numbers_that_are_no_times_are_left_out_by_name() {
    for (bad, words) in [
        ("0.0", "time of sample 2 is 0, expected a positive number"),
        ("-1.0", "time of sample 2 is -1000000000, expected a positive number"),
        ("NaN", "time of sample 2 is NaN, expected a positive number"),
        ("Infinity", "time of sample 2 is inf, expected a positive number"),
        ("1e300", "expected a positive number"),
    ] {
        let text = format!(r#"{{"results": [{{"command": "a", "mean": 1.0, "times": [1.0, 1.1, {bad}]}}]}}"#);
        let (source, found) = from_bytes(text.as_bytes(), None).expect("well-formed");
        let recording = assemble(vec![(PathBuf::from("x"), source, found)], &options()).expect("read");
        assert!(recording.series.is_empty() && recording.origin.expect("imported").benchmarks.is_empty());
        assert!(recording.skipped[0].reason.contains(words), "{:?}", recording.skipped);
    }
    let mean =
        json!({"results": [{"command": "a", "mean": -0.5}, {"command": "b", "mean": 1.0, "stddev": -1.0}]});
    let skipped = of(&mean).expect("read").skipped;
    assert!(
        skipped[0].reason.contains("its mean is -500000000")
            && skipped[1].reason.contains("standard deviation")
    );
}

#[test]
fn repetition_is_suspect() {
    let hyperfine = |lists: &[Vec<f64>]| {
        let rows: Vec<Value> = lists
            .iter()
            .enumerate()
            .map(|(i, times)| json!({"command": format!("c{i}"), "mean": 1.0, "times": times}))
            .collect();
        let origin = of(&json!({"results": rows})).expect("read").origin.expect("imported");
        origin.benchmarks.into_values().map(|known| known.suspect).collect::<Vec<_>>()
    };
    let honest: Vec<f64> = (0..12).map(|i| 1.0 + f64::from(i * i % 13) * 1e-3).collect();
    assert_eq!(hyperfine(std::slice::from_ref(&honest)), [None]);
    assert!(hyperfine(&[vec![1.0; 6]])[0].as_deref().expect("constant").contains("all 6 samples are equal"));
    let pattern: Vec<f64> = (0..12).map(|i| 1.0 + f64::from(i % 3) * 1e-3).collect();
    assert!(hyperfine(&[pattern])[0].as_deref().expect("a pattern").contains("the same 3 samples repeat"));
    let twice = hyperfine(&[honest.clone(), honest.clone()]);
    assert!(twice.iter().all(|why| why.as_deref().expect("twice").contains("to the last digit")));
}

#[test]
fn several_files_are_launches() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, times: &[f64]| {
        let path = folder.path().join(name);
        let document = json!({"results": [{"command": "a", "mean": 1.0, "times": times}]});
        std::fs::write(&path, document.to_string()).expect("written");
        path
    };
    let paths = [write("1.json", &[1.0, 1.2]), write("2.json", &[1.1])];
    let recording = import(&paths, &options()).expect("two launches");
    assert_eq!((recording.launches.len(), recording.series.len()), (2, 1));
    assert_eq!(recording.series[0].launch, [0, 0, 1]);
    let mixed = [paths[0].clone(), super::tests::folder().join("critcmp.json")];
    let error = import(&mixed, &options()).expect_err("two tools").to_string();
    assert!(error.contains("is of critcmp") && error.ends_with("import them one by one"), "{error}");
    assert_eq!(import(&[], &options()).expect_err("none").to_string(), "no file to import was named");
}

#[test]
fn other_shapes_are_one_clear_line() {
    let error =
        |text: &str, from| from_bytes(text.as_bytes(), from).map(|(source, _)| source).expect_err(text);
    let cases = [
        ("", None, "is no JSON"),
        ("{}", None, "at .: the content is of no known tool, expected one of criterion, cargo-criterion"),
        (r#"{"schema": "bitnet-perfgate/recording/1"}"#, None, "is a document of this tool already"),
        (
            r#"{"sampling_mode": "Flat", "iters": [1.0], "times": [2.0]}"#,
            None,
            "expected the folder target/criterion",
        ),
        ("[[1.0], [2.0]]", None, "expected the folder target/criterion"),
        ("{}", Some(Source::Hyperfine), "at .: has no field \"results\""),
        ("[]", Some(Source::Hyperfine), "at .: is [], expected an object"),
        ("{}", Some(Source::Criterion), "at .: is a file, expected the folder target/criterion"),
        (
            r#"{"results": [{"command": "a", "mean": 1, "exit_codes": [0, "x"]}]}"#,
            None,
            "at results[0].exit_codes[1]: is \"x\", expected an exit code",
        ),
        (r#"{"results": [{"command": 7}]}"#, None, "at results[0]: has no field \"mean\""),
        (r#"{"results": [{"command": 7, "mean": 1}]}"#, None, "at results[0].command: is 7, expected a text"),
        (
            r#"{"results": [{"command": "a", "mean": 1, "times": [1, "x"]}]}"#,
            None,
            "at results[0].times[1]: is \"x\", expected a number",
        ),
        ("{\"reason\":\"a\"}\n{\"reason\":\"b\"}\n{\"rea", None, "line 3: is no JSON"),
        (
            "{\"n_prompt\":1,\"avg_ns\":2}\n{\"n_prompt\":1,\"avg_ns\":2}",
            Some(Source::Hyperfine),
            "at line 2: is a second document, expected one",
        ),
    ];
    for (text, from, words) in cases {
        let found = error(text, from);
        assert!(found.contains(words) && !found.contains('\n'), "{text}: {found}");
    }
    let deep = "[".repeat(1 << 16);
    assert!(error(&deep, None).contains("recursion limit"));
    let io = import(&[PathBuf::from("/nonexistent/x.json")], &options()).expect_err("no file").to_string();
    assert!(io.starts_with("/nonexistent/x.json: cannot open it: "), "{io}");
}

/// Whatever the bytes: a recording or one line, never a panic.
fn judged(bytes: &[u8], from: Option<Source>) -> Result<(), String> {
    let (source, found) = from_bytes(bytes, from)?;
    let recording = assemble(vec![(PathBuf::from("x.json"), source, found)], &options())
        .map_err(|why| why.to_string())?;
    recording.check().map_err(|why| format!("a recording that breaks its own rule: {why}")).expect("checked");
    Ok(())
}

#[test]
fn truncated_at_every_byte() {
    for name in FILES {
        let bytes = std::fs::read(folder().join(name)).expect("there");
        let source = golden(name).origin.and_then(|origin| Source::by_name(&origin.tool));
        let last = bytes.iter().rposition(|byte| !byte.is_ascii_whitespace()).expect("content");
        // Every byte of small files, every seventh of the others.
        for end in (0..last).step_by(if bytes.len() > 4096 { 7 } else { 1 }) {
            let outcome = judged(&bytes[..end], source);
            // Lines before the cut are whole documents of their own.
            let whole_lines = name.ends_with(".jsonl");
            assert!(whole_lines || outcome.is_err(), "{name} cut at {end} was read");
            assert!(!outcome.err().unwrap_or_default().contains('\n'), "{name} cut at {end}");
        }
    }
}

#[test]
fn swapped_types_and_huge_numbers() {
    let strange = [
        Value::Null,
        json!(true),
        json!("x"),
        json!([]),
        json!({}),
        json!(-1),
        json!(0),
        json!(1e308),
        json!(u64::MAX),
        json!([[]]),
        json!("NaN"),
        json!(0.1),
        json!([1, "x"]),
        json!({"a": {"b": []}}),
    ];
    /// Paths to every value of a document.
    fn places(value: &Value, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        match value {
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, item)| places(item, &format!("{path}/{i}"), found))
            }
            Value::Object(fields) => fields.iter().for_each(|(name, field)| {
                places(field, &format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }),
            _ => {}
        }
    }
    let (mut turn, mut errors) = (0, 0);
    for name in FILES {
        let text = std::fs::read_to_string(folder().join(name)).expect("there");
        let text =
            if name.ends_with(".jsonl") { text.lines().last().expect("a line").to_owned() } else { text };
        let source = golden(name).origin.and_then(|origin| Source::by_name(&origin.tool));
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let mut all = Vec::new();
        places(&document, "", &mut all);
        for place in &all {
            for _ in 0..3 {
                let mut changed = document.clone();
                let other = &strange[turn % strange.len()];
                turn += 1;
                *changed.pointer_mut(place).expect("a place") = other.clone();
                for from in [None, source] {
                    if let Err(why) = judged(changed.to_string().as_bytes(), from) {
                        errors += 1;
                        assert!(!why.contains('\n') && why.len() < 400, "{name} {place}: {why}");
                    }
                }
            }
        }
    }
    assert!(errors > 1000, "only {errors} documents were refused");
}
