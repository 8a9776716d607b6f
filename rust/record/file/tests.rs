use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::measure::{
    BlockNote, Compiler, Fingerprint, GroupSamples, Sample, Schedule, SideSchedule, Switches,
};
use crate::parity::{self, Contract};
use crate::record::{
    Accuracy, AgreementRow, Backend, Extra, ImportedBenchmark, Launch, Memory, Meter, Origin, PlanRecord,
    PlannedWorkload, Series, Skipped, Summary, Tool, Work,
};

/// A file written by schema 1. It stays as it is, whatever later versions write.
const GOLDEN: &str = include_str!("../../../tests/golden/records/recording-v1.json");

fn parse(text: &str) -> Result<Recording, RecordError> {
    parse_recording(Path::new("x.recording.json"), text.as_bytes())
}

fn golden() -> Recording {
    parse(GOLDEN).expect("the golden recording is readable")
}

fn golden_json() -> Value {
    serde_json::from_str(GOLDEN).expect("the golden recording is JSON")
}

/// What a recording of one small run looks like when it is built from measurements.
pub(in crate::record) fn built() -> Recording {
    let sample = |side, block, order, wall_ns| Sample {
        side,
        block,
        order,
        iterations: 10,
        wall_ns,
        cpu_ns: Some(wall_ns - 1),
        switches: Some(Switches { voluntary: 0, involuntary: u64::from(side) }),
    };
    let side = SideSchedule { iterations: 10, call_ns: 100_000 };
    let group = GroupSamples {
        schedule: Schedule {
            sides: vec![side; 2],
            blocks: 2,
            block_ns: 8_000_000,
            sample_ns: 1_000_000,
            timer_resolution_ns: 25,
        },
        samples: vec![
            sample(0, 0, 0, 1000),
            sample(1, 0, 1, 1100),
            sample(1, 1, 0, 1200),
            sample(0, 1, 1, 1300),
        ],
        blocks: vec![
            BlockNote { turns: vec![0, 1], steal_ticks: Some(0) },
            BlockNote { turns: vec![1, 0], steal_ticks: None },
        ],
        incomplete: None,
    };
    let workload = "matmul/i2_s/2560x2560/b1/t1/hot";
    let mut series = Series::from_group(&group, 0, 0, workload, "cpp-avx2", "cpp-avx2");
    series.extend(Series::from_group(&group, 1, 0, workload, "rust-avx2", "cpp-avx2"));
    let agreement = parity::compare(&Contract::Exact, &[1, 2, 3], &[1, 5, 3]);
    let created = "2025-01-02T03:04:05Z".parse().expect("a time stamp");
    Recording {
        schema: SCHEMA.into(),
        tool: Tool { version: "0.1.0".into(), features: vec!["cpu".into()], ..Tool::default() },
        created,
        plan: PlanRecord {
            profile: "quick".into(),
            seed: 42,
            workloads: vec![PlannedWorkload {
                id: workload.into(),
                category: "kernels".into(),
                class: "core".into(),
                work: Work { weights: 6_553_600, bytes: 1_638_400, ops: 13_107_200, ..Work::default() },
                extra: Extra::new(),
            }],
            backends: vec![Backend { name: "cpp-avx2".into(), ..Backend::default() }],
            required: vec!["rust-avx2".into(), "cpp-avx2".into()],
            requested: vec!["rust-avx2".into()],
            profile_workloads: 28,
            launches: 1,
            blocks: 2,
            samples_per_block: 1,
            budget_s: 1.5,
            stop_rule: "fixed".into(),
            meter: Meter::WallNs,
            counter: String::new(),
            extra: Extra::new(),
        },
        fingerprint: Fingerprint {
            cores: 2,
            compilers: vec![Compiler { language: "rust".into(), ..Compiler::default() }],
            ..Fingerprint::default()
        },
        ceilings: BTreeMap::new(),
        ceiling_setting: None,
        launches: vec![Launch {
            index: 0,
            started: created,
            cpu: None,
            disturbance: Some(0.25),
            aa: false,
            stage: 1,
            extra: Extra::new(),
        }],
        series,
        agreements: vec![AgreementRow::new(workload, "rust-avx2", &agreement)],
        accuracy: vec![Accuracy { backend: "rust-avx2".into(), ..Accuracy::default() }],
        memory: vec![Memory { meter: "peak_rss_bytes".into(), value_bytes: 1 << 20, ..Memory::default() }],
        skipped: vec![Skipped { what: "cuda".into(), reason: "no GPU".into(), extra: Extra::new() }],
        incomplete: Some("interrupted".into()),
        origin: None,
        extra: Extra::new(),
    }
}

#[test]
fn the_golden_recording_stays_readable() {
    let recording = golden();
    assert_eq!(recording.created.to_string(), "2025-01-02T03:04:05Z");
    assert_eq!(recording.plan.workloads[0].work.weights, 6_553_600);
    let wall = &recording.series[2];
    assert_eq!((wall.backend.as_str(), wall.reference.as_str()), ("rust-avx2", "cpp-avx2"));
    assert_eq!((wall.meter.clone(), wall.value_ns.as_slice()), (Meter::WallNs, &[1100_u64, 1200][..]));
    assert_eq!((wall.block.as_slice(), wall.order.as_slice()), (&[0_u32, 1][..], &[1_u32, 0][..]));
    assert_eq!(wall.context_switches, [1, 1]);
    assert!(!recording.agreements[0].holds());
    assert_eq!(recording.agreements[0].first_mismatch.as_ref().map(|first| first.index), Some(1));
    assert_eq!(recording.incomplete.as_deref(), Some("interrupted"));
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.recording.json");
    for recording in [built(), golden()] {
        write_recording(&path, &recording).expect("written, the second time over the first");
        assert_eq!(read_recording(&path).expect("read"), recording);
    }
    let names: Vec<_> = fs::read_dir(folder.path()).expect("listed").collect();
    assert_eq!(names.len(), 1, "no temporary file stays: {names:?}");
}

/// The field names are those of the interface: the golden file, written by hand, is what `built` writes, but
/// for the unknown fields planted in it.
#[test]
fn written_names_are_the_published_ones() {
    fn without_unknown(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|key, _| !key.starts_with("later_"));
                map.values_mut().for_each(without_unknown);
            }
            Value::Array(items) => items.iter_mut().for_each(without_unknown),
            _ => {}
        }
    }
    let mut published = golden_json();
    without_unknown(&mut published);
    assert_eq!(serde_json::to_value(built()).expect("serialises"), published);
}

#[test]
fn unknown_fields_are_kept_at_every_level() {
    let before = golden_json();
    let after = serde_json::to_value(golden()).expect("serialises");
    assert_eq!(after, before);
    let count = GOLDEN.matches("\"later_").count();
    assert_eq!(count, 15, "one planted at each level");
}

#[test]
fn an_unknown_meter_is_kept() {
    let mut json = golden_json();
    json["series"][0]["meter"] = json!("energy_uj");
    let recording = parse(&json.to_string()).expect("readable");
    assert_eq!(recording.series[0].meter, Meter::Other("energy_uj".into()));
    assert_eq!(serde_json::to_value(&recording).expect("serialises"), json);
}

/// Every length of a truncated file is an error with a place, never a panic, never a recording.
#[test]
fn truncated_files_are_malformed() {
    let text = GOLDEN.trim_end();
    for length in 0..text.len() {
        match parse(&text[..length]) {
            Err(RecordError::Malformed { path, what, .. }) => {
                assert_eq!(path, Path::new("x.recording.json"));
                assert!(what.contains("line"), "{what}");
            }
            other => panic!("{length} bytes: {other:?}"),
        }
    }
}

#[test]
fn wrong_values_are_named_with_place_and_expectation() {
    let cases = [
        ("/series/2/value_ns/0", json!(-5), "series[2].value_ns[0]", "expected u64"),
        ("/series/2/value_ns/1", json!(1.5), "series[2].value_ns[1]", "expected u64"),
        ("/series/2/value_ns/1", json!(null), "series[2].value_ns[1]", "expected u64"),
        ("/series/2/value_ns/1", json!("NaN"), "series[2].value_ns[1]", "expected u64"),
        ("/series/2/launch/0", json!(4_294_967_296_u64), "series[2].launch[0]", "expected u32"),
        ("/plan/budget_s", json!("NaN"), "plan.budget_s", "expected f64"),
        ("/plan/budget_s", json!(null), "plan.budget_s", "expected f64"),
        ("/created", json!("yesterday"), "created", "as year"),
        ("/series", json!({}), "series", "expected a sequence"),
        ("/agreements/0/contract", json!("roughly"), "agreements[0].contract", "expected one of"),
        ("/fingerprint/cores", json!("two"), "fingerprint.cores", "expected u32"),
    ];
    for (pointer, value, expected_place, expected_what) in cases {
        let mut json = golden_json();
        *json.pointer_mut(pointer).expect(pointer) = value;
        match parse(&json.to_string()) {
            Err(RecordError::Malformed { place, what, .. }) => {
                assert_eq!(place, expected_place);
                assert!(what.contains(expected_what), "{pointer}: {what}");
            }
            other => panic!("{pointer}: {other:?}"),
        }
    }
}

#[test]
fn broken_rules_are_named_with_their_place() {
    let cases = [
        ("/series/2/block", json!([0]), "series[2].block", "1 entries"),
        ("/series/2/value_ns", json!([]), "series[2].launch", "2 entries"),
        ("/series/2/context_switches", json!([0]), "series[2].context_switches", "1 entries"),
        ("/series/2/iterations/0", json!(0), "series[2].iterations[0]", "is 0"),
        ("/series/2/launch/1", json!(9), "series[2].launch[1]", "no index of launches"),
        ("/series/2/block/1", json!(0), "", ""),
        ("/series/0/backend", json!("rust-avx2"), "series[2]", "repeats series[0]"),
        ("/launches/0/disturbance", json!(1.5), "launches[0].disturbance", "0 to 1"),
        ("/plan/budget_s", json!(-1.0), "plan.budget_s", "negative"),
        ("/agreements/0/exact", json!(true), "agreements[0].exact", "differs"),
        ("/agreements/0/mismatches", json!(4), "agreements[0].mismatches", "more than the 3"),
        ("/agreements/0/mismatches", json!(0), "agreements[0].first_mismatch", "0 mismatches"),
    ];
    for (pointer, value, expected_place, expected_what) in cases {
        let mut json = golden_json();
        *json.pointer_mut(pointer).expect(pointer) = value;
        match parse(&json.to_string()) {
            // Block 0 then has orders 1 and 0: unusual, but no sample is named twice.
            Ok(_) => assert_eq!(pointer, "/series/2/block/1"),
            Err(RecordError::Invalid { invalid, .. }) => {
                assert_eq!(invalid.place, expected_place, "{invalid}");
                assert!(invalid.what.contains(expected_what), "{pointer}: {invalid}");
            }
            other => panic!("{pointer}: {other:?}"),
        }
    }
    let mut json = golden_json();
    json["series"][2]["block"] = json!([0, 0]);
    json["series"][2]["order"] = json!([1, 1]);
    let error = parse(&json.to_string()).expect_err("one sample twice").to_string();
    assert_eq!(error, "x.recording.json: at series[2].order[1]: launch 0, block 0, order 1 stands twice");
}

#[test]
fn other_files_are_refused_by_name() {
    let schema = |name: &str| parse(&json!({ "schema": name, "series": 7 }).to_string());
    let error = schema("bitnet-perfgate/recording/2").expect_err("future").to_string();
    assert!(error.contains("recording/2") && error.contains("another version"), "{error}");
    let error = schema("bitnet-perfgate/verdict/1").expect_err("a verdict").to_string();
    assert!(error.contains("not a recording"), "{error}");
    let malformed =
        ["", "null", "[]", "{}", "{\"schema\": 1}", "\u{0}", "{\"schema\":\"a\",\"schema\":\"b\"}"];
    for text in malformed {
        assert!(matches!(parse(text), Err(RecordError::Malformed { .. })), "{text:?}");
    }
    for text in [GOLDEN.replace("0.25", "NaN"), GOLDEN.replace("0.25", "1e999"), format!("{GOLDEN} x")] {
        assert!(matches!(parse(&text), Err(RecordError::Malformed { .. })));
    }
    let nested = format!("{{\"schema\":\"{SCHEMA}\",\"deep\":{}", "[".repeat(1 << 20));
    assert!(matches!(parse(&nested), Err(RecordError::Malformed { .. })), "no stack overflow");
    let zstd = parse_recording(Path::new("x.json.zst"), &[0x28, 0xb5, 0x2f, 0xfd, 0]);
    assert!(matches!(zstd, Err(RecordError::Compressed { .. })));
    let missing = read_recording(Path::new("no/such.recording.json"));
    assert!(matches!(missing, Err(RecordError::Io { action: "open it", .. })));
}

#[test]
fn what_json_cannot_hold_is_not_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.recording.json");
    fs::write(&path, "old").expect("written");
    let spoil: [fn(&mut Recording); 5] = [
        |r| r.plan.budget_s = f64::NAN,
        |r| r.accuracy[0].accuracy_percent = f64::INFINITY,
        |r| r.agreements[0].metrics.extend([("max_abs".into(), f64::NAN)]),
        |r| r.ceilings.extend([("dram_gb_per_s".into(), f64::INFINITY)]),
        |r| r.series[0].value_ns.clear(),
    ];
    for spoil in spoil {
        let mut recording = built();
        spoil(&mut recording);
        assert!(matches!(write_recording(&path, &recording), Err(RecordError::Invalid { .. })));
    }
    assert_eq!(fs::read_to_string(&path).expect("still there"), "old");
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let folder = tempfile::tempdir().expect("a folder");
    // The target is a folder with something in it: renaming a file over it fails after all is written.
    let path = folder.path().join("a.recording.json");
    fs::create_dir(&path).expect("created");
    fs::write(path.join("kept"), "kept").expect("written");
    assert!(matches!(write_recording(&path, &built()), Err(RecordError::Io { action: "write it", .. })));
    assert_eq!(fs::read_to_string(path.join("kept")).expect("still there"), "kept");
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "no temporary file stays");
    let nowhere = folder.path().join("missing").join("a.recording.json");
    assert!(matches!(write_recording(&nowhere, &built()), Err(RecordError::Io { .. })));
    assert!(write_recording(Path::new("/"), &built()).is_err());
}

/// A temporary file left by a process that died is not in the way.
#[test]
fn left_over_temporary_files_do_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.recording.json");
    let left_over = folder.path().join(format!(".a.recording.json.{}-0.tmp", std::process::id()));
    fs::write(&left_over, "half").expect("written");
    write_recording(&path, &built()).expect("written beside it");
    assert_eq!(read_recording(&path).expect("read"), built());
    assert_eq!(fs::read_to_string(&left_over).expect("not ours"), "half");
}

#[test]
fn launches_join_into_one_series() {
    let mut first = built().series.swap_remove(0);
    let mut second = first.clone();
    second.launch.fill(1);
    first.append(&second).expect("the same series");
    assert_eq!((first.len(), first.launch.as_slice()), (4, &[0_u32, 0, 1, 1][..]));
    assert_eq!(first.context_switches.len(), 4);
    let before = first.clone();
    second.backend = "rust-scalar".into();
    let error = first.append(&second).expect_err("another backend");
    assert!(error.right.contains("rust-scalar") && first == before);
    second.backend = first.backend.clone();
    second.context_switches.clear();
    first.append(&second).expect("the same series");
    assert!(first.context_switches.is_empty() && first.len() == 6, "unknown for some is unknown");
}

/// The published JSON schema names every field that is written, and requires none that is not. (Validators
/// for its types and ranges are heavy crates; Python's `jsonschema` does that.)
#[test]
fn the_json_schema_names_the_written_fields() {
    fn walk(schema: &Value, value: &Value, place: &str, seen: &mut usize) {
        match value {
            Value::Object(fields) => {
                let Some(properties) = schema["properties"].as_object() else {
                    // A map by name, such as metrics.
                    let each = &schema["additionalProperties"];
                    assert!(each.is_object(), "{place} is not described");
                    if each["properties"].is_object() {
                        fields.values().for_each(|field| walk(each, field, &format!("{place}.*"), seen));
                    }
                    return;
                };
                for (name, field) in fields {
                    let described =
                        properties.get(name).unwrap_or_else(|| panic!("{place}.{name} is not described"));
                    *seen += 1;
                    walk(described, field, &format!("{place}.{name}"), seen);
                }
                for name in schema["required"].as_array().expect("objects list what they require") {
                    let name = name.as_str().expect("a name");
                    assert!(fields.contains_key(name), "{place}.{name} is required, but not written");
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(&schema["items"], item, place, seen)),
            _ => {}
        }
    }
    let schema: Value =
        serde_json::from_str(include_str!("../../../docs/schemas/recording-1.schema.json")).expect("JSON");
    assert_eq!(schema["properties"]["schema"]["const"], json!(SCHEMA));
    let mut seen = 0;
    let benchmark = ImportedBenchmark {
        name: "b".into(),
        summary: Some(Summary { stddev: Some(1.0), n: Some(3), value: 2.0, ..Summary::default() }),
        suspect: Some("synthetic".into()),
        ..ImportedBenchmark::default()
    };
    let origin = Origin {
        saved: Some("new".into()),
        benchmarks: BTreeMap::from([("hyperfine:b".into(), benchmark)]),
        ..Origin::default()
    };
    let whole = Recording { origin: Some(origin), ..built() };
    walk(&schema, &serde_json::to_value(whole).expect("serialises"), "", &mut seen);
    assert!(seen > 115, "only {seen} fields were looked at");
}
