//! Scripted evidence in, verdict out: what must never pass does not pass, each for its own named reason.

use bitnet_perfgate::gate::verdict::{Certainty, RuleAnswer, Severity};
use bitnet_perfgate::gate::{Answer, Baseline, Case, Policy, Verdict, judge};
use bitnet_perfgate::measure::{Cache, Fingerprint, GroupSamples, Sample, Schedule};
use bitnet_perfgate::parity::{Contract, compare};
use bitnet_perfgate::record::{
    self, Accuracy, AgreementRow, Backend, CeilingSetting, Launch, Memory, Meter, PlanRecord,
    PlannedWorkload, Recording, SCHEMA, Series, Skipped, Tool, Work, now_utc,
};
use bitnet_perfgate::report::table;
use bitnet_perfgate::rng::Rng;

const QUANTIZE: &str = "quantize/i2_s/640x2560";
const MATMUL: &str = "matmul/i2_s/2560x2560/b1/t1/hot";
const BLOCKS: u32 = 24;
const SUBJECT: &str = "rust-avx2";
const REFERENCE: &str = "cpp-avx2";

/// The defaults, but for whole models: these recordings have none.
fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.required.categories.retain(|category| category != "inference");
    policy
}

/// Without a word from a policy file, a run that left whole models out is no pass.
#[test]
fn whole_models_are_required_by_default() {
    let verdict = judge(&Case::alone(&recording(1.0, 0.002), &Policy::default()));
    assert_eq!(verdict.verdict, Answer::Neutral, "{}", verdict.summary);
    let said = verdict.validation.iter().any(|row| !row.ok && row.reason.contains("inference"));
    assert!(said, "{:?}", verdict.validation);
    assert_eq!(judge(&Case::alone(&recording(1.0, 0.002), &policy())).verdict, Answer::Pass);
}

/// A recording of two workloads in which rust-avx2 takes `ratio` times the time of cpp-avx2, with noise of `spread`.
fn recording(ratio: f64, spread: f64) -> Recording {
    let backend = |name: &str| Backend { name: name.into(), optimisation: "3".into(), ..Backend::default() };
    let planned = |id: &str, category: &str| PlannedWorkload {
        id: id.into(),
        category: category.into(),
        class: "core".into(),
        work: Work { weights: 6_553_600, bytes: 1_638_400, ops: 13_107_200, ..Work::default() },
        ..PlannedWorkload::default()
    };
    let equal = compare(&Contract::Exact, &[1, 2, 3], &[1, 2, 3]);
    let workloads = [(QUANTIZE, "quantization"), (MATMUL, "kernels")];
    let gated = |format: &str| {
        [SUBJECT, REFERENCE].map(|backend| Accuracy {
            workload: format!("accuracy/{format}/256x2560/gated"),
            backend: backend.into(),
            accuracy_percent: 99.99,
            ..Accuracy::default()
        })
    };
    Recording {
        schema: SCHEMA.into(),
        tool: Tool::default(),
        created: now_utc(),
        plan: PlanRecord {
            profile: "quick".into(),
            seed: 42,
            workloads: workloads.map(|(id, category)| planned(id, category)).into(),
            backends: ["rust-scalar", SUBJECT, REFERENCE].map(backend).into(),
            required: [SUBJECT, REFERENCE].map(str::to_owned).into(),
            requested: Vec::new(),
            profile_workloads: 2,
            launches: 1,
            blocks: BLOCKS,
            samples_per_block: 3,
            ..PlanRecord::default()
        },
        fingerprint: Fingerprint::default(),
        ceilings: Default::default(),
        ceiling_setting: None,
        launches: vec![Launch {
            index: 0,
            started: now_utc(),
            cpu: None,
            disturbance: Some(0.0),
            aa: false,
            stage: 1,
            extra: Default::default(),
        }],
        series: workloads.iter().flat_map(|(id, _)| sides(id, ratio, spread)).collect(),
        agreements: workloads
            .iter()
            .flat_map(|(id, _)| [SUBJECT, REFERENCE].map(|name| AgreementRow::new(id, name, &equal)))
            .collect(),
        accuracy: ["i2_s", "tl1", "tl2"].into_iter().flat_map(gated).collect(),
        memory: Vec::new(),
        skipped: vec![Skipped {
            what: "cuda".into(),
            reason: "GPU backends are not part of this version".into(),
            ..Skipped::default()
        }],
        incomplete: None,
        origin: None,
        extra: Default::default(),
    }
}

/// Samples of three sides: the reference at 1 ms, the subject at `ratio`, the scalar oracle at 20 times that.
fn sides(workload: &str, ratio: f64, spread: f64) -> Vec<Series> {
    let mut rng = Rng::for_part(7, workload);
    let mut samples = Vec::new();
    for block in 0..BLOCKS {
        for (side, factor) in [1.0, ratio, 20.0].into_iter().enumerate() {
            for k in 0..3 {
                let noise = (spread * rng.normal()).exp();
                let wall_ns = (1e6 * factor * noise) as u64;
                samples.push(Sample {
                    side: side as u32,
                    block,
                    order: side as u32 * 3 + k,
                    iterations: 10,
                    wall_ns,
                    cpu_ns: Some(wall_ns),
                    switches: None,
                });
            }
        }
    }
    let schedule =
        Schedule { sides: Vec::new(), blocks: BLOCKS, block_ns: 1, sample_ns: 1, timer_resolution_ns: 1 };
    let group = GroupSamples { schedule, samples, blocks: Vec::new(), incomplete: None };
    let side = |index: u32, name: &str| Series::from_group(&group, index, 0, workload, name, REFERENCE);
    [side(0, REFERENCE), side(1, SUBJECT), side(2, "rust-scalar")].concat()
}

fn judged(recording: &Recording) -> Verdict {
    recording.check().expect("a legal recording");
    judged_by(recording, &policy())
}

fn judged_by(recording: &Recording, policy: &Policy) -> Verdict {
    judge(&Case::alone(recording, policy))
}

/// The reason of the rule of that name, if it answered `answer`.
fn reason(verdict: &Verdict, rule: &str, answer: Answer) -> String {
    let rule = verdict.rules.iter().find(|found| found.name == rule).expect("the rule is there");
    assert_eq!(rule.verdict, Some(answer), "{rule:?}");
    rule.reason.clone()
}

#[test]
fn whole_evidence_of_an_equal_speed_passes() {
    let verdict = judged(&recording(1.0, 0.01));
    assert_eq!(verdict.verdict, Answer::Pass, "{:#?}", verdict.rules);
    assert_eq!(verdict.route.next, "perf-finalizer");
    assert!(verdict.summary.contains("no regression was judged"), "{}", verdict.summary);
    assert_eq!((verdict.agreement.n, verdict.agreement.exact), (4, 4));
}

#[test]
fn the_limit_of_ninety_percent_is_where_it_says() {
    // Without A/A results no interval is narrower than 2 %: from 1.09 to 1.133 nothing is shown.
    for (ratio, answer) in
        [(0.5, Answer::Pass), (1.08, Answer::Pass), (1.14, Answer::Fail), (3.0, Answer::Fail)]
    {
        let verdict = judged(&recording(ratio, 0.01));
        assert_eq!(verdict.verdict, answer, "ratio {ratio}: {:#?}", verdict.rules);
        let comparison = verdict.comparisons.iter().find(|c| c.subject == SUBJECT).expect("a comparison");
        let found = comparison.ratio.expect("a ratio");
        assert!((found / ratio - 1.0).abs() < 0.01, "{found} against {ratio}");
        let [lower, upper] = comparison.interval.expect("an interval");
        assert!(lower < found && found < upper);
        assert_eq!(comparison.certainty, Certainty::Confirmed);
    }
}

/// Probably within the limit is not shown to be within the limit.
#[test]
fn noise_around_the_limit_is_neutral_not_pass() {
    let verdict = judged(&recording(1.07, 0.15));
    assert_eq!(verdict.verdict, Answer::Neutral, "{:#?}", verdict.comparisons);
    assert_eq!(verdict.route.next, "retry");
    assert_eq!(verdict.verdict.exit_code(), 3);
}

/// Slower for sure and probably beyond the limit: red by default, neutral to the strict.
#[test]
fn likely_fails_unless_strict() {
    let recording = recording(1.14, 0.10);
    let verdict = judged(&recording);
    let strict = judged_by(&recording, &Policy { strict: true, ..policy() });
    let likely = |verdict: &Verdict| -> Vec<Option<Answer>> {
        let likely = verdict.comparisons.iter().filter(|c| c.certainty == Certainty::Likely);
        likely.map(|comparison| comparison.verdict).collect()
    };
    assert!(!likely(&verdict).is_empty(), "{:#?}", verdict.comparisons);
    assert!(likely(&verdict).iter().all(|answer| *answer == Some(Answer::Fail)));
    assert_eq!(likely(&strict), vec![Some(Answer::Neutral); likely(&verdict).len()]);
}

#[test]
fn severity_is_told_twice() {
    let verdict = judged(&recording(1.20, 0.01));
    let severity = verdict
        .comparisons
        .iter()
        .find(|c| c.subject == SUBJECT)
        .and_then(|c| c.severity)
        .expect("a severity");
    assert_eq!((severity.most_likely, severity.at_least), (Severity::Critical, Severity::Critical));
    let verdict = judged(&recording(1.07, 0.002));
    let severity = verdict
        .comparisons
        .iter()
        .find(|c| c.subject == SUBJECT)
        .and_then(|c| c.severity)
        .expect("a severity");
    assert_eq!(severity.most_likely, Severity::Minor);
}

/// A change to the evidence, the rule that must see it, its answer, and words of the reason.
type Break = (&'static str, fn(&mut Recording), &'static str, Answer, &'static str);

/// Each breaks whole evidence in one way. None may pass; each has its own reason.
#[test]
fn broken_evidence_never_passes() {
    let table: Vec<Break> = vec![
        (
            "empty suite",
            |r| {
                r.plan.workloads.clear();
                r.series.clear();
                r.agreements.clear()
            },
            "agreement",
            Answer::Neutral,
            "nothing was compared",
        ),
        ("nothing compared", |r| r.agreements.clear(), "agreement", Answer::Neutral, "nothing was compared"),
        ("nothing timed", |r| r.series.clear(), "reference-speed", Answer::Neutral, "nothing was timed"),
        (
            "vanished workload",
            |r| r.series.retain(|s| s.workload != MATMUL),
            "completeness",
            Answer::Neutral,
            "timing-data",
        ),
        (
            "workload not compared",
            |r| r.agreements.retain(|row| row.workload != MATMUL),
            "completeness",
            Answer::Neutral,
            "crossval-data",
        ),
        (
            "subject not compared",
            |r| r.agreements.retain(|row| row.backend != SUBJECT),
            "completeness",
            Answer::Neutral,
            "crossval-data",
        ),
        (
            "reference absent",
            |r| {
                r.plan.backends.retain(|b| b.name != REFERENCE);
                r.plan.required.retain(|name| name != REFERENCE);
                r.skipped.push(Skipped {
                    what: "cpp-*".into(),
                    reason: "C++ skipped by request".into(),
                    ..Skipped::default()
                })
            },
            "reference-speed",
            Answer::Neutral,
            "C++ skipped by request",
        ),
        (
            "reference vanished",
            |r| r.series.retain(|s| s.backend != REFERENCE),
            "reference-speed",
            Answer::Neutral,
            "no samples of cpp-avx2",
        ),
        (
            "category missing",
            |r| {
                r.plan.workloads.retain(|w| w.category != "kernels");
                r.agreements.retain(|row| row.workload != MATMUL);
                r.series.retain(|s| s.workload != MATMUL)
            },
            "completeness",
            Answer::Neutral,
            "of the required category kernels",
        ),
        (
            "interrupted",
            |r| r.incomplete = Some("interrupted".into()),
            "completeness",
            Answer::Neutral,
            "interrupted",
        ),
        (
            "too few blocks",
            |r| r.series = r.series.iter().map(|s| first_blocks(s, 3)).collect(),
            "reference-speed",
            Answer::Neutral,
            "3 blocks are too few",
        ),
        ("accuracy missing", |r| r.accuracy.clear(), "accuracy", Answer::Neutral, "was not measured"),
        (
            "accuracy of one format missing",
            |r| r.accuracy.retain(|row| !row.workload.contains("tl2")),
            "accuracy",
            Answer::Neutral,
            "tl2 was not measured",
        ),
        (
            "accuracy below the floor",
            |r| r.accuracy[0].accuracy_percent = 99.7,
            "accuracy",
            Answer::Fail,
            "at least 99.8 %",
        ),
        ("accuracy NaN", |r| r.accuracy[0].accuracy_percent = f64::NAN, "accuracy", Answer::Fail, "NaN"),
        (
            "parity failed but fast",
            |r| {
                let differs = compare(&Contract::Exact, &[1, 2], &[1, 3]);
                r.agreements[0] = AgreementRow::new(QUANTIZE, SUBJECT, &differs)
            },
            "agreement",
            Answer::Fail,
            "disagree",
        ),
        (
            "parity of nothing",
            |r| {
                let nothing = compare::<i32>(&Contract::Exact, &[], &[]);
                r.agreements[0] = AgreementRow::new(QUANTIZE, SUBJECT, &nothing)
            },
            "agreement",
            Answer::Fail,
            "disagree",
        ),
        (
            "scalar as fast as SIMD",
            |r| {
                let subject: Vec<Series> =
                    r.series.iter().filter(|s| s.backend == SUBJECT).cloned().collect();
                for mut slow in subject {
                    slow.backend = "rust-scalar".into();
                    slow.value_ns.iter_mut().for_each(|ns| *ns = *ns * 19 / 20);
                    let at = r
                        .series
                        .iter()
                        .position(|s| {
                            s.backend == slow.backend && s.workload == slow.workload && s.meter == slow.meter
                        })
                        .expect("there");
                    r.series[at] = slow
                }
            },
            "simd-ahead-of-scalar",
            Answer::Fail,
            "not faster than rust-scalar",
        ),
        (
            "no Rust backend could run",
            |r| r.plan.required.retain(|name| !name.starts_with("rust-")),
            "completeness",
            Answer::Neutral,
            "no Rust backend",
        ),
        (
            "best Rust backend left out",
            |r| {
                r.plan.backends.retain(|b| b.name != SUBJECT);
                r.skipped.push(left_out(SUBJECT));
            },
            "completeness",
            Answer::Neutral,
            "rust-avx2 did not take part: left out by request",
        ),
        (
            "best reference left out for a weaker one",
            |r| {
                r.plan
                    .backends
                    .iter_mut()
                    .filter(|b| b.name == REFERENCE)
                    .for_each(|b| b.name = "cpp-portable".into());
                for series in &mut r.series {
                    series.reference = "cpp-portable".into();
                    if series.backend == REFERENCE {
                        series.backend = "cpp-portable".into();
                    }
                }
                r.skipped.push(left_out(REFERENCE));
            },
            "completeness",
            Answer::Neutral,
            "cpp-avx2 did not take part: left out by request",
        ),
        (
            "reference not compared",
            |r| r.agreements.retain(|row| row.backend != REFERENCE),
            "completeness",
            Answer::Neutral,
            "of cpp-avx2 was not compared",
        ),
        (
            "a plugin asked for and not compared",
            |r| r.plan.requested.push("mine@libmine".into()),
            "completeness",
            Answer::Neutral,
            "mine@libmine was asked for and nothing was compared",
        ),
        (
            "overhead instead of kernels",
            |r| {
                let renamed = |id: &mut String| {
                    if id == MATMUL {
                        *id = "overhead/call".into()
                    }
                };
                r.plan.workloads.iter_mut().for_each(|w| renamed(&mut w.id));
                r.series.iter_mut().for_each(|s| renamed(&mut s.workload));
                r.agreements.iter_mut().for_each(|row| renamed(&mut row.workload));
            },
            "completeness",
            Answer::Neutral,
            "no workload on weights of the required category kernels",
        ),
        (
            "accuracy of somebody else",
            |r| r.accuracy.iter_mut().for_each(|row| row.backend = "nobody".into()),
            "accuracy",
            Answer::Neutral,
            "was not measured on rust-avx2",
        ),
        (
            "debug build",
            |r| r.plan.backends.iter_mut().for_each(|b| b.optimisation = "0".into()),
            "completeness",
            Answer::Neutral,
            "was built with optimisation level \"0\"",
        ),
        (
            "swapped units: the subject in us",
            |r| of_backend(r, SUBJECT, |ns| ns / 1000),
            "completeness",
            Answer::Neutral,
            "bytes in a nanosecond: are these ns?",
        ),
        (
            "swapped units: CPU time in another unit than wall time",
            |r| {
                let cpu = r.series.iter_mut().filter(|s| s.meter == Meter::ThreadCpuNs);
                cpu.for_each(|s| s.value_ns.iter_mut().for_each(|ns| *ns *= 1000));
            },
            "completeness",
            Answer::Neutral,
            "CPU time is",
        ),
        (
            "zero measured",
            |r| of_backend(r, SUBJECT, |_| 0),
            "completeness",
            Answer::Neutral,
            "took no time at all",
        ),
        (
            "zero measured on both sides",
            |r| r.series.iter_mut().for_each(|s| s.value_ns.iter_mut().for_each(|ns| *ns = 0)),
            "reference-speed",
            Answer::Neutral,
            "",
        ),
        (
            "samples without calls",
            |r| r.series.iter_mut().for_each(|s| s.iterations.iter_mut().for_each(|n| *n = 0)),
            "reference-speed",
            Answer::Neutral,
            "0 iterations",
        ),
        (
            "a GPU claimed and absent",
            |r| r.plan.backends.push(Backend { name: "cuda".into(), ..Backend::default() }),
            "completeness",
            Answer::Neutral,
            "cuda took part, and the machine has no GPU",
        ),
        (
            "a GPU that nobody used",
            |r| {
                r.fingerprint.gpu = Some("NVIDIA H100".into());
                r.skipped.clear();
            },
            "completeness",
            Answer::Neutral,
            "there is a GPU (NVIDIA H100), cuda did not take part",
        ),
        (
            "silence about a GPU",
            |r| r.skipped.clear(),
            "completeness",
            Answer::Neutral,
            "does not say whether there is a GPU",
        ),
        (
            "a GPU without benefit",
            |r| {
                r.fingerprint.gpu = Some("NVIDIA H100".into());
                let subject = r.series.iter().filter(|s| s.backend == SUBJECT).cloned();
                let gpu = subject.map(|s| Series { backend: "cuda".into(), ..s });
                r.series.extend(gpu.collect::<Vec<_>>());
            },
            "gpu",
            Answer::Fail,
            "no benefit",
        ),
        (
            "a feature built in and not measured",
            |r| {
                r.tool.features = vec!["ffi".into()];
                r.plan.backends.retain(|b| b.name != REFERENCE);
            },
            "completeness",
            Answer::Neutral,
            "cpp-avx2 did not take part",
        ),
        (
            "numbers that look made up",
            |r| drop(r.extra.insert("suspect".into(), "all samples are equal".into())),
            "completeness",
            Answer::Neutral,
            "is suspect: all samples are equal",
        ),
        (
            "fewer launches than planned",
            |r| r.plan.launches = 5,
            "completeness",
            Answer::Neutral,
            "was measured in 1 of 5 launches",
        ),
        (
            "counts promised and times given",
            |r| r.plan.meter = Meter::Instructions,
            "completeness",
            Answer::Neutral,
            "was not counted",
        ),
        (
            "CPU time promised and not there",
            |r| {
                r.plan.meter = Meter::ThreadCpuNs;
                r.series.retain(|s| s.meter == Meter::WallNs);
            },
            "reference-speed",
            Answer::Neutral,
            "nothing was timed",
        ),
        (
            "work of two threads by the CPU time of one",
            |r| {
                r.plan.meter = Meter::ThreadCpuNs;
                let two = |id: &mut String| *id = id.replace("/t1/", "/t2/");
                r.plan.workloads.iter_mut().for_each(|w| two(&mut w.id));
                r.series.iter_mut().for_each(|s| two(&mut s.workload));
                r.agreements.iter_mut().for_each(|row| two(&mut row.workload));
            },
            "reference-speed",
            Answer::Neutral,
            "that of the measuring thread alone, and this is work of 2 threads",
        ),
        (
            "the subject timed against another reference",
            |r| r.series.iter_mut().for_each(|s| s.reference = "cpp-portable".into()),
            "reference-speed",
            Answer::Neutral,
            "no samples of cpp-portable",
        ),
        (
            "sides of different blocks",
            |r| {
                let own = r.series.iter_mut().filter(|s| s.backend == SUBJECT);
                own.for_each(|s| s.block.iter_mut().for_each(|block| *block += 1000));
            },
            "reference-speed",
            Answer::Neutral,
            "0 blocks are too few",
        ),
        (
            "accuracy of the reference missing",
            |r| r.accuracy.retain(|row| row.backend != REFERENCE),
            "accuracy",
            Answer::Neutral,
            "was not measured on cpp-avx2",
        ),
    ];
    for (name, spoil, rule, answer, words) in table {
        let mut broken = recording(1.0, 0.01);
        spoil(&mut broken);
        let verdict = judged_by(&broken, &policy());
        assert_ne!(verdict.verdict, Answer::Pass, "{name} passed");
        let reason = reason(&verdict, rule, answer);
        assert!(reason.contains(words), "{name}: {reason}");
        assert!(
            verdict.evidence.starts_with("method: ") && verdict.evidence.contains("; result: "),
            "{}",
            verdict.evidence
        );
        assert_eq!(verdict.evidence.matches(';').count(), 2, "{name}: {}", verdict.evidence);
    }
}

/// Changes every time of one backend.
fn of_backend(recording: &mut Recording, backend: &str, change: fn(u64) -> u64) {
    let own = recording.series.iter_mut().filter(|series| series.backend == backend);
    own.for_each(|series| series.value_ns.iter_mut().for_each(|ns| *ns = change(*ns)));
}

/// Broken baselines, and how today stands to them: the change, words of the reason.
type BreakBaseline = (&'static str, fn(&mut Recording, &mut Vec<Recording>), &'static str);

/// Whole evidence of today against four accepted recordings passes; each change ends that, for its own reason.
#[test]
fn broken_baselines_never_pass() {
    let judged = |today: &Recording, sessions: &[Recording]| {
        let void = sessions.iter().find_map(|session| record::mismatches(session, today).pop());
        let baseline = Baseline::Sessions {
            name: "accepted".into(),
            sessions,
            void: void.map(|mismatch| mismatch.to_string()),
        };
        let policy = policy();
        judge(&Case { baseline: &baseline, ..Case::alone(today, &policy) })
    };
    let whole = || {
        let mut days: Vec<Recording> = (0..5).map(|day| of_day(day, 0.8)).collect();
        (days.pop().expect("five"), days)
    };
    let (today, sessions) = whole();
    let verdict = judged(&today, &sessions);
    assert_eq!(verdict.verdict, Answer::Pass, "{:#?} {:#?}", verdict.rules, verdict.comparisons);
    let table: Vec<BreakBaseline> = vec![
        ("no session", |_, s| s.clear(), "no accepted recording holds it"),
        ("too few sessions", |_, s| s.truncate(2), "2 accepted recordings, 3 are needed"),
        ("another CPU", |r, _| r.fingerprint.cpu_model = "another".into(), "cpu_model was"),
        ("another compiler's flags", |r, _| r.fingerprint.isa.push("avx512f".into()), "isa was"),
        ("another version of the tool", |r, _| r.tool.version = "9".into(), "tool.version was"),
        ("other features", |r, _| r.tool.features.push("gpu".into()), "tool.features was"),
        ("another seed", |r, _| r.plan.seed += 1, "plan.seed was"),
        ("another counter", |r, _| r.plan.counter = "callgrind".into(), "plan.counter was"),
        (
            "another reference",
            |r, _| r.plan.backends.iter_mut().for_each(|b| b.source_hash = "f00".into()),
            "reference cpp-avx2 was",
        ),
        (
            "today is the baseline, to the last digit",
            |r, s| r.series = s[2].series.clone(),
            "to the last digit",
        ),
        ("one recording accepted four times", |_, s| *s = vec![s[0].clone(); 4], "stands there twice"),
        (
            "a benchmark vanished with its plan",
            |r, _| {
                r.plan.workloads.retain(|w| w.id != EXTRA);
                r.series.retain(|s| s.workload != EXTRA);
                r.agreements.retain(|row| row.workload != EXTRA);
            },
            "1 workloads of the baseline were not measured",
        ),
        (
            "a benchmark that no baseline has",
            |_, s| s.iter_mut().for_each(|s| s.series.retain(|s| s.workload != MATMUL)),
            "no accepted recording holds it",
        ),
        (
            "a baseline without its reference",
            |_, s| s.iter_mut().for_each(|s| s.series.retain(|s| s.backend != REFERENCE)),
            "no samples of cpp-avx2 to compare with",
        ),
        ("peak memory missing today", |r, _| r.memory.clear(), "peak memory was not measured (today)"),
        (
            "peak memory missing then",
            |_, s| s.iter_mut().for_each(|s| s.memory.clear()),
            "peak memory was not measured (in the accepted recordings)",
        ),
        (
            "a quarter more memory",
            |r, _| r.memory[0].value_bytes = r.memory[0].value_bytes * 5 / 4,
            "peak memory +25.0 %",
        ),
        (
            "twelve percent slower than before, still faster than C++",
            |r, _| of_backend(r, SUBJECT, |ns| ns * 112 / 100),
            "too slow",
        ),
    ];
    for (name, spoil, words) in table {
        let (mut today, mut sessions) = whole();
        spoil(&mut today, &mut sessions);
        let verdict = judged(&today, &sessions);
        assert_ne!(verdict.verdict, Answer::Pass, "{name} passed");
        let told = |rule: &RuleAnswer| rule.verdict != Some(Answer::Pass) && rule.reason.contains(words);
        let conditions = verdict.validation.iter().any(|c| !c.ok && c.reason.contains(words));
        assert!(
            verdict.rules.iter().any(told) || conditions,
            "{name}: {:#?} {:#?}",
            verdict.rules,
            verdict.validation
        );
    }
}

/// How the efficiency of today stands to four accepted recordings: the change, the rule's answer, words of its reason.
type EfficiencyCase = (&'static str, fn(&mut Recording, &mut [Recording]), Option<Answer>, &'static str);

/// The subject reaches about 70 % of what its weights can be read with, on every day; each change moves that.
#[test]
fn efficiency_may_not_fall_by_a_class() {
    const READ: &str = "l2_read_t1_gb_per_s";
    let judged = |today: &Recording, sessions: &[Recording]| {
        let void = sessions.iter().find_map(|session| record::mismatches(session, today).pop());
        let void = void.map(|mismatch| mismatch.to_string());
        let baseline = Baseline::Sessions { name: "accepted".into(), sessions, void };
        let policy = policy();
        judge(&Case { baseline: &baseline, ..Case::alone(today, &policy) })
    };
    let table: Vec<EfficiencyCase> = vec![
        ("nothing changed", |_, _| (), Some(Answer::Pass), "kept its class on 2 of 2 products"),
        (
            "a fifth slower",
            |r, _| of_backend(r, SUBJECT, |ns| ns * 12 / 10),
            Some(Answer::Fail),
            "% of l2_read_t1_gb_per_s on matmul/i2_s/2560x2560/b1/t1/hot: from class 4 to class 3 of 5",
        ),
        (
            "a fifth slower on another product alone",
            |r, _| {
                let own = r.series.iter_mut().filter(|s| s.backend == SUBJECT && s.workload == EXTRA);
                own.for_each(|s| s.value_ns.iter_mut().for_each(|ns| *ns = *ns * 12 / 10));
            },
            Some(Answer::Fail),
            "on matmul/i2_s/640x2560/b1/t1/hot",
        ),
        (
            "slower and over the edge of a class, within the noise",
            |r, s| {
                s.iter_mut().for_each(|s| *s.ceilings.get_mut(READ).unwrap() *= 70.0 / 61.0);
                *r.ceilings.get_mut(READ).unwrap() *= 70.0 / 61.0;
                of_backend(r, SUBJECT, |ns| ns * 106 / 100);
            },
            Some(Answer::Pass),
            "kept its class",
        ),
        (
            "the ceiling rose, the kernel stayed",
            |r, _| *r.ceilings.get_mut(READ).unwrap() *= 1.3,
            Some(Answer::Neutral),
            "its calls are as fast: the ceiling was measured higher",
        ),
        (
            "the ceiling fell: beyond 100 % is no fall",
            |r, _| *r.ceilings.get_mut(READ).unwrap() /= 2.0,
            Some(Answer::Pass),
            "kept its class",
        ),
        (
            "the machine was slower today, the ceiling with it",
            |r, _| {
                of_backend(r, SUBJECT, |ns| ns * 2);
                of_backend(r, REFERENCE, |ns| ns * 2);
                of_backend(r, "rust-scalar", |ns| ns * 2);
                *r.ceilings.get_mut(READ).unwrap() /= 2.0;
            },
            Some(Answer::Pass),
            "kept its class",
        ),
        (
            "the ceiling that is needed is missing today",
            |r, _| {
                r.ceilings.remove(READ);
            },
            Some(Answer::Neutral),
            "2 products have no efficiency to compare; first matmul/i2_s/2560x2560/b1/t1/hot: no ceiling l2_read_t1",
        ),
        (
            "the peak is missing today",
            |r, _| {
                r.ceilings.remove("int8_dot_avx2_t1_gop_per_s");
            },
            Some(Answer::Neutral),
            "no ceiling int8_dot_avx2_t1_gop_per_s",
        ),
        (
            "cache sizes are missing today",
            |r, _| r.ceiling_setting = None,
            Some(Answer::Neutral),
            "no cache sizes",
        ),
        (
            "one product was not timed today",
            |r, _| r.series.retain(|s| s.workload != EXTRA),
            Some(Answer::Neutral),
            "not timed",
        ),
        (
            "no ceilings today",
            |r, _| r.ceilings.clear(),
            Some(Answer::Neutral),
            "the accepted recordings hold ceilings of the machine, and this one none",
        ),
        (
            "no ceilings ever",
            |r, s| {
                r.ceilings.clear();
                s.iter_mut().for_each(|s| s.ceilings.clear());
            },
            None,
            "skipped: this recording holds no measured ceilings",
        ),
        (
            "the kernel remembers its answer",
            |r, _| of_backend(r, SUBJECT, |_| 1),
            Some(Answer::Neutral),
            "it did not read its weights, or that ceiling is wrong",
        ),
        (
            "a ceiling that is nonsense",
            |r, _| *r.ceilings.get_mut("int8_dot_avx2_t1_gop_per_s").unwrap() = 1e-300,
            Some(Answer::Neutral),
            "it did not do the work, or that ceiling is wrong",
        ),
        (
            "no ceilings then",
            |_, s| s.iter_mut().for_each(|s| s.ceilings.clear()),
            None,
            "skipped: no product has ceilings and times in 3 accepted recordings",
        ),
        (
            "ceilings in too few accepted recordings",
            |_, s| s[..2].iter_mut().for_each(|s| s.ceilings.clear()),
            Some(Answer::Neutral),
            "2 products have no efficiency to compare; first matmul/i2_s/2560x2560/b1/t1/hot: in 2 of 4 accepted",
        ),
        (
            "another machine",
            |r, _| r.fingerprint.cpu_model = "another".into(),
            None,
            "skipped: no accepted recording to compare efficiency with",
        ),
    ];
    for (name, spoil, answer, words) in table {
        let mut days: Vec<Recording> = (0..5).map(|day| under_ceilings(of_day(day, 0.8))).collect();
        let mut today = days.pop().expect("five");
        spoil(&mut today, &mut days);
        today.check().expect("a legal recording");
        let verdict = judged(&today, &days);
        let rule = verdict.rules.iter().find(|rule| rule.name == "simd-efficiency").expect("the rule");
        assert_eq!(rule.verdict, answer, "{name}: {}", rule.reason);
        assert!(rule.reason.contains(words), "{name}: {}", rule.reason);
        if matches!(answer, Some(Answer::Fail | Answer::Neutral)) {
            assert!(verdict.verdict >= answer.expect("answered"), "{name}: {:?}", verdict.verdict);
        }
    }
    let alone = judged_by(&under_ceilings(recording(0.8, 0.01)), &policy());
    let rule = alone.rules.iter().find(|rule| rule.name == "simd-efficiency").expect("the rule");
    assert_eq!(rule.verdict, None, "{}", rule.reason);
    let who: Vec<&str> = alone.efficiencies.iter().map(|row| row.backend.as_str()).collect();
    assert_eq!(who, [SUBJECT, REFERENCE], "of each instruction set on the one product");
}

/// The same under made-up ceilings: 1.6 MB of weights lie in a second level that is read with 30 GB/s.
fn under_ceilings(mut recording: Recording) -> Recording {
    let rates = [
        ("l2_read_t1_gb_per_s", 30.0),
        ("dram_read_t1_gb_per_s", 10.0),
        ("int8_dot_avx2_t1_gop_per_s", 400.0),
        ("int8_dot_portable_t1_gop_per_s", 20.0),
    ];
    recording.ceilings = rates.map(|(name, rate)| (name.to_owned(), rate)).into();
    let caches = [Cache { level: 1, size_bytes: 32 << 10 }, Cache { level: 2, size_bytes: 2 << 20 }];
    recording.ceiling_setting =
        Some(CeilingSetting { repetitions: 12, caches: caches.into(), ..CeilingSetting::default() });
    recording
}

const EXTRA: &str = "matmul/i2_s/640x2560/b1/t1/hot";

/// Another day's recording: three workloads, other noise, the same builds.
fn of_day(day: u64, ratio: f64) -> Recording {
    let mut recording = recording(ratio, 0.01);
    let extra = PlannedWorkload { id: EXTRA.into(), ..recording.plan.workloads[1].clone() };
    recording.plan.workloads.push(extra);
    recording.plan.profile_workloads = 3;
    let row = |row: &AgreementRow| AgreementRow { workload: EXTRA.into(), ..row.clone() };
    let more: Vec<_> = recording.agreements.iter().filter(|row| row.workload == MATMUL).map(row).collect();
    recording.agreements.extend(more);
    let salted = |id: &str| -> Vec<Series> {
        let series = sides(&format!("{id} on day {day}"), ratio, 0.01);
        series.into_iter().map(|s| Series { workload: id.into(), ..s }).collect()
    };
    recording.series = [QUANTIZE, MATMUL, EXTRA].iter().flat_map(|id| salted(id)).collect();
    recording.memory = vec![Memory {
        meter: "peak_rss_bytes".into(),
        value_bytes: 100_000_000 + 1000 * day,
        ..Memory::default()
    }];
    recording
}

/// Files that are no evidence: each is refused in one line that names the file and the place.
#[test]
fn broken_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = serde_json::to_string(&recording(1.0, 0.01)).expect("plain data");
    let table: [(&str, Option<String>, &str); 12] = [
        ("missing", None, "No such file"),
        ("empty", Some(String::new()), "EOF"),
        ("truncated", Some(text[..text.len() / 2].to_owned()), "EOF"),
        ("future schema", Some(text.replace("recording/1", "recording/2")), "recording/2"),
        ("another document", Some("[1, 2]".into()), ""),
        ("not a number", Some(text.replacen("\"budget_s\":0.0", "\"budget_s\":NaN", 1)), ""),
        ("negative time", Some(text.replacen("\"value_ns\":[", "\"value_ns\":[-1,", 1)), "value_ns"),
        ("fraction of a ns", Some(text.replacen("\"value_ns\":[", "\"value_ns\":[0.5,", 1)), "value_ns"),
        (
            "columns of two lengths",
            Some(text.replacen("\"value_ns\":[", "\"value_ns\":[7,", 1)),
            "equally long",
        ),
        ("no schema", Some(text.replacen("\"schema\"", "\"scheme\"", 1)), "schema"),
        ("binary", Some("\u{0}\u{1}\u{2}".into()), ""),
        ("deep", Some("[".repeat(100_000)), ""),
    ];
    for (name, text, words) in table {
        let path = folder.path().join(format!("{}.recording.json", name.replace(' ', "-")));
        if let Some(text) = text {
            std::fs::write(&path, text).expect("written");
        }
        let error = record::read_recording(&path).expect_err(name).to_string();
        assert!(error.contains(words) && error.contains(".recording.json"), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: {error}");
    }
}

/// A side that computes something else has no speed, however fast it looks.
#[test]
fn a_disagreement_voids_the_speed_of_its_workload() {
    let mut recording = recording(0.5, 0.01);
    let differs = compare(&Contract::Exact, &[1, 2], &[1, 3]);
    recording.agreements[0] = AgreementRow::new(QUANTIZE, SUBJECT, &differs);
    let verdict = judged(&recording);
    let of = |id: &str| verdict.comparisons.iter().find(|c| c.workload == id && c.subject == SUBJECT);
    let void = of(QUANTIZE).expect("shown");
    assert_eq!(void.verdict, Some(Answer::Neutral));
    assert!(void.reason.starts_with("void: rust-avx2 disagrees"), "{}", void.reason);
    assert_eq!(of(MATMUL).expect("judged").verdict, Some(Answer::Pass));
    assert_eq!(verdict.route.next, "crossval-specialist");
}

/// Builds have few repeats and no reference: judged at +20 % by what accepted builds scatter, or by their own repeats.
#[test]
fn builds_are_judged_against_accepted_builds() {
    const SECOND: f64 = 1e9;
    let built = |day: u64, factor: f64, repeats: usize| {
        let mut rng = Rng::for_part(day, "builds");
        let mut times = |base: f64| -> Vec<u64> {
            (0..repeats).map(|_| (base * factor * SECOND * (0.01 * rng.normal()).exp()) as u64).collect()
        };
        let (clean, incremental) = (times(30.0), times(4.0));
        record::build_recording(
            Tool::default(),
            Fingerprint::default(),
            repeats as u32,
            [&clean, &incremental],
            None,
        )
    };
    let judged = |today: &Recording, sessions: &[Recording]| {
        today.check().expect("a legal recording");
        let baseline = Baseline::Sessions { name: "builds".into(), sessions, void: None };
        let policy = policy();
        judge(&Case { baseline: &baseline, ..Case::alone(today, &policy) })
    };
    let days: Vec<Recording> = (0..4).map(|day| built(day, 1.0, 3)).collect();
    let table = [
        ("like every day", 1.0, 3, 4, Answer::Pass, "within the limit"),
        ("faster", 0.7, 3, 4, Answer::Pass, "within the limit"),
        ("half again as long", 1.5, 3, 4, Answer::Fail, "2 of 2 comparisons are too slow"),
        ("at the limit", 1.2, 3, 4, Answer::Neutral, "the limit 1.200"),
        ("like one other day", 1.0, 3, 1, Answer::Neutral, "1 accepted recordings, 3 are needed"),
        ("twice as long as on one other day", 2.0, 3, 1, Answer::Fail, "too slow"),
        ("built once", 1.0, 1, 4, Answer::Neutral, "1 usable repeats"),
        ("no other day", 1.0, 3, 0, Answer::Neutral, "no accepted recording holds it"),
    ];
    for (name, factor, repeats, earlier, answer, words) in table {
        let verdict = judged(&built(77, factor, repeats), &days[..earlier]);
        assert_eq!(verdict.verdict, answer, "{name}: {:#?}", verdict.comparisons);
        assert!(reason(&verdict, "build-time", answer).contains(words), "{name}: {:#?}", verdict.rules);
        assert_eq!(verdict.required, ["build"]);
    }
    let missing = judge(&Case::alone(&built(77, 1.0, 3), &policy()));
    assert_eq!(missing.verdict, Answer::Neutral, "no baseline is no pass");
    let mut broken_off = built(77, 1.0, 3);
    broken_off.series[1] = first_launches(&broken_off.series[1], 2);
    let verdict = judged(&broken_off, &days);
    assert!(reason(&verdict, "completeness", Answer::Neutral).contains("was timed 2 of 3 times"));
}

/// Whom no rule depends on is timed in the first launch alone, with a reference of its own: that keeps no run from
/// passing. Once asked for by name, such a side must be measured as often as the others.
#[test]
fn launches_of_bystanders_are_not_missed() {
    let mut recording = recording(1.0, 0.002);
    recording.plan.launches = 5;
    let first = recording.series.clone();
    recording.launches = (0..5).map(|index| Launch { index, ..recording.launches[0].clone() }).collect();
    recording.series = first.iter().map(|series| in_launches(series, 5)).collect();
    assert_eq!(judged(&recording).verdict, Answer::Pass);
    for name in ["rust-avxvnni", "cpp-portable"] {
        let backend = Backend { name: name.into(), optimisation: "3".into(), ..Backend::default() };
        recording.plan.backends.push(backend);
    }
    let renamed = |series: &Series| Series {
        backend: if series.backend == REFERENCE { "cpp-portable" } else { "rust-avxvnni" }.into(),
        reference: "cpp-portable".into(),
        ..series.clone()
    };
    let of_both = |series: &&Series| [SUBJECT, REFERENCE].contains(&series.backend.as_str());
    recording.series.extend(first.iter().filter(of_both).map(renamed));
    let verdict = judged(&recording);
    assert_eq!(verdict.verdict, Answer::Pass, "{:?}", verdict.rules);
    let missed = "was measured in 1 of 5 launches";
    recording.plan.requested = vec!["rust-avxvnni".into()];
    let agreed = recording.agreements.clone().into_iter().filter(|row| row.backend == SUBJECT);
    recording.agreements.extend(agreed.map(|row| AgreementRow { backend: "rust-avxvnni".into(), ..row }));
    let why = reason(&judged(&recording), "completeness", Answer::Neutral);
    assert!(why.contains(missed), "{why}");
    recording.plan.requested.clear();
    recording.series = first;
    let why = reason(&judged(&recording), "completeness", Answer::Neutral);
    assert!(why.contains(missed), "{why}");
}

/// The same samples in each of several launches.
fn in_launches(series: &Series, launches: u32) -> Series {
    let n = series.len();
    Series {
        launch: (0..launches).flat_map(|launch| vec![launch; n]).collect(),
        block: series.block.repeat(launches as usize),
        order: series.order.repeat(launches as usize),
        iterations: series.iterations.repeat(launches as usize),
        value_ns: series.value_ns.repeat(launches as usize),
        context_switches: series.context_switches.repeat(launches as usize),
        ..series.clone()
    }
}

fn first_launches(series: &Series, launches: u32) -> Series {
    let n = series.launch.iter().filter(|launch| **launch < launches).count();
    Series {
        launch: series.launch[..n].to_vec(),
        block: series.block[..n].to_vec(),
        order: series.order[..n].to_vec(),
        iterations: series.iterations[..n].to_vec(),
        value_ns: series.value_ns[..n].to_vec(),
        ..series.clone()
    }
}

/// Only where nothing but the oracle is left of the Rust backends is something lost.
#[test]
fn a_cpu_without_the_newest_kernels_is_nothing_to_act_on() {
    let mut recording = recording(1.0, 0.01);
    let reason = "this CPU lacks avxvnni".to_owned();
    recording.skipped.push(Skipped { what: "rust-avxvnni".into(), reason, ..Skipped::default() });
    let told = |recording: &Recording| {
        judged(recording).suggestions.iter().any(|text| text.starts_with("rust-avxvnni cannot run here"))
    };
    assert!(!told(&recording), "{SUBJECT} runs");
    recording.plan.backends.retain(|backend| backend.name != SUBJECT);
    assert!(told(&recording));
}

fn left_out(name: &str) -> Skipped {
    Skipped { what: name.into(), reason: "left out by request".into(), ..Skipped::default() }
}

fn first_blocks(series: &Series, blocks: u32) -> Series {
    let keep: Vec<usize> = (0..series.len()).filter(|&i| series.block[i] < blocks).collect();
    let pick = |column: &[u64]| keep.iter().map(|&i| column[i]).collect();
    let narrow = |column: &[u32]| keep.iter().map(|&i| column[i]).collect();
    Series {
        launch: narrow(&series.launch),
        block: narrow(&series.block),
        order: narrow(&series.order),
        iterations: pick(&series.iterations),
        value_ns: pick(&series.value_ns),
        context_switches: Vec::new(),
        ..series.clone()
    }
}

/// An agreement-only recording is judged on agreement and accuracy, and says that nothing was timed.
#[test]
fn agreement_alone_can_pass_and_says_so() {
    let mut recording = recording(1.0, 0.01);
    recording.series.clear();
    recording.plan.launches = 0;
    let verdict = judged_by(&recording, &policy());
    assert_eq!(verdict.verdict, Answer::Pass, "{:#?}", verdict.rules);
    assert!(verdict.summary.contains("nothing was timed"), "{}", verdict.summary);
}

/// The verdict document survives its own JSON, and the table shows what it says.
#[test]
fn verdicts_travel_as_json_and_make_a_table() {
    let recording = recording(1.14, 0.01);
    let verdict = judged(&recording);
    let json = serde_json::to_string(&verdict).expect("plain data");
    let back: Verdict = serde_json::from_str(&json).expect("its own JSON");
    assert_eq!(back.verdict, verdict.verdict);
    assert_eq!(back.schema, "bitnet-perfgate/verdict/1");
    let rows = table::rows(&recording, &verdict);
    let row = rows.iter().find(|row| row.workload == MATMUL && row.subject == SUBJECT).expect("a row");
    assert_eq!((row.agreement, row.verdict, row.unit), ("exact", "fail", "GB/s"));
    // 1 638 400 bytes in about 1 ms / 10 calls * 1.14.
    let rate = row.subject_value.expect("a rate");
    assert!((14.0..14.8).contains(&rate), "{rate}");
}
