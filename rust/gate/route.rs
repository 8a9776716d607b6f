//! Who should look next, and what might help. Nothing is applied.

use super::verdict::{Answer, Route, RuleAnswer};

/// The route of the first rule that decides, in the order of how wrong things are.
pub(super) fn route(verdict: Answer, rules: &[RuleAnswer], retry: &str) -> Route {
    let failed =
        |name: &str| rules.iter().find(|rule| rule.name == name && rule.verdict == Some(Answer::Fail));
    let to = |next: &str, reason: &str| Route { next: next.into(), reason: reason.into() };
    if let Some(rule) = failed("agreement") {
        return to("crossval-specialist", &rule.reason);
    }
    if let Some(rule) = failed("accuracy") {
        return to("architecture-reviewer", &rule.reason);
    }
    if let Some(rule) = rules.iter().find(|rule| rule.verdict == Some(Answer::Fail)) {
        return to("perf-fixer", &rule.reason);
    }
    match rules.iter().find(|rule| rule.verdict == Some(Answer::Neutral)) {
        Some(rule) if verdict == Answer::Neutral => {
            to("retry", &format!("{}: {}; try `{retry}`", rule.name, rule.reason))
        }
        _ => to("perf-finalizer", "every rule holds"),
    }
}
