//! Samples measured elsewhere: the reader against anybody's bytes, and the whole procedure on real trials and on
//! simulated ones whose truth is known.

use bitnet_perfgate::gate::Policy;
use bitnet_perfgate::gate::trial::{TrialAnswer, TrialJudge, TrialMeter, TrialRules};
use bitnet_perfgate::gate::verdict::{Answer, Certainty, Severity};
use bitnet_perfgate::record::{Mode, Trial, TrialLines, parse_calibration, parse_trial, read_trial};
use bitnet_perfgate::rng::Rng;
use serde_json::{Value, json};
use std::path::Path;

fn rules() -> TrialRules {
    TrialRules { margin: 0.05, alpha: 0.05, strict: false, edges: Policy::default().severity }
}

fn judge(calibration: &[Trial]) -> TrialJudge {
    TrialJudge::new(rules(), calibration).expect("trials that were read")
}

fn parsed(document: &Value) -> Trial {
    parse_trial("t.json", document.to_string().as_bytes()).expect("a well-formed trial")
}

fn refused(text: &str) -> String {
    let why = parse_trial("t.json", text.as_bytes()).expect_err(text).to_string();
    assert!(!why.contains('\n'), "one line: {why:?}");
    why
}

#[test]
fn what_is_no_trial_is_refused_with_its_place() {
    let cases = [
        ("", "t.json: at .: EOF"),
        ("[]", "t.json: at .: invalid length 0"),
        ("{\"baseline\":[1,2", "t.json: at baseline: EOF"),
        (r#"{"baseline":[1]}"#, "missing field `candidate`"),
        (r#"{"baseline":[],"candidate":[1]}"#, "at baseline: is empty"),
        (r#"{"baseline":[1,2],"candidate":[3,0]}"#, "at candidate[1]: is 0, expected a positive time"),
        (r#"{"baseline":[1,-5e3],"candidate":[3,1]}"#, "at baseline[1]: is -5000"),
        (r#"{"baseline":[1,NaN],"candidate":[3,1]}"#, "at baseline[1]: expected"),
        (r#"{"baseline":[1,null],"candidate":[3,1]}"#, "at baseline[1]: invalid type: null"),
        (r#"{"baseline":["1"],"candidate":[3]}"#, "at baseline[0]: invalid type: string"),
        (r#"{"baseline":[1e999],"candidate":[3]}"#, "number out of range"),
        (r#"{"baseline":[1],"candidate":[3],"baseline":[2]}"#, "duplicate field"),
        (r#"{"baseline":[1],"candidate":[3]} x"#, "trailing characters"),
        (r#"{"baseline":[1,2],"candidate":[3],"mode":"int"}"#, "at candidate: has 1 samples, baseline has 2"),
        (r#"{"baseline":[1,2],"candidate":[3,4],"launch":[0]}"#, "at launch: has 1 entries for 2 samples"),
        (r#"{"baseline":[1],"candidate":[3],"launch":[-1]}"#, "at launch[0]: invalid value"),
        (
            r#"{"baseline":[1],"candidate":[3],"mode":"fast"}"#,
            "unknown variant `fast`, expected one of `seq`",
        ),
        (r#"{"baseline":[1],"candidate":[3],"order":["AC"]}"#, "expected a list of 0 and 1, positions"),
        (r#"{"baseline":[1],"candidate":[3],"order":[0,1,0]}"#, "at order: has 3 entries for 2 samples"),
        (r#"{"baseline":[1],"candidate":[3],"baseline_cpu":[1]}"#, "at candidate_cpu: is missing"),
        (
            r#"{"baseline":[1],"candidate":[3],"baseline_cpu":[1,2],"candidate_cpu":[1]}"#,
            "at baseline_cpu: has 2 entries, baseline has 1",
        ),
    ];
    for (text, expected) in cases {
        let why = refused(text);
        assert!(why.starts_with("t.json: at ") && why.contains(expected), "{text}: {why}");
    }
    refused(&format!("{{\"baseline\":{}1{}", "[".repeat(100_000), "]".repeat(100_000)));
    refused(&format!("{{\"extra\":{}", "{\"a\":".repeat(100_000)));
    let why = parse_calibration("c.json", br#"{"trials":[{"baseline":[1],"candidate":[0]}]}"#).unwrap_err();
    assert_eq!(why.to_string(), "c.json: at trials[0].candidate[0]: is 0, expected a positive time in ns");
    let why = read_trial(Path::new("/no/such/file")).unwrap_err().to_string();
    assert!(why.starts_with("/no/such/file: cannot read it"), "{why}");
}

#[test]
fn every_cut_and_every_changed_byte_is_read_or_refused() {
    let whole = json!({"id": [1], "baseline": [1, 2.5], "candidate": [3, 4], "order": ["AB", "BA"],
                       "launch": [0, 1], "mode": "duet"})
    .to_string()
    .into_bytes();
    for cut in 0..whole.len() {
        assert!(parse_trial("t", &whole[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..whole.len() {
        for byte in [0, b'"', b'9', b'-', b']', 0xff] {
            let mut changed = whole.clone();
            changed[at] = byte;
            if let Ok(trial) = parse_trial("t", &changed) {
                judge(&[]).judge(&trial).expect("what was read has an answer");
            }
        }
    }
}

#[test]
fn every_form_of_order_is_read() {
    for order in [
        json!([0, 1]),
        json!([true, false]),
        json!(["AB", "BA"]),
        json!(["A", "B"]),
        json!([[0, 1], [1, 0]]),
        json!([0, 3, 1, 2]),
    ] {
        let trial = parsed(&json!({"baseline": [1, 2], "candidate": [3, 4], "order": order}));
        assert!(trial.ordered && trial.mode_or_guess() == Mode::Int, "{order}");
    }
    // Nothing says that the sides alternated.
    let trial = parsed(&json!({"baseline": [1, 2], "candidate": [3, 4]}));
    assert_eq!(trial.mode_or_guess(), Mode::Seq);
}

#[test]
fn lines_are_answered_in_order_and_errors_name_theirs() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("many.jsonl");
    let good = r#"{"baseline":[1,2],"candidate":[3,4],"id":"x"}"#;
    std::fs::write(&path, format!("{good}\n\n  \n{good}\n{{\"baseline\":[1]}}\n{good}\n")).expect("written");
    let read: Vec<_> = TrialLines::open(&path).expect("opened").collect();
    assert_eq!(read.len(), 3, "two trials and the error that ends it");
    assert_eq!(read[1].as_ref().expect("a trial").id, Some(json!("x")));
    let why = read[2].as_ref().unwrap_err().to_string();
    assert!(why.contains("many.jsonl:5: at .: missing field `candidate`"), "{why}");
    // The last line needs no end.
    std::fs::write(&path, good).expect("written");
    assert_eq!(TrialLines::open(&path).expect("opened").count(), 1);
}

fn constant(n: usize, ratio: f64, mode: Mode) -> Trial {
    Trial { baseline: vec![1e6; n], candidate: vec![1e6 * ratio; n], mode: Some(mode), ..Trial::default() }
}

#[test]
fn too_few_samples_are_neutral_whatever_they_say() {
    for mode in [Mode::Seq, Mode::Int, Mode::Intpin, Mode::Int5pin, Mode::Duet] {
        for n in 1..5 {
            for ratio in [0.5, 1.0, 2.0] {
                let answer = judge(&[]).judge(&constant(n, ratio, mode)).expect("an answer");
                assert_eq!((answer.verdict, answer.interval), (Answer::Neutral, None), "{mode:?} {n}");
                assert!(answer.reason.contains("too few"), "{}", answer.reason);
            }
        }
    }
}

#[test]
fn constant_and_huge_trials_have_answers() {
    let verdict = |n, ratio, mode| judge(&[]).judge(&constant(n, ratio, mode)).expect("an answer");
    let equal = verdict(60, 1.0, Mode::Intpin);
    assert_eq!((equal.verdict, equal.ratio, equal.n_blocks), (Answer::Pass, Some(1.0), 20));
    // Even constant samples are not surer than the design.
    assert!((equal.interval.expect("an interval")[1] - 0.02_f64.exp()).abs() < 1e-12);
    let slow = verdict(60, 1.2, Mode::Intpin);
    assert_eq!((slow.verdict, slow.certainty), (Answer::Fail, Certainty::Confirmed));
    let severity = slow.severity.expect("an interval");
    assert_eq!((severity.most_likely, severity.at_least), (Severity::Critical, Severity::Critical));
    let million = verdict(1_000_000, 1.1, Mode::Intpin);
    assert!(million.verdict == Answer::Fail && million.n_blocks <= 240, "{}", million.n_blocks);
    assert_eq!(verdict(1_000_000, 1.3, Mode::Seq).verdict, Answer::Fail);
    assert_eq!(verdict(60, 1e12, Mode::Duet).verdict, Answer::Fail);
    // As many launches as samples: neighbours share a group.
    let launches = Trial { launch: Some((0..5000).collect()), ..constant(5000, 1.0, Mode::Int5pin) };
    let answer = judge(&[]).judge(&launches).expect("an answer");
    assert_eq!((answer.verdict, answer.n_launches), (Answer::Pass, 5000));
    assert!(answer.n_blocks <= 2 * 240, "{}", answer.n_blocks);
}

#[test]
fn strict_turns_likely_into_neutral() {
    // 6 % slower with a floor of 2 %: surely slower, probably beyond 5 %.
    let trial = constant(60, 1.06, Mode::Intpin);
    let answer = judge(&[]).judge(&trial).expect("an answer");
    assert_eq!((answer.verdict, answer.certainty), (Answer::Fail, Certainty::Likely));
    let strict = TrialRules { strict: true, ..rules() };
    let answer = TrialJudge::new(strict, &[]).expect("rules").judge(&trial).expect("an answer");
    assert_eq!((answer.verdict, answer.certainty), (Answer::Neutral, Certainty::Likely));
}

#[test]
fn modes_that_compare_cpus_or_minutes_are_distrusted_until_calibrated() {
    for mode in [Mode::Seq, Mode::Int] {
        let equal = constant(60, 1.0, mode);
        assert_eq!(judge(&[]).judge(&equal).expect("an answer").verdict, Answer::Neutral, "{mode:?}");
        let quiet: Vec<Trial> = (0..12).map(|i| constant(60, 1.0 + 0.001 * f64::from(i), mode)).collect();
        let answer = judge(&quiet).judge(&equal).expect("an answer");
        assert_eq!((answer.verdict, answer.n_calibration), (Answer::Pass, 12), "{mode:?}");
        // The same trials of another mode say nothing of this one.
        let other: Vec<Trial> = quiet.into_iter().map(|t| Trial { mode: Some(Mode::Duet), ..t }).collect();
        assert_eq!(judge(&other).judge(&equal).expect("an answer").verdict, Answer::Neutral, "{mode:?}");
        // Wild history: what it hides is not passed, and not failed.
        let wild = |i: i32| constant(60, (0.02 * f64::from(i - 6)).exp(), mode);
        let wild: Vec<Trial> = (0..13).map(wild).collect();
        for ratio in [1.0, 1.10] {
            let answer = judge(&wild).judge(&constant(60, ratio, mode)).expect("an answer");
            assert_eq!(answer.verdict, Answer::Neutral, "{mode:?} {ratio}");
        }
    }
}

#[test]
fn cpu_time_is_the_meter_where_it_is_given() {
    // Wall time says slower, CPU time says equal: the candidate was preempted.
    let cpu = Some([vec![1e6; 60], vec![1e6; 60]]);
    let answer = judge(&[]).judge(&Trial { cpu, ..constant(60, 1.5, Mode::Intpin) }).expect("an answer");
    assert_eq!((answer.verdict, answer.meter), (Answer::Pass, TrialMeter::Cpu));
    assert_eq!(answer.disturbance, Some(0.5));
}

/// A fair coin with this success probability gave at most `count` of `n` with probability above 0.1 %.
fn at_most(count: usize, n: usize, probability: f64) -> bool {
    let expected = probability * n as f64;
    count as f64 <= expected + 3.1 * (expected * (1.0 - probability)).sqrt() + 0.5
}

/// Counts over trials of one kind.
#[derive(Debug, Default)]
struct Tally {
    n: usize,
    pass: usize,
    fail: usize,
    confirmed: usize,
    overstated: usize,
}

fn tally(answers: &[TrialAnswer], truth: Severity) -> Tally {
    let count = |what: &dyn Fn(&TrialAnswer) -> bool| answers.iter().filter(|answer| what(answer)).count();
    let fail = |answer: &TrialAnswer| answer.verdict == Answer::Fail;
    Tally {
        n: answers.len(),
        pass: count(&|answer| answer.verdict == Answer::Pass),
        fail: count(&fail),
        confirmed: count(&|answer| fail(answer) && answer.certainty == Certainty::Confirmed),
        overstated: count(&|answer| answer.severity.is_some_and(|severity| severity.at_least > truth)),
    }
}

/// A simulated machine: what two processes differ by, how long states last, how often a sample is preempted.
#[derive(Clone, Copy)]
struct Machine {
    between: f64,
    drift: f64,
    preempted: f64,
    heavy: bool,
}

const QUIET: Machine = Machine { between: 0.006, drift: 0.01, preempted: 0.02, heavy: false };
const BUSY: Machine = Machine { between: 0.008, drift: 0.03, preempted: 0.3, heavy: true };

/// 5 launches of 12 blocks of 3, wall time only; a slow drift and preemptions hit whoever runs.
fn simulated(rng: &mut Rng, machine: Machine, ratio: f64) -> Trial {
    let (mut sides, mut launch, mut state) = ([Vec::new(), Vec::new()], Vec::new(), 0.0);
    for process in 0..5 {
        let own = machine.between * rng.normal();
        for _ in 0..12 {
            let first = usize::from(rng.coin());
            for side in [first, 1 - first] {
                state = 0.9 * state + 0.43 * machine.drift * rng.normal();
                for _ in 0..3 {
                    let tail =
                        if machine.heavy && rng.below(10) == 0 { rng.normal().abs() * 0.05 } else { 0.0 };
                    let lost = if rng.unit_f64() < machine.preempted { 0.5 + rng.unit_f64() } else { 0.0 };
                    let effect = if side == 1 { ratio.ln() + own } else { 0.0 };
                    sides[side].push(1e6 * (state + tail + lost + effect + 0.005 * rng.normal()).exp());
                }
            }
            launch.extend([process; 3]);
        }
    }
    let [baseline, candidate] = sides;
    Trial { baseline, candidate, launch: Some(launch), mode: Some(Mode::Int5pin), ..Trial::default() }
}

#[test]
fn simulated_trials_keep_the_promised_rates() {
    for (name, machine) in [("quiet", QUIET), ("busy", BUSY)] {
        let mut rng = Rng::for_part(21, name);
        let history: Vec<Trial> = (0..24).map(|_| simulated(&mut rng, machine, 1.0)).collect();
        for calibration in [&[][..], &history] {
            let judge = judge(calibration);
            let mut at = |ratio: f64, truth| {
                let answers: Vec<_> = (0..120)
                    .map(|_| judge.judge(&simulated(&mut rng, machine, ratio)).expect("an answer"))
                    .collect();
                let tally = tally(&answers, truth);
                assert!(at_most(tally.overstated, tally.n, 0.05), "{name} {ratio}: {tally:?}");
                tally
            };
            let equal = at(1.0, Severity::Acceptable);
            assert!(at_most(equal.fail, equal.n, 0.01), "{name}: {equal:?}");
            assert!(at_most(equal.n - equal.pass, equal.n, 0.10), "{name} neutral: {equal:?}");
            let edge = at(1.05, Severity::Minor);
            assert!(at_most(edge.confirmed, edge.n, 0.05), "{name} at the margin: {edge:?}");
            assert!(at_most(edge.pass, edge.n, 0.05), "{name} at the margin: {edge:?}");
            for (ratio, truth) in [(1.10, Severity::Major), (1.15, Severity::Critical)] {
                let slow = at(ratio, truth);
                assert!(at_most(slow.pass, slow.n, 0.01), "{name} {ratio}: {slow:?}");
                assert!(at_most(slow.n - slow.fail, slow.n, 0.05), "{name} {ratio}: {slow:?}");
            }
        }
    }
}

/// Real trials of all modes: `tests/golden/trials/README.md`.
#[test]
fn real_trials_are_judged_as_their_truth_demands() {
    let text = include_str!("golden/trials/trials.jsonl");
    let calibration = parse_calibration("calibration.json", include_bytes!("golden/trials/calibration.json"))
        .expect("the golden file is well-formed");
    let slow =
        |text: &str| serde_json::from_str::<Value>(text).expect("JSON")["slow"].as_f64().expect("slow");
    let trials: Vec<(f64, Trial)> = text
        .lines()
        .map(|line| (slow(line), parse_trial("golden", line.as_bytes()).expect("a trial")))
        .collect();
    assert_eq!((trials.len(), calibration.len()), (40, 24));
    for calibration in [&[][..], &calibration] {
        let judge = judge(calibration);
        for (slow, trial) in &trials {
            let answer = judge.judge(trial).expect("an answer");
            let mode = trial.mode.expect("all say how");
            let what = format!("{:?} {slow} {} {}", trial.id, answer.verdict.name(), answer.reason);
            let floored = calibration.is_empty() && matches!(mode, Mode::Int | Mode::Seq);
            assert_eq!(answer.meter, TrialMeter::Cpu);
            assert_eq!(answer.n_launches, if mode == Mode::Int5pin { 5 } else { 1 });
            match *slow {
                0.0 => {
                    assert_eq!(answer.verdict, if floored { Answer::Neutral } else { Answer::Pass }, "{what}")
                }
                0.05 => assert!(
                    answer.verdict != Answer::Pass && answer.certainty != Certainty::Confirmed,
                    "{what}"
                ),
                _ if floored => assert_ne!(answer.verdict, Answer::Pass, "{what}"),
                _ => assert_eq!(answer.verdict, Answer::Fail, "{what}"),
            }
        }
    }
}
