//! Imported results, then against now: what is judged, what is not, and why. Files in, verdicts out.

use bitnet_perfgate::gate::{Answer, ImportedCase, Policy, Verdict, judge_imported};
use bitnet_perfgate::record::import::{ImportOptions, import};
use bitnet_perfgate::record::{Recording, Tool};
use bitnet_perfgate::rng::Rng;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn golden(name: &str, saved: &str) -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/import").join(name);
    read(path, saved)
}

fn read(path: PathBuf, saved: &str) -> Recording {
    let options = ImportOptions { from: None, saved: saved.into(), tool: Tool::default() };
    import(&[path], &options).unwrap_or_else(|why| panic!("{why}"))
}

/// The recording of a document.
fn of(document: &Value) -> Recording {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.json");
    std::fs::write(&path, document.to_string()).expect("written");
    read(path, "new")
}

/// `n` times around `centre` seconds with a spread of 1 %.
fn times(seed: u64, n: usize, centre: f64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| centre * (0.01 * rng.normal()).exp()).collect()
}

fn hyperfine(command: &str, times: &[f64]) -> Value {
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    json!({"command": command, "mean": mean, "times": times, "exit_codes": vec![0; times.len()]})
}

fn results(rows: &[Value]) -> Recording {
    of(&json!({"results": rows}))
}

fn summary(command: &str, mean: f64, stddev: Option<f64>) -> Recording {
    results(&[json!({"command": command, "mean": mean, "stddev": stddev})])
}

/// A judgement on one machine, by the caller's word.
fn judged(earlier: &Recording, later: &Recording) -> Verdict {
    with(earlier, later, &[], true, false)
}

fn with(
    earlier: &Recording,
    later: &Recording,
    map: &[(&str, &str)],
    same_machine: bool,
    strict: bool,
) -> Verdict {
    let map: Vec<(String, String)> = map.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let policy = Policy { strict, ..Policy::default() };
    let case =
        ImportedCase { earlier, later, map: &map, same_machine, policy: &policy, policy_source: "defaults" };
    judge_imported(&case).expect("both are imported")
}

#[track_caller]
fn assert_neutral(verdict: &Verdict, words: &str) {
    assert_eq!(verdict.verdict, Answer::Neutral, "{}", verdict.summary);
    let told = verdict.comparisons.iter().map(|comparison| comparison.reason.as_str());
    let told: Vec<&str> =
        told.chain(verdict.validation.iter().map(|condition| condition.reason.as_str())).collect();
    assert!(told.iter().any(|reason| reason.contains(words)), "{words:?} is not in {told:#?}");
}

#[test]
fn samples_of_one_tool_pass_fail_and_are_unsure() {
    let then = results(&[hyperfine("a", &times(1, 60, 0.1))]);
    for (factor, answer) in
        [(0.8, Answer::Pass), (1.0, Answer::Pass), (1.08, Answer::Neutral), (1.3, Answer::Fail)]
    {
        let now = results(&[hyperfine("a", &times(2, 60, 0.1 * factor))]);
        let verdict = judged(&then, &now);
        let comparison = &verdict.comparisons[0];
        assert_eq!(verdict.verdict, answer, "{factor}: {}", comparison.reason);
        let ratio = comparison.ratio.expect("a ratio");
        assert!((ratio / factor - 1.0).abs() < 0.01, "{factor} was measured as {ratio}");
        assert_eq!(verdict.rules[0].verdict, None, "times say nothing of agreement");
    }
}

#[test]
fn a_few_samples_do_not_pass() {
    for n in [1, 2, 4] {
        let then = results(&[hyperfine("a", &times(1, n, 0.1))]);
        let now = results(&[hyperfine("a", &times(2, n, 0.1))]);
        assert_neutral(&judged(&then, &now), if n == 1 { "no evidence" } else { "too few for an interval" });
    }
}

#[test]
fn an_unknown_machine_is_red_at_most() {
    let then = results(&[hyperfine("a", &times(1, 60, 0.1))]);
    let (same, slower) =
        (results(&[hyperfine("a", &times(2, 60, 0.1))]), results(&[hyperfine("a", &times(2, 60, 0.2))]));
    assert_neutral(&with(&then, &same, &[], false, false), "--same-machine vouches for it");
    assert_eq!(with(&then, &slower, &[], false, false).verdict, Answer::Fail);
}

#[test]
fn another_machine_is_named_and_never_compared() {
    let changes: [(&str, &str, &str); 3] = [
        ("google-benchmark.json", "/context/num_cpus", "context.num_cpus was \"2\" and is \"64\""),
        ("pytest-benchmark.json", "/machine_info/cpu/brand_raw", "machine_info.cpu.brand_raw was "),
        ("llama-bench.json", "/0/cpu_info", "cpu_info was \"Example CPU\" and is \"64\""),
    ];
    for (name, place, words) in changes {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/import").join(name);
        let mut document: Value =
            serde_json::from_str(&std::fs::read_to_string(path).expect("there")).expect("JSON");
        let other = if place.ends_with("num_cpus") { json!(64) } else { json!("64") };
        *document.pointer_mut(place).expect("there") = other.clone();
        if name.starts_with("llama") {
            document[1]["cpu_info"] = other;
        }
        let verdict = judged(&golden(name, "new"), &of(&document));
        assert_neutral(&verdict, "not comparable: ");
        assert_neutral(&verdict, words);
        assert!(verdict.comparisons.iter().all(|comparison| comparison.ratio.is_none()));
    }
}

#[test]
fn a_host_name_is_a_machine_unless_the_caller_vouches() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/import/google-benchmark-2.json");
    let mut document: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("there")).expect("JSON");
    document["context"]["host_name"] = json!("elsewhere");
    let (then, now) = (golden("google-benchmark.json", "new"), of(&document));
    assert_neutral(
        &with(&then, &now, &[], false, false),
        "context.host_name was \"host\" and is \"elsewhere\"",
    );
    let vouched = judged(&then, &now);
    assert!(vouched.comparisons.iter().any(|comparison| comparison.ratio.is_some()));
}

#[test]
fn the_same_run_twice_is_no_comparison() {
    let base = golden("criterion-one-run", "base");
    let new = golden("criterion-one-run", "new");
    let verdict = judged(&base, &new);
    assert_neutral(&verdict, "equals the earlier one to the last digit");
    assert_neutral(&verdict, "base and new are the same run in 1 of 1 benchmarks");
    let exported = golden("critcmp.json", "new");
    assert_neutral(&judged(&exported, &exported), "equals the earlier one to the last digit");
}

#[test]
fn real_trees_and_files_have_ratios() {
    let pairs = [
        (golden("criterion", "base"), golden("criterion", "second")),
        (golden("google-benchmark.json", "new"), golden("google-benchmark-2.json", "new")),
        (golden("llama-bench.json", "new"), golden("llama-bench.jsonl", "new")),
        (golden("criterion", "base"), golden("cargo-criterion.jsonl", "new")),
        (golden("criterion", "base"), golden("critcmp.json", "new")),
    ];
    for (then, now) in &pairs {
        let verdict = judged(then, now);
        let with_ratio = verdict.comparisons.iter().filter(|comparison| comparison.ratio.is_some()).count();
        assert!(with_ratio >= 1, "{:#?}", verdict.comparisons);
    }
    let verdict = judged(&pairs[1].0, &pairs[1].1);
    let broken = verdict.comparisons.iter().find(|comparison| comparison.workload.ends_with("BM_broken"));
    let broken = broken.expect("a failed benchmark is a comparison too");
    assert_eq!(broken.verdict, Some(Answer::Neutral));
    assert!(broken.reason.contains("input file is missing"), "{}", broken.reason);
}

#[test]
fn five_samples_are_what_llama_bench_takes() {
    let verdict = judged(&golden("llama-bench.json", "new"), &golden("llama-bench.jsonl", "new"));
    assert_ne!(verdict.verdict, Answer::Fail, "+5 % within the guard");
    for comparison in &verdict.comparisons {
        let ratio = comparison.ratio.expect("a ratio");
        assert!((1.01..1.06).contains(&ratio), "{ratio}");
    }
}

#[test]
fn failures_and_made_up_numbers_never_pass() {
    let then = results(&[hyperfine("a", &times(1, 60, 0.1))]);
    let mut failing = hyperfine("a", &times(2, 60, 0.1));
    failing["exit_codes"][7] = json!(1);
    assert_neutral(&judged(&then, &results(&[failing.clone()])), "did not end with exit code 0");
    assert_neutral(&judged(&results(&[failing]), &then), "the earlier result is missing: failed");
    let mut zero = times(2, 60, 0.1);
    zero[3] = 0.0;
    assert_neutral(&judged(&then, &results(&[hyperfine("a", &zero)])), "time of sample 3 is 0");
    assert_neutral(&judged(&then, &results(&[hyperfine("a", &[0.2; 60])])), "all 60 samples are equal");
    let baselines = golden("bitnet-rs-baselines.json", "new");
    assert_neutral(&judged(&baselines, &baselines), "p95 and p99 are exactly 1.20 and 1.50 times the mean");
}

#[test]
fn a_benchmark_that_vanished_is_missed() {
    let (a, b) = (hyperfine("a", &times(1, 60, 0.1)), hyperfine("b", &times(3, 60, 0.1)));
    let then = results(&[a, b]);
    let now = results(&[hyperfine("a", &times(2, 60, 0.1))]);
    assert_neutral(
        &judged(&then, &now),
        "1 benchmarks of the earlier recording are not in the later one; first hyperfine:b",
    );
    let verdict = judged(&now, &results(&[hyperfine("c", &times(2, 60, 0.1))]));
    assert_neutral(&verdict, "no benchmark is in both recordings");
}

#[test]
fn names_pair_by_equality_or_by_map() {
    let then = results(&[hyperfine("a", &times(1, 60, 0.1))]);
    let other_name = results(&[hyperfine("b", &times(2, 60, 0.1))]);
    for map in [("a", "b"), ("hyperfine:a", "hyperfine:b")] {
        assert_eq!(with(&then, &other_name, &[map], true, false).verdict, Answer::Pass);
    }
    // Another tool, the same name.
    let data: Vec<f64> = times(2, 60, 0.1);
    let pytest = of(&json!({"machine_info": {}, "benchmarks": [{"name": "a", "fullname": "a",
        "stats": {"mean": 0.1, "iterations": 1, "data": data}}]}));
    let verdict = judged(&then, &pytest);
    assert_eq!((verdict.verdict, verdict.comparisons.len()), (Answer::Pass, 1));
    let case = ImportedCase {
        earlier: &then,
        later: &other_name,
        map: &[("x".into(), "b".into())],
        same_machine: true,
        policy: &Policy::default(),
        policy_source: "defaults",
    };
    let error = judge_imported(&case).expect_err("no such name").to_string();
    assert_eq!(error, "--map x=b: no benchmark of the earlier recording is called \"x\"");
    let native = Recording { origin: None, ..other_name.clone() };
    let error =
        judge_imported(&ImportedCase { later: &native, map: &[], ..case }).expect_err("ours").to_string();
    assert!(error.starts_with("the later recording was measured by this tool"), "{error}");
}

#[test]
fn another_setting_is_another_benchmark() {
    let row = |n: u64, seed| {
        let mut row = hyperfine("a", &times(seed, 60, 0.1));
        row["parameters"] = json!({"size": n});
        results(&[row])
    };
    assert_neutral(&judged(&row(1, 1), &row(2, 2)), "parameters was {\"size\":1} and is {\"size\":2}");
    assert_eq!(judged(&row(1, 1), &row(1, 2)).verdict, Answer::Pass);
    let named = with(&row(1, 1), &row(2, 2), &[("a", "a")], true, false);
    assert_eq!(named.verdict, Answer::Pass, "the caller says that they are one");
}

#[test]
fn summaries_are_red_far_beyond_their_spread_and_never_green() {
    let then = summary("a", 0.1, Some(0.002));
    assert_neutral(&judged(&then, &summary("a", 0.1001, Some(0.002))), "and never equality");
    assert_neutral(&judged(&then, &summary("a", 0.05, Some(0.001))), "and never equality");
    assert_neutral(
        &judged(&then, &summary("a", 0.112, Some(0.0001))),
        "a summary shows slow-downs beyond its spread",
    );
    assert_neutral(&judged(&then, &summary("a", 0.2, None)), "without a spread");
    assert_neutral(
        &judged(&then, &summary("a", 0.2, Some(0.1))),
        "a summary shows slow-downs beyond its spread",
    );
    let slower = summary("a", 0.2, Some(0.004));
    let verdict = judged(&then, &slower);
    assert_eq!(verdict.verdict, Answer::Fail, "{}", verdict.summary);
    assert_eq!(verdict.comparisons[0].certainty, bitnet_perfgate::gate::verdict::Certainty::Likely);
    assert_eq!(
        with(&then, &slower, &[], true, true).verdict,
        Answer::Neutral,
        "likely is neutral when strict"
    );
    // Samples on one side only: their moments meet the summary.
    let samples = results(&[hyperfine("a", &times(2, 60, 0.2))]);
    assert_eq!(judged(&then, &samples).verdict, Answer::Fail);
    assert_neutral(&judged(&samples, &then), "and never equality");
}

#[test]
fn rates_are_judged_the_other_way_round() {
    let rate = |tps: f64| {
        of(
            &json!({"results": [{"iterations": 20, "statistics": {"mean_tokens_per_second": tps, "std_tokens_per_second": 0.01 * tps}}]}),
        )
    };
    let halved = judged(&rate(20.0), &rate(10.0));
    assert_eq!(halved.verdict, Answer::Fail, "{}", halved.summary);
    assert!(
        (halved.comparisons[0].ratio.expect("a ratio") - 2.0).abs() < 1e-12,
        "half the rate is twice the time"
    );
    assert_neutral(&judged(&rate(10.0), &rate(20.0)), "0.500 times the time");
}
