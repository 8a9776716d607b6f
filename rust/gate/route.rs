//! Who should look next. A string and a reason; nothing is done about it here.

use super::Baseline;
use super::verdict::{Answer, Comparison, Route, RuleAnswer, Severity};

/// The route of the first rule that decides, in the order of how wrong things are.
pub(super) fn route(
    verdict: Answer,
    rules: &[RuleAnswer],
    comparisons: &[Comparison],
    baseline: &Baseline<'_>,
    retry: &str,
) -> Route {
    let answered = |name: &str, answer: Answer| {
        rules.iter().find(|rule| rule.name == name && rule.verdict == Some(answer))
    };
    let to = |next: &str, reason: &str| Route { next: next.into(), reason: reason.into() };
    if let Some(rule) = answered("agreement", Answer::Fail) {
        return to("crossval-specialist", &rule.reason);
    }
    if let Some(rule) = answered("accuracy", Answer::Fail) {
        return to("architecture-reviewer", &rule.reason);
    }
    if let Some(rule) = answered("gpu", Answer::Fail) {
        return to("gpu-specialist", &rule.reason);
    }
    if let Some(rule) = rules.iter().find(|rule| rule.verdict == Some(Answer::Fail)) {
        return to("perf-fixer", &format!("{}: {}{}", rule.name, severity(comparisons), rule.reason));
    }
    let neutral = rules.iter().find(|rule| rule.verdict == Some(Answer::Neutral));
    match (verdict, neutral, baseline) {
        (Answer::Pass, ..) => to("perf-finalizer", "performance is maintained: every rule holds"),
        (_, Some(rule), Baseline::Missing { command, .. }) if judges_change(rule) => {
            to("review-performance-benchmark", &format!("{}; `{command}`", rule.reason))
        }
        (_, Some(rule), Baseline::Sessions { void: Some(why), .. }) if judges_change(rule) => {
            to("review-performance-benchmark", &format!("the baseline needs an update: {why}"))
        }
        (_, Some(rule), _) => to("retry", &format!("{}: {}; try `{retry}`", rule.name, rule.reason)),
        (_, None, _) => to("retry", &format!("there is no evidence; try `{retry}`")),
    }
}

fn judges_change(rule: &RuleAnswer) -> bool {
    matches!(rule.name.as_str(), "regression" | "build-time")
}

/// The worst severity among the red comparisons, for a minor one with its workload; empty where none is red.
fn severity(comparisons: &[Comparison]) -> String {
    let red = comparisons.iter().filter(|comparison| comparison.verdict == Some(Answer::Fail));
    let worst =
        red.filter_map(|comparison| Some((comparison.severity?.most_likely, &comparison.workload))).max();
    match worst {
        None => String::new(),
        Some((Severity::Critical, _)) => "critical regression; ".into(),
        Some((Severity::Major, _)) => "major regression; ".into(),
        Some((_, workload)) => format!("minor regression, suspected workload {workload}; "),
    }
}
