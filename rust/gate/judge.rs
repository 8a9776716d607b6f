//! Everything together: rules over one recording become one verdict document.

use super::policy::Policy;
use super::verdict::{Answer, Comparison, PolicySource, RuleAnswer, SCHEMA, Verdict};
use super::{compare, route, rules};
use crate::record::Recording;

/// Judges agreement, accuracy and the C++ rules of one recording. No baseline: no regression is judged.
pub fn judge(recording: &Recording, policy: &Policy, policy_source: &str) -> Verdict {
    let subject = rules::required_subject(recording);
    let timed = recording.plan.launches > 0;
    let comparisons = compare::all(recording, policy, subject);
    let agreement = rules::agreement_summary(recording);
    let validation = rules::completeness(recording, policy);
    let mut answers = vec![rules::agreement(&agreement), rules::accuracy(recording, policy)];
    if timed {
        answers.push(rules::reference_speed(recording, &comparisons));
        answers.push(rules::simd_ahead(recording, subject, policy));
    }
    answers.push(rules::completeness_rule(&validation));
    let verdict = overall(&answers);
    let route = route::route(verdict, &answers, "python -m bitnet_perfgate run --iterations 3");
    Verdict {
        schema: SCHEMA.into(),
        verdict,
        summary: summary(verdict, &answers, timed),
        evidence: evidence(recording, verdict, &answers, &agreement, &comparisons),
        required: recording.plan.required.iter().chain(&policy.required.categories).cloned().collect(),
        skipped: recording.skipped.clone(),
        comparisons,
        rules: answers,
        agreement,
        accuracy: recording.accuracy.clone(),
        validation,
        route,
        suggestions: suggestions(recording),
        commands: Vec::new(),
        recording: None,
        baseline: None,
        policy: PolicySource { source: policy_source.into(), hash: policy.hash() },
    }
}

/// fail > neutral > pass, and a pass needs at least one rule that was answered.
fn overall(rules: &[RuleAnswer]) -> Answer {
    rules.iter().filter_map(|rule| rule.verdict).max().unwrap_or(Answer::Neutral)
}

fn summary(verdict: Answer, rules: &[RuleAnswer], timed: bool) -> String {
    let scope = if timed {
        "No baseline given: no regression was judged. Speeds are those of one process; another may differ by more than the intervals."
    } else {
        "Agreement and accuracy only: nothing was timed."
    };
    let deciding = rules.iter().find(|rule| rule.verdict == Some(verdict));
    match (verdict, deciding) {
        (Answer::Pass, _) => format!("Every rule holds. {scope}"),
        (_, Some(rule)) => format!("{}: {}. {scope}", rule.name, rule.reason),
        (_, None) => format!("There is no evidence to judge. {scope}"),
    }
}

/// One line: `method: ...; result: ...; reason: ...`. Semicolons inside a part become commas.
fn evidence(
    recording: &Recording,
    verdict: Answer,
    rules: &[RuleAnswer],
    agreement: &super::verdict::AgreementSummary,
    comparisons: &[Comparison],
) -> String {
    let plan = &recording.plan;
    let method = format!("bitnet_perfgate {}, seed {}", suite(recording), plan.seed);
    let mut result = vec![format!("agreement {}/{} exact", agreement.exact, agreement.n)];
    let judged: Vec<f64> =
        comparisons.iter().filter(|c| c.verdict.is_some()).filter_map(|c| c.ratio).collect();
    if !judged.is_empty() {
        let mean = (judged.iter().map(|ratio| ratio.ln()).sum::<f64>() / judged.len() as f64).exp();
        let worst = judged.iter().copied().fold(f64::MIN, f64::max);
        result.push(format!(
            "time against C++ {mean:.3} (geometric mean of {}), worst {worst:.3}",
            judged.len()
        ));
    }
    let accuracy = rules
        .iter()
        .find(|rule| rule.name == "accuracy")
        .filter(|rule| matches!(rule.verdict, Some(Answer::Pass | Answer::Fail)));
    result.extend(accuracy.map(|rule| format!("accuracy {}", rule.reason)));
    let deciding = rules.iter().find(|rule| rule.verdict == Some(verdict) && verdict != Answer::Pass);
    let reason =
        deciding.map_or("every rule holds".to_owned(), |rule| format!("{}: {}", rule.name, rule.reason));
    let part = |text: &str| text.replace(';', ",");
    format!("method: {}; result: {}; reason: {}", part(&method), part(&result.join(", ")), part(&reason))
}

/// Which workloads: `28 workloads of the quick profile`, or `2 of the 28 ...` where they were chosen.
fn suite(recording: &Recording) -> String {
    let (plan, n) = (&recording.plan, recording.plan.workloads.len() as u64);
    match plan.profile_workloads {
        0 => format!("{n} workloads over the tensors of a file"),
        all if all == n => format!("{n} workloads of the {} profile", plan.profile),
        all => format!("{n} of the {all} workloads of the {} profile", plan.profile),
    }
}

fn suggestions(recording: &Recording) -> Vec<String> {
    let mut found = Vec::new();
    for launch in &recording.launches {
        if let Some(disturbance) = launch.disturbance.filter(|share| *share >= 0.10) {
            found.push(format!(
                "{:.0} % of the samples of launch {} were disturbed by other work: close other programs, or raise --iterations",
                disturbance * 100.0,
                launch.index
            ));
        }
    }
    for skipped in &recording.skipped {
        if skipped.reason.contains("optimisation level") {
            found.push(format!("{}: build with --release", skipped.what));
        }
    }
    found
}
