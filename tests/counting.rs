//! Instruction counts end to end: fresh processes count real kernels, accepted recordings are compared with, a planted
//! slow-down is found and named. No clock has a part in it.
//!
//! A test with a main of its own: the same binary, called `serve`, is the measuring process.

use bitnet_perfgate::campaign::{
    self, LaunchOrder, Order, Planted, Request, Selection, TimingPlan, WorkerCommand,
};
use bitnet_perfgate::gate::verdict::{Against, Comparison, Severity};
use bitnet_perfgate::gate::{Answer, Baseline, Policy};
use bitnet_perfgate::measure::CounterKind;
use bitnet_perfgate::record::{Meter, Recording};
use bitnet_perfgate::session::{Outcome, Session, Step};
use bitnet_perfgate::workloads::catalog::Profile;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::thread;

const TEN: [&str; 10] = [
    "quantize/i2_s/640x2560",
    "dequantize/i2_s/640x2560",
    "activation/int8/2560x1",
    "activation/int8/6912x16",
    "matmul/i2_s/640x2560/b1/t1/hot",
    "matmul/i2_s/1536x1536/b1/t1/hot",
    "matmul/tl1/640x2560/b1/t1/hot",
    "matmul/tl2/640x2560/b1/t1/hot",
    "linear/i2_s/640x2560/b1/t1/hot",
    "overhead/call",
];
const SLOWED: &str = "matmul/i2_s/640x2560/b1/t1/hot";

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("serve") => {
            let input = std::io::BufReader::new(std::io::stdin());
            std::process::exit(
                campaign::worker::serve(input, &mut std::io::stdout(), &campaign::find_none).into(),
            );
        }
        Some("--list") => return,
        _ => {}
    }
    let kind = match CounterKind::here() {
        Ok(kind) => kind,
        Err(why) => {
            let why = why.to_string();
            assert!(why.starts_with("instructions cannot be counted: "), "{why}");
            assert!(std::env::var_os("CI").is_none(), "CI must count, install valgrind: {why}");
            println!("counting: not tested here: {why}");
            return;
        }
    };
    let equal = counted(kind, &TEN, &Baseline::NotAsked, None);
    what_is_counted_is_said(&equal, kind);
    let baseline = sessions(std::slice::from_ref(&equal.recording));
    let again = counted(kind, &TEN, &baseline, None);
    counts_repeat(&equal.recording, &again.recording);
    equal_sides_pass(&again);
    let (one, six) = thread::scope(|scope| {
        let six = scope.spawn(|| counted(kind, &[SLOWED], &baseline, Some(0.06)));
        (counted(kind, &TEN, &baseline, Some(0.20)), six.join().expect("it counts"))
    });
    one_of_ten_is_red_and_named(&one);
    six_percent_is_seen(&six);
    println!("counting: counted by {}: all hold", kind.name());
}

/// One session of fresh processes, which count at the same time: no clock sees it. `planted` slows the subject down on one
/// workload. Counts repeat, so a planted one needs one process.
fn counted(kind: CounterKind, workloads: &[&str], baseline: &Baseline<'_>, planted: Option<f64>) -> Outcome {
    let request = Request {
        profile: Profile::Quick,
        seed: 42,
        categories: Vec::new(),
        workloads: workloads.iter().map(|id| (*id).to_owned()).collect(),
        model: None,
        timing: Some(TimingPlan::counting()),
    };
    let selection = Selection { counter: Some(kind), ..Selection::default() };
    let subject = campaign::plan(&request, &selection.cast(&campaign::find_none).expect("built in"))
        .expect("a plan")
        .plan
        .required[0]
        .clone();
    let planted = planted.map(|share| Planted { workload: SLOWED.into(), backend: subject, share });
    let this = std::env::current_exe().expect("this test").to_string_lossy().into_owned();
    let command = WorkerCommand(vec![this, "serve".into()]);
    // No whole models among the ten: they would take minutes to count.
    let mut policy = Policy::default();
    policy.required.categories.retain(|category| category != "inference");
    let session = Session {
        launches: if planted.is_some() { 1 } else { 2 },
        second_looks: true,
        baseline,
        policy: &policy,
        policy_source: "defaults",
        retry: "again",
    };
    let launch = |index: u32| {
        let planted = planted.clone().into_iter().collect();
        let order = Order { index, twin: true, planted, ..Order::alone() };
        let order = LaunchOrder { request: request.clone(), selection: selection.clone(), order };
        campaign::launch(&command, &order, &campaign::find_none, &mut |_| ControlFlow::Continue(()))
    };
    let mut ahead: VecDeque<_> = thread::scope(|scope| {
        let launches: Vec<_> =
            (0..session.launches).map(|index| scope.spawn(move || launch(index))).collect();
        launches.into_iter().map(|launch| launch.join().expect("it counts")).collect()
    });
    // A second look is launched when the session asks for it.
    let launched = session.run(&mut |step: &Step| ahead.pop_front().unwrap_or_else(|| launch(step.index)));
    let outcome = launched.expect("it counts");
    assert_eq!(outcome.recording.incomplete, None);
    outcome.recording.check().expect("a legal recording");
    outcome
}

fn sessions(accepted: &[Recording]) -> Baseline<'static> {
    // Leaked: a test of one minute.
    let sessions = Box::leak(accepted.to_vec().into_boxed_slice());
    Baseline::Sessions { name: "accepted".into(), sessions, void: None }
}

fn what_is_counted_is_said(outcome: &Outcome, kind: CounterKind) {
    let recording = &outcome.recording;
    assert_eq!((&recording.plan.meter, recording.plan.counter.as_str()), (&Meter::Instructions, kind.name()));
    assert!(recording.series.iter().all(|series| series.meter == Meter::Instructions));
    assert_eq!(recording.launches.len(), 2);
    let peak = recording.memory.iter().find(|memory| memory.meter == "peak_rss_bytes");
    assert_eq!(peak, None, "memory of a counted process is not its own");
    let rule = outcome.verdict.rules.iter().find(|rule| rule.name == "reference-speed").expect("said");
    assert_eq!(rule.verdict, None, "{rule:?}");
    assert!(outcome.verdict.summary.contains("no regression was judged"), "{}", outcome.verdict.summary);
}

/// Largest difference between two sessions of any series: below a tenth of what is a minor change.
fn counts_repeat(first: &Recording, second: &Recording) {
    let mut worst = (0.0, String::new());
    for series in &first.series {
        let other =
            second.series.iter().find(|other| other.label() == series.label()).expect("counted again");
        let counts = || series.value_ns.iter().chain(&other.value_ns).map(|count| *count as f64);
        let (least, most) = (counts().fold(f64::INFINITY, f64::min), counts().fold(0.0, f64::max));
        assert!(least > 0.0, "{}", series.label());
        let spread = most / least - 1.0;
        if spread >= worst.0 {
            worst = (spread, series.label());
        }
    }
    println!("counting: four processes differ by at most {:.5} % ({})", worst.0 * 100.0, worst.1);
    assert!(worst.0 < 0.002, "{worst:?}");
}

fn against_baseline(outcome: &Outcome) -> Vec<&Comparison> {
    let rows = outcome.verdict.comparisons.iter();
    rows.filter(|row| row.against == Against::Baseline && row.required).collect()
}

fn equal_sides_pass(outcome: &Outcome) {
    let rows = against_baseline(outcome);
    assert_eq!(rows.len(), TEN.len());
    assert!(rows.iter().all(|row| row.verdict == Some(Answer::Pass)), "{rows:#?}");
    assert_eq!(outcome.verdict.verdict, Answer::Pass, "{:#?}", outcome.verdict.rules);
}

fn one_of_ten_is_red_and_named(outcome: &Outcome) {
    let rows = against_baseline(outcome);
    assert_eq!(rows.len(), TEN.len());
    for row in rows {
        let expected = if row.workload == SLOWED { Answer::Fail } else { Answer::Pass };
        assert_eq!(row.verdict, Some(expected), "{row:#?}");
        if row.workload == SLOWED {
            let ratio = row.ratio.expect("counted");
            assert!((ratio - 1.2).abs() < 0.005, "{ratio}");
        }
    }
    let verdict = &outcome.verdict;
    assert_eq!(verdict.verdict, Answer::Fail);
    assert!(verdict.summary.contains(SLOWED), "{}", verdict.summary);
    assert_eq!(verdict.route.next, "perf-fixer");
    println!("counting: {}", verdict.evidence);
}

fn six_percent_is_seen(outcome: &Outcome) {
    let rows = against_baseline(outcome);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].verdict, Some(Answer::Fail), "{:#?}", rows[0]);
    let ratio = rows[0].ratio.expect("counted");
    assert!((ratio - 1.06).abs() < 0.003, "{ratio}");
    assert_eq!(rows[0].severity.expect("known").at_least, Severity::Major, "5 % of instructions is major");
}
