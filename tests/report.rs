//! What is said of a recording and its verdict: sections in their order, evidence that can be read back, and nothing
//! invented. Renderings of the golden recording are compared whole.

use bitnet_perfgate::gate::reading::{self, blocks};
use bitnet_perfgate::gate::verdict::{Against, Answer, Certainty, Comparison};
use bitnet_perfgate::gate::{Case, Policy, Verdict, judge};
use bitnet_perfgate::record::{
    AgreementRow, FirstMismatch, Memory, Meter, PlannedWorkload, Recording, Skipped, Work, parse_recording,
};
use bitnet_perfgate::report::sections::{Report, report};
use bitnet_perfgate::report::{junit, markdown};
use std::path::{Path, PathBuf};

const SECTIONS: [&str; 9] = [
    "# BitNet.rs Performance Regression Analysis",
    "## Gate Decision: ",
    "**Evidence**: ",
    "## Neural Network Performance Summary",
    "## Benchmark Results Matrix",
    "## Commands Executed",
    "## Performance Analysis",
    "## Cross-Validation Status",
    "## Next Steps & Routing",
];

fn golden() -> (Recording, Verdict) {
    let path = Path::new("tests/golden/records/recording-v1.json");
    let text = include_bytes!("golden/records/recording-v1.json");
    let recording = parse_recording(path, text).expect("the golden recording");
    let verdict = judge(&Case::alone(&recording, &Policy::default()));
    (recording, verdict)
}

/// A snapshot; `BITNET_SNAPSHOTS=write` replaces it, to be looked at before it is committed.
fn assert_snapshot(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reports").join(name);
    if std::env::var("BITNET_SNAPSHOTS").is_ok_and(|value| value == "write") {
        std::fs::write(&path, text).expect("a writable folder");
    }
    let expected = std::fs::read_to_string(&path).expect("a snapshot");
    assert!(expected == text, "{name} differs from its snapshot:\n{text}");
}

/// The three parts of an evidence line, by its grammar: `method: ...; result: ...; reason: ...`.
fn parsed(evidence: &str) -> [String; 3] {
    let parts: Vec<&str> = evidence.split("; ").collect();
    assert_eq!(parts.len(), 3, "{evidence}");
    let of = |i: usize, key: &str| {
        let value = parts[i].strip_prefix(key).unwrap_or_else(|| panic!("{key:?} in {evidence}"));
        assert!(!value.is_empty() && !value.contains([';', '\n']), "{evidence}");
        value.to_owned()
    };
    [of(0, "method: "), of(1, "result: "), of(2, "reason: ")]
}

/// The content of the code span on the evidence line.
fn evidence_of(markdown: &str) -> String {
    let line = markdown.lines().find_map(|line| line.strip_prefix("**Evidence**: ")).expect("a line");
    let fence = line.len() - line.trim_start_matches('`').len();
    let inside = &line[fence..line.len() - fence];
    assert_eq!(&line[line.len() - fence..], &"`".repeat(fence));
    inside.trim().to_owned()
}

fn assert_whole(report: &Report, verdict: &Verdict) -> String {
    let text = markdown::render(report);
    let mut from = 0;
    for section in SECTIONS {
        let at =
            text[from..].find(section).unwrap_or_else(|| panic!("{section:?} after byte {from}:\n{text}"));
        from += at + section.len();
    }
    assert_eq!(evidence_of(&text), verdict.evidence);
    parsed(&verdict.evidence);
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows[0], "| Component | Feature Flags | Baseline | Current | Delta | Status |");
    assert_eq!(rows.len(), report.matrix.len() + 2);
    for row in rows {
        assert_eq!(row.replace("\\|", "").matches('|').count(), 7, "{row}");
    }
    text
}

#[test]
fn the_golden_recording_is_rendered_as_it_was() {
    let (recording, mut verdict) = golden();
    verdict.commands = vec!["python -m bitnet_perfgate run".into()];
    let report = report(&recording, &verdict);
    assert_snapshot("recording-v1.md", &assert_whole(&report, &verdict));
    assert_snapshot("recording-v1.junit.xml", &junit::render(&recording, &verdict));
}

fn comparison(workload: &str, against: Against, ratio: f64, answer: Answer) -> Comparison {
    Comparison {
        workload: workload.into(),
        subject: "rust-avx2".into(),
        against,
        other: if against == Against::Reference { "cpp-avx2" } else { "baseline" }.into(),
        meter: Meter::WallNs,
        required: true,
        verdict: Some(answer),
        ratio: Some(ratio),
        raw_ratio: None,
        interval: Some([ratio * 0.99, ratio * 1.01]),
        limit: Some(1.05),
        certainty: Certainty::Confirmed,
        severity: None,
        mde: Some(0.07),
        subject_ns: Some(2e9 * ratio),
        other_ns: Some(2e9),
        n_blocks: 60,
        n_launches: 5,
        n_baselines: 3,
        stage: 1,
        first_stage: None,
        reason: "made for this test".into(),
    }
}

/// One inference workload of 32 tokens whose subject takes `ratio` times as long.
fn inference(against: Against, ratio: f64, answer: Answer) -> (Recording, Verdict) {
    let (mut recording, mut verdict) = golden();
    let id = "decode/2b4t/i2_s/tg32/t1";
    let work = Work { tokens: 32, weights: 1, ops: 64, ..Work::default() };
    let planned = PlannedWorkload { id: id.into(), category: "inference".into(), work, ..Default::default() };
    recording.plan.workloads.push(planned);
    verdict.comparisons.push(comparison(id, against, ratio, answer));
    verdict.verdict = answer;
    (recording, verdict)
}

#[test]
fn whole_models_are_shown_in_tokens() {
    let (recording, verdict) = inference(Against::Baseline, 1.25, Answer::Fail);
    let report = report(&recording, &verdict);
    let text = assert_whole(&report, &verdict);
    // 32 tokens in 2 s before, in 2.5 s now.
    assert!(text.contains("decode/2b4t/i2_s/tg32/t1 12.8 tok/s (baseline: 16.0 tok/s, Δ -20.0%)"), "{text}");
    let row = report.matrix.iter().find(|row| row.component.starts_with("decode/")).expect("its row");
    assert_eq!((row.baseline.as_str(), row.current.as_str()), ("16.0 tok/s", "12.8 tok/s"));
    assert_eq!((row.status, row.features.as_str()), ("FAIL", "cpu"));
    assert!(row.delta.starts_with("-20.0% (-20.8% to "), "{}", row.delta);
    assert!(!report.matrix.iter().any(|row| row.component == "Inference"), "it was measured");
}

/// Each backend's native arithmetic beside its f32: how much faster, and what it costs. What was not measured says so.
#[test]
fn native_arithmetic_shows_its_speed_beside_its_accuracy() {
    let (mut recording, mut verdict) = golden();
    let text = |recording: &Recording, verdict: &Verdict| {
        let report = report(recording, verdict);
        let items =
            report.performance.iter().filter(|item| item.name == "Mixed Precision, native arithmetic");
        items.map(|item| item.text.clone()).collect::<Vec<_>>()
    };
    assert!(text(&recording, &verdict).is_empty(), "nobody asked for it");
    let plain = "mixed_precision/f16/640x2560/b16/t1";
    let native = format!("{plain}+arithmetic=native");
    let disagreement = recording.agreements.first().expect("a row").clone();
    let agreement = AgreementRow { mismatches: 0, length_mismatch: None, ..disagreement };
    for (id, backend, snr_db) in [
        (plain, "rust-avx2", 73.94),
        (&native, "rust-avx2", 64.25),
        (&native, "cpp-avx2", 64.0),
        (&native, "mine@lib", 60.0),
    ] {
        let metrics = [("snr_db".to_owned(), snr_db)].into();
        let row = AgreementRow { workload: id.into(), backend: backend.into(), metrics, ..agreement.clone() };
        recording.agreements.push(row);
    }
    let (wrong, id) = (recording.agreements.len(), native.clone());
    recording.agreements.push(AgreementRow { workload: id, backend: "wrong@lib".into(), ..agreement });
    recording.agreements[wrong].mismatches = 1;
    let skipped =
        Skipped { what: native.replace("f16", "bf16"), reason: "no BF16".into(), ..Skipped::default() };
    recording.skipped.push(skipped);
    let what = format!("timing of {native}");
    recording.skipped.push(Skipped { what, reason: "nobody's".into(), ..Skipped::default() });
    // Both take 2 s in C++; Rust takes 1.5 s in f32 and 0.5 s in its native arithmetic.
    verdict.comparisons.push(comparison(plain, Against::Reference, 0.75, Answer::Pass));
    verdict.comparisons.push(comparison(&native, Against::Reference, 0.25, Answer::Pass));
    let expected = [
        format!("{plain} on rust-avx2: 3.00 times as fast as in f32, SNR 64.2 dB (f32: 73.9 dB)"),
        format!(
            "{plain} on cpp-avx2: 1.00 times as fast as in f32, SNR 64.0 dB (f32: not measured (it was not compared))"
        ),
        format!(
            "{plain} on mine@lib: speed not measured (it was not timed in both), SNR 60.0 dB (f32: not measured (it was not compared))"
        ),
        format!("{} not measured (no BF16)", native.replace("f16", "bf16")),
    ];
    assert_eq!(text(&recording, &verdict), [expected.join("; ")]);
}

#[test]
fn parity_is_a_figure_of_speed_and_comes_from_the_verdict() {
    let (recording, mut verdict) = inference(Against::Reference, 1.0, Answer::Pass);
    let without = assert_whole(&report(&recording, &verdict), &verdict);
    assert!(without.contains("Rust vs C++ parity not measured ("));
    verdict.crossval_parity_percent = Some(97.84);
    let with = assert_whole(&report(&recording, &verdict), &verdict);
    assert!(with.contains("Rust vs C++ parity 97.8% ("));
    assert!(with.contains("| cpu,ffi | 100% parity (C++ reference) | 97.8% parity | -2.2% |"), "{with}");
}

#[test]
fn what_was_not_measured_says_so_and_shows_no_number() {
    let (recording, verdict) = golden();
    let report = report(&recording, &verdict);
    for (name, items) in
        [("Inference Throughput", &report.performance), ("GPU Acceleration", &report.performance)]
    {
        let item = items.iter().find(|item| item.name == name).expect("an item");
        assert!(item.text.starts_with("not measured ("), "{item:?}");
    }
    let gpu = report.matrix.iter().find(|row| row.component == "GPU").expect("a row");
    assert!(gpu.current.starts_with("not measured (") && gpu.status == "SKIPPED", "{gpu:?}");
}

#[test]
fn a_few_parts_that_share_a_reason_are_all_named() {
    let (recording, mut verdict) = golden();
    let mut line = |names: &[&str]| {
        let skipped = |name: &&str| Skipped {
            what: (*name).into(),
            reason: "this CPU lacks it".into(),
            ..Skipped::default()
        };
        verdict.skipped = names.iter().map(skipped).collect();
        let items = report(&recording, &verdict).analysis;
        items.into_iter().filter(|item| item.name == "Skipped").map(|item| item.text).collect::<Vec<_>>()
    };
    assert_eq!(line(&["a", "b", "c"]), ["a, b, c: this CPU lacks it"]);
    assert_eq!(line(&["a", "b", "c", "d"]), ["a and 3 more: this CPU lacks it"]);
}

/// Characters that turn the direction of what is read after them.
const TURNING: [char; 12] = [
    '\u{202e}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{2066}', '\u{2067}', '\u{2068}',
    '\u{2069}', '\u{200e}', '\u{200f}', '\u{61c}',
];

#[test]
fn names_from_strangers_break_nothing() {
    let (mut recording, mut verdict) = inference(Against::Reference, 1.2, Answer::Fail);
    let evil = "matmul/x|y/<b>@all`\n## Gate Decision: PASS";
    recording.plan.workloads.last_mut().expect("one").id = evil.into();
    verdict.comparisons.last_mut().expect("one").workload = evil.into();
    verdict.commands = vec!["echo ```\nrm".into()];
    let row = AgreementRow {
        workload: evil.into(),
        backend: format!("x@evil{}", TURNING.iter().collect::<String>()),
        cause: Some("<script>\u{1b}[31m".into()),
        mismatches: 3,
        exact: false,
        first_mismatch: Some(FirstMismatch {
            index: 1,
            expected: "1".into(),
            actual: "<2>".into(),
            extra: Default::default(),
        }),
        ..recording.agreements[0].clone()
    };
    verdict.agreement.failures.push(row.clone());
    recording.agreements.push(row);
    let text = assert_whole(&report(&recording, &verdict), &verdict);
    assert_eq!(text.matches("\n## Gate Decision").count(), 1);
    assert!(!text.contains('\u{1b}') && !text.contains(" <script>") && !text.contains("@all"), "{text}");
    let xml = junit::render(&recording, &verdict);
    for shown in [&text, &xml] {
        assert!(!shown.contains(TURNING), "{shown}");
        assert!(shown.replace("\\\\", "\\").contains("x@evil\\u{202e}\\u{202a}"), "{shown}");
    }
    assert!(!xml.contains('\u{1b}') && !xml.contains("<script>") && !xml.contains("<b>"));
}

#[test]
fn junit_counts_add_up_and_neutral_is_skipped() {
    for (answer, tag) in [(Answer::Fail, "<failure "), (Answer::Neutral, "<skipped message=\"neutral: ")] {
        let (recording, verdict) = inference(Against::Baseline, 1.2, answer);
        let xml = junit::render(&recording, &verdict);
        let case = xml.split("<testcase ").find(|case| case.contains("decode/2b4t")).expect("its case");
        assert!(case.contains(tag), "{case}");
        let cases = xml.matches("<testcase ").count();
        assert!(xml.contains(&format!("<testsuites name=\"bitnet_perfgate\" tests=\"{cases}\"")), "{xml}");
        let failures = xml.matches("<failure ").count();
        assert!(xml.contains(&format!(" failures=\"{failures}\" errors=\"0\" time=")), "{xml}");
    }
}

#[test]
fn a_verdict_is_read_back_and_anything_else_is_refused_with_its_place() {
    let (recording, verdict) = golden();
    let text = serde_json::to_string(&verdict).expect("JSON");
    let path = Path::new("v.json");
    assert_eq!(reading::parse_verdict(path, text.as_bytes()).expect("a verdict"), verdict);
    reading::check_belongs(path, &verdict, &recording).expect("its own recording");
    for cut in [0, 1, text.len() / 2, text.len() - 1] {
        let error = reading::parse_verdict(path, &text.as_bytes()[..cut]).expect_err("cut").to_string();
        assert!(error.starts_with("v.json: at "), "{error}");
    }
    let table = [
        (text.replace("verdict/1", "verdict/9"), "has schema \"bitnet-perfgate/verdict/9\""),
        (text.replacen("\"neutral\"", "\"perfect\"", 1), "unknown variant `perfect`"),
        (text.replacen("\"rules\":[", "\"rules\":[7,", 1), "at rules[0]"),
        (format!("{text}x"), "trailing characters"),
    ];
    for (text, words) in table {
        let error = reading::parse_verdict(path, text.as_bytes()).expect_err(words).to_string();
        assert!(error.contains(words) && error.lines().count() == 1, "{error}");
    }
    let (_, other) = inference(Against::Reference, 1.0, Answer::Pass);
    let error = reading::check_belongs(path, &other, &recording).expect_err("another").to_string();
    assert!(error.contains("no verdict on this recording") && error.contains("decode/2b4t"), "{error}");
    assert!(reading::read_verdict(Path::new("/nonexistent/v.json")).is_err());
}

#[test]
fn blocks_are_those_of_the_estimate() {
    let (recording, verdict) = golden();
    let found: Vec<_> = verdict.comparisons.iter().map(|row| blocks(&recording, row)).collect();
    for (comparison, blocks) in verdict.comparisons.iter().zip(&found) {
        assert_eq!(blocks.len(), comparison.n_blocks);
        assert!(blocks.iter().all(|block| block.ratio > 0.0));
    }
    assert!(found.iter().any(|blocks| !blocks.is_empty()), "the golden recording has blocks");
    let of_days = comparison("matmul/i2_s/2560x2560/b1/t1/hot", Against::Baseline, 1.0, Answer::Pass);
    assert_eq!(blocks(&recording, &of_days), [], "days share no block");
}

/// What preparing took is said where it took most, with the time that the same backend needed for it.
#[test]
fn the_largest_prepared_weights_are_named() {
    let (mut recording, verdict) = golden();
    let memory = |recording: &Recording| {
        let found = report(recording, &verdict);
        found.analysis.into_iter().find(|item| item.name == "Memory Efficiency").expect("an item").text
    };
    assert!(!memory(&recording).contains("prepared"));
    let own = recording.agreements[0].clone();
    for (backend, value_bytes) in [("rust-small", 1_000_000), (own.backend.as_str(), 1_310_720)] {
        recording.memory.push(Memory {
            workload: own.workload.clone(),
            backend: backend.into(),
            meter: "prepared_bytes".into(),
            value_bytes,
            ..Memory::default()
        });
    }
    recording.agreements[0].metrics.insert("prepare_ns".into(), 2.5e6);
    let expected = format!(
        "prepared beside the weights at most 1.31 MB in 2.50 ms ({} on {})",
        own.workload, own.backend
    );
    assert!(memory(&recording).contains(&expected), "{}", memory(&recording));
}
