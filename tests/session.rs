//! When a session stops, looks again and concludes: scripted launches in, verdict out. Nothing is timed.

use bitnet_perfgate::campaign::CampaignError;
use bitnet_perfgate::gate::verdict::{Against, Certainty, Comparison};
use bitnet_perfgate::gate::{Answer, Baseline, Policy};
use bitnet_perfgate::measure::{Fingerprint, GroupSamples, Sample, Schedule};
use bitnet_perfgate::parity::{Contract, compare};
use bitnet_perfgate::record::{
    Accuracy, AgreementRow, Backend, Launch, Meter, PlanRecord, PlannedWorkload, Recording, SCHEMA, Series,
    Skipped, Tool, now_utc,
};
use bitnet_perfgate::rng::Rng;
use bitnet_perfgate::session::{Outcome, Session, Step, Why};

const SUBJECT: &str = "rust-avx2";
const REFERENCE: &str = "cpp-avx2";
const LAUNCHES: u32 = 5;
const BLOCKS: u32 = 12;

/// The defaults, but for whole models: these recordings have none.
fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.required.categories.retain(|category| category != "inference");
    policy
}

/// How a scripted subject behaves: ln of its true ratio to the reference for a workload and step, and the noise.
struct Script<'a> {
    workloads: Vec<String>,
    effect: &'a dyn Fn(&str, &Step) -> f64,
    /// Standard deviation of a launch's placement, ln.
    placement: f64,
    /// Standard deviation of a sample, ln.
    noise: f64,
    seed: u64,
    /// Whether the oracle is timed too.
    oracle: bool,
}

fn ids(n: usize) -> Vec<String> {
    let kind = |i: usize| if i == 0 { "quantize/i2_s" } else { "matmul/i2_s" };
    (0..n).map(|i| format!("{}/{}x2560", kind(i), 128 * (i + 1))).collect()
}

impl Script<'_> {
    fn launch(&self, step: &Step) -> Recording {
        let planned = |id: &String| PlannedWorkload {
            category: if id.starts_with("quantize") { "quantization" } else { "kernels" }.into(),
            class: "core".into(),
            id: id.clone(),
            ..PlannedWorkload::default()
        };
        let backend = |name: &str| Backend { name: name.into(), ..Backend::default() };
        let measured = self
            .workloads
            .iter()
            .filter(|id| step.workloads.as_ref().is_none_or(|chosen| chosen.contains(id)));
        let measured: Vec<&String> = measured.collect();
        let equal = compare(&Contract::Exact, &[1, 2], &[1, 2]);
        let formats = ["i2_s", "tl1", "tl2"];
        let accurate = |format: &str| {
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
                workloads: self.workloads.iter().map(planned).collect(),
                backends: ["rust-scalar", SUBJECT, REFERENCE].map(backend).into(),
                required: [SUBJECT, REFERENCE].map(str::to_owned).into(),
                profile_workloads: self.workloads.len() as u64,
                launches: LAUNCHES,
                ..PlanRecord::default()
            },
            fingerprint: Fingerprint::default(),
            ceilings: Default::default(),
            ceiling_setting: None,
            launches: vec![Launch {
                index: step.index,
                started: now_utc(),
                cpu: None,
                disturbance: Some(0.0),
                aa: true,
                stage: step.stage,
                extra: Default::default(),
            }],
            series: measured.iter().flat_map(|id| self.series(id, step)).collect(),
            agreements: measured
                .iter()
                .flat_map(|id| [SUBJECT, REFERENCE].map(|name| AgreementRow::new(id, name, &equal)))
                .collect(),
            accuracy: if step.index == 0 {
                formats.into_iter().flat_map(accurate).collect()
            } else {
                Vec::new()
            },
            memory: Vec::new(),
            skipped: vec![Skipped { what: "cuda".into(), reason: "none".into(), ..Skipped::default() }],
            incomplete: None,
            origin: None,
            extra: Default::default(),
        }
    }

    /// Reference, its second instance, the subject, and the oracle twenty times slower.
    fn series(&self, id: &str, step: &Step) -> Vec<Series> {
        let mut rng = Rng::for_part(self.seed, &format!("{id} {}", step.index));
        let placed: Vec<f64> = (0..4).map(|_| self.placement * rng.normal()).collect();
        let effects = [0.0, 0.0, (self.effect)(id, step), 3.0];
        let mut samples = Vec::new();
        for block in 0..BLOCKS {
            for side in 0..4_u32 {
                for k in 0..3 {
                    let ln = effects[side as usize] + placed[side as usize] + self.noise * rng.normal();
                    let wall_ns = (1e6 * ln.exp()) as u64;
                    let order = side * 3 + k;
                    let (cpu_ns, switches) = (Some(wall_ns), None);
                    samples.push(Sample { side, block, order, iterations: 1, wall_ns, cpu_ns, switches });
                }
            }
        }
        let schedule =
            Schedule { sides: Vec::new(), blocks: BLOCKS, block_ns: 1, sample_ns: 1, timer_resolution_ns: 1 };
        let group = GroupSamples { schedule, samples, blocks: Vec::new(), incomplete: None };
        let names = [REFERENCE, "cpp-avx2+aa", SUBJECT, "rust-scalar"];
        let side =
            |(i, name): (usize, &&str)| Series::from_group(&group, i as u32, step.index, id, name, REFERENCE);
        // Where two builds are compared the oracle is not timed.
        let sides = if self.oracle { 4 } else { 3 };
        names
            .iter()
            .take(sides)
            .enumerate()
            .flat_map(side)
            .filter(|series| series.meter == Meter::WallNs)
            .collect()
    }
}

/// Runs a session over the script; every step it asked for comes back too.
fn run(script: &Script<'_>, baseline: &Baseline<'_>) -> (Outcome, Vec<Step>) {
    let mut steps = Vec::new();
    let policy = policy();
    let session = Session {
        launches: LAUNCHES,
        second_looks: true,
        baseline,
        policy: &policy,
        policy_source: "defaults",
        retry: "again",
    };
    let outcome = session.run(&mut |step: &Step| {
        steps.push(step.clone());
        Ok::<_, CampaignError>(script.launch(step))
    });
    let outcome = outcome.expect("scripted launches fit each other");
    outcome.recording.check().expect("a legal recording");
    (outcome, steps)
}

fn comparison<'o>(outcome: &'o Outcome, id: &str) -> &'o Comparison {
    let of = |c: &&Comparison| c.workload == id && c.subject == SUBJECT && c.against == Against::Reference;
    outcome.verdict.comparisons.iter().find(of).expect("compared")
}

#[test]
fn what_is_clear_after_three_launches_is_left_alone() {
    let clear = Script {
        workloads: ids(10),
        effect: &|_, _| 0.0,
        placement: 0.002,
        noise: 0.01,
        seed: 1,
        oracle: true,
    };
    let (outcome, steps) = run(&clear, &Baseline::NotAsked);
    assert_eq!(outcome.verdict.verdict, Answer::Pass, "{:#?}", outcome.verdict.rules);
    assert_eq!(steps.len(), 3);
    assert_eq!(comparison(&outcome, &ids(1)[0]).n_launches, 3);
    // One workload that is not clear gets all five, alone.
    let close = |id: &str, _: &Step| if id == ids(2)[1] { 0.075 } else { 0.0 };
    let close =
        Script { effect: &close, noise: 0.05, workloads: ids(10), placement: 0.002, seed: 1, oracle: true };
    let (_, steps) = run(&close, &Baseline::NotAsked);
    assert!(steps.len() >= 5, "{steps:?}");
    let fourth = steps[3].workloads.as_ref().expect("no longer all");
    assert!(fourth.contains(&ids(2)[1]) && fourth.len() < 10, "{fourth:?}");
}

#[test]
fn red_needs_a_second_measurement() {
    let slow = |_: &str, _: &Step| 1.3_f64.ln();
    let script =
        Script { workloads: ids(2), effect: &slow, placement: 0.002, noise: 0.01, seed: 2, oracle: true };
    let (outcome, steps) = run(&script, &Baseline::NotAsked);
    assert_eq!(outcome.verdict.verdict, Answer::Fail);
    let row = comparison(&outcome, &ids(1)[0]);
    assert_eq!((row.stage, row.certainty), (2, Certainty::Confirmed));
    assert!(row.first_stage.is_some() && row.reason.contains("reproduced"), "{}", row.reason);
    assert_eq!(steps.iter().filter(|step| step.stage == 2).count(), LAUNCHES as usize);
    assert_eq!(outcome.verdict.route.next, "perf-fixer");

    let only_at_first = |_: &str, step: &Step| if step.stage == 1 { 1.3_f64.ln() } else { 0.0 };
    let script = Script {
        effect: &only_at_first,
        workloads: ids(2),
        placement: 0.002,
        noise: 0.01,
        seed: 2,
        oracle: true,
    };
    let (outcome, _) = run(&script, &Baseline::NotAsked);
    assert_eq!(outcome.verdict.verdict, Answer::Neutral, "never pass");
    let row = comparison(&outcome, &ids(1)[0]);
    assert!(
        row.reason.contains("not reproduced: 1.29") && row.reason.contains("when measured afresh"),
        "{}",
        row.reason
    );
    // The verdict is a function of the recording.
    let policy = policy();
    let again =
        bitnet_perfgate::gate::judge(&bitnet_perfgate::gate::Case::alone(&outcome.recording, &policy));
    assert_eq!(again.comparisons, outcome.verdict.comparisons);
}

#[test]
fn undecided_workloads_get_as_many_launches_again_once() {
    // One workload whose launches scatter so much that they cannot tell.
    let wandering = |id: &str, step: &Step| {
        let away = if step.index.is_multiple_of(2) { 0.08 } else { -0.08 };
        if id == ids(2)[1] { 1.06_f64.ln() + away } else { 0.0 }
    };
    let script = Script {
        workloads: ids(9),
        effect: &wandering,
        placement: 0.002,
        noise: 0.01,
        seed: 3,
        oracle: true,
    };
    let (outcome, steps) = run(&script, &Baseline::NotAsked);
    assert_eq!(outcome.verdict.verdict, Answer::Neutral);
    let again: Vec<&Step> = steps.iter().filter(|step| step.why == Why::Undecided).collect();
    assert_eq!(again.len(), LAUNCHES as usize);
    assert_eq!(again[0].workloads.as_deref(), Some(&ids(2)[1..]));
    assert_eq!(comparison(&outcome, &ids(2)[1]).n_launches, 2 * LAUNCHES as usize);
    assert_eq!(
        steps.iter().map(|step| step.index).collect::<Vec<_>>(),
        (0..steps.len() as u32).collect::<Vec<_>>()
    );
}

#[test]
fn an_interrupted_launch_ends_the_session_and_never_passes() {
    let script =
        Script { workloads: ids(2), effect: &|_, _| 0.0, placement: 0.0, noise: 0.01, seed: 4, oracle: true };
    let policy = policy();
    let session = Session {
        launches: LAUNCHES,
        second_looks: true,
        baseline: &Baseline::NotAsked,
        policy: &policy,
        policy_source: "defaults",
        retry: "again",
    };
    let mut made = 0;
    let outcome = session.run(&mut |step: &Step| {
        made += 1;
        let mut recording = script.launch(step);
        if step.index == 1 {
            recording.incomplete = Some("the process of launch 1 was killed".into());
        }
        Ok(recording)
    });
    let outcome = outcome.expect("kept");
    assert_eq!((made, outcome.verdict.verdict), (2, Answer::Neutral));
    assert!(outcome.verdict.summary.contains("killed"), "{}", outcome.verdict.summary);
    // A launch of another build does not fit.
    let error = session.run(&mut |step: &Step| {
        let mut recording = script.launch(step);
        recording.tool.version = step.index.to_string();
        Ok(recording)
    });
    assert!(error.expect_err("two builds").to_string().starts_with("launch 1 does not fit"));
}

/// Equal sides, with launches that scatter by 1 %: at most 1 % of whole suites of 28 workloads may be red.
#[test]
fn whole_suites_of_equal_sides_are_not_red() {
    let mut red = 0;
    let mut passed = 0;
    for seed in 0..60 {
        let script = Script {
            workloads: ids(28),
            effect: &|_, _| 0.0,
            placement: 0.01,
            noise: 0.02,
            seed: 1000 + seed,
            oracle: false,
        };
        let (outcome, _) = run(&script, &Baseline::Revision { name: "itself".into() });
        red += u32::from(outcome.verdict.verdict == Answer::Fail);
        passed += outcome.verdict.comparisons.iter().filter(|c| c.verdict == Some(Answer::Pass)).count();
    }
    // At a true rate of 1 % more than 3 of 60 are as improbable as 1 in 300.
    assert!(red <= 3, "{red} of 60 suites are red");
    assert!(passed > 60 * 28 * 9 / 10, "most equal workloads are seen to be equal: {passed}");
}

fn sessions(n: u64, ratio: f64) -> Vec<Recording> {
    (0..n)
        .map(|seed| {
            let day = 0.005 * Rng::new(seed).normal();
            let effect = move |_: &str, _: &Step| ratio.ln() + day;
            let script = Script {
                workloads: ids(3),
                effect: &effect,
                placement: 0.002,
                noise: 0.01,
                seed,
                oracle: true,
            };
            let mut recording = None;
            for index in 0..LAUNCHES {
                let step = Step {
                    index,
                    stage: 1,
                    number: index + 1,
                    of: LAUNCHES,
                    why: Why::Planned,
                    workloads: None,
                };
                let launch = script.launch(&step);
                match &mut recording {
                    None => recording = Some(launch),
                    Some(whole) => bitnet_perfgate::record::merge(whole, launch).expect("one session"),
                }
            }
            recording.expect("five launches")
        })
        .collect()
}

/// Today against accepted recordings: the ratio to the reference is what is compared.
#[test]
fn accepted_recordings_are_compared_through_the_ratio() {
    let earlier = sessions(6, 0.8);
    let judged = |today: f64, sessions: &[Recording], void: Option<&str>| {
        let effect = move |_: &str, _: &Step| today.ln();
        let script = Script {
            workloads: ids(3),
            effect: &effect,
            placement: 0.002,
            noise: 0.01,
            seed: 77,
            oracle: true,
        };
        let name = "linux-x86_64/0123".to_owned();
        let baseline = Baseline::Sessions { name, sessions, void: void.map(str::to_owned) };
        run(&script, &baseline).0
    };
    let regression = |outcome: &Outcome| {
        let rule = outcome.verdict.rules.iter().find(|rule| rule.name == "regression").expect("judged");
        (rule.verdict, rule.reason.clone())
    };
    let equal = judged(0.8, &earlier, None);
    assert_eq!(regression(&equal).0, Some(Answer::Pass), "{:#?}", equal.verdict.comparisons);
    // Still faster than the reference, but 15 % slower than it was.
    let slower = judged(0.92, &earlier, None);
    assert_eq!(regression(&slower).0, Some(Answer::Fail), "{:?}", regression(&slower));
    assert_eq!(slower.verdict.verdict, Answer::Fail);
    let against = |c: &&Comparison| c.against == Against::Baseline && c.subject == SUBJECT;
    let row = slower.verdict.comparisons.iter().find(against).expect("compared");
    assert_eq!((row.n_baselines, row.stage), (6, 2));
    assert!((row.ratio.expect("a ratio") / 1.15 - 1.0).abs() < 0.02, "{row:?}");
    assert!(row.raw_ratio.is_some());
    // Two sessions say too little of days, unless it is critical.
    let (answer, reason) = regression(&judged(0.92, &earlier[..2], None));
    assert_eq!(answer, Some(Answer::Neutral), "{reason}");
    assert!(reason.contains("2 accepted recordings, 3 are needed"), "{reason}");
    assert_eq!(regression(&judged(1.2, &earlier[..2], None)).0, Some(Answer::Fail));
    let one = judged(0.8, &earlier[..1], None);
    assert_eq!(regression(&one).0, Some(Answer::Neutral));
    assert_eq!(one.recording.launches.len(), LAUNCHES as usize, "more launches of today say nothing of days");
    // Another machine is not compared.
    let void = judged(0.8, &earlier, Some("cpu_model was \"a\" and is \"b\""));
    assert_eq!(void.verdict.verdict, Answer::Neutral);
    assert!(regression(&void).1.contains("not comparable: cpu_model"), "{:?}", regression(&void));
    assert_eq!(void.verdict.route.next, "review-performance-benchmark");
    // A workload of the baseline that is gone today is seen.
    let mut more = earlier.clone();
    more[5].plan.workloads.push(PlannedWorkload { id: "matmul/gone".into(), ..PlannedWorkload::default() });
    let vanished = judged(0.8, &more, None);
    assert_eq!(vanished.verdict.verdict, Answer::Neutral);
    assert!(vanished.verdict.validation.iter().any(|c| c.name == "expected-workloads" && !c.ok));
}

#[test]
fn a_missing_baseline_is_neutral_and_says_how_to_record_one() {
    let script = Script {
        workloads: ids(2),
        effect: &|_, _| 0.0,
        placement: 0.002,
        noise: 0.01,
        seed: 5,
        oracle: true,
    };
    let baseline = Baseline::Missing { reason: "no baseline here".into(), command: "baseline record".into() };
    let (outcome, _) = run(&script, &baseline);
    assert_eq!(outcome.verdict.verdict, Answer::Neutral);
    assert_eq!(outcome.verdict.route.next, "review-performance-benchmark");
    assert!(outcome.verdict.route.reason.contains("`baseline record`"), "{}", outcome.verdict.route.reason);
}
