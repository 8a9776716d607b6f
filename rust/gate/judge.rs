//! Everything together: rules over one recording become one verdict document.

use super::compare::{self, Setting};
use super::policy::Policy;
use super::roles::{required_backends, required_subject};
use super::verdict::{
    Against, AgreementSummary, Answer, Certainty, Comparison, PolicySource, RuleAnswer, SCHEMA, Verdict,
};
use super::{Baseline, efficiency, history, power, roles, route, rules, validate};
use crate::record::{Meter, Recording};

/// What one judgement looks at.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Today's measurement.
    pub recording: &'a Recording,
    /// What a regression is judged against.
    pub baseline: &'a Baseline<'a>,
    /// Every number.
    pub policy: &'a Policy,
    /// Where the policy came from: a file, or `defaults`.
    pub policy_source: &'a str,
    /// The command that would settle a neutral verdict.
    pub retry: &'a str,
}

impl<'a> Case<'a> {
    /// A recording by itself, by the default way of asking again: no regression is judged.
    pub fn alone(recording: &'a Recording, policy: &'a Policy) -> Self {
        let retry = "python -m bitnet_perfgate run --iterations 3";
        Self { recording, baseline: &Baseline::NotAsked, policy, policy_source: "defaults", retry }
    }
}

/// Judges one recording: agreement, accuracy, the C++ rules, and the regression if there is something to compare with.
pub fn judge(case: &Case<'_>) -> Verdict {
    let Case { recording, baseline, policy, .. } = *case;
    let comparisons = comparisons(case);
    let agreement = rules::agreement_summary(recording);
    let validation = validate::conditions(recording, baseline, policy);
    let answers = answers(case, &comparisons, &agreement, validate::completeness(&validation));
    let verdict = overall(&answers);
    let parity = crossval_parity(recording, &comparisons);
    let suggestions = suggestions(recording, &answers, &comparisons);
    let power = power::reached(&comparisons);
    Verdict {
        power,
        schema: SCHEMA.into(),
        verdict,
        summary: summary(verdict, &answers, case),
        evidence: evidence(case, verdict, &answers, &agreement, &comparisons, parity),
        required: match roles::of_builds(recording) {
            true => vec!["build".into()],
            false => required_backends(recording, policy)
                .iter()
                .chain(&policy.required.categories)
                .cloned()
                .collect(),
        },
        skipped: recording.skipped.clone(),
        route: route::route(verdict, &answers, &comparisons, baseline, case.retry),
        comparisons,
        rules: answers,
        agreement,
        crossval_parity_percent: parity,
        accuracy: recording.accuracy.clone(),
        efficiencies: efficiency::efficiencies(recording),
        validation,
        suggestions,
        commands: Vec::new(),
        recording: None,
        baseline: baseline.name(),
        policy: PolicySource::of(policy, case.policy_source),
    }
}

/// Comparisons that are red so far: what a second stage has to measure afresh. Ids of workloads, each once.
pub fn flagged(comparisons: &[Comparison]) -> Vec<String> {
    workloads(comparisons, |comparison| comparison.verdict == Some(Answer::Fail) && comparison.stage == 1)
}

/// Comparisons that more samples may settle: judged ones that are neutral with an interval. Ids of workloads. Against
/// earlier days more launches of today say little: that interval is about days.
pub fn undecided(comparisons: &[Comparison]) -> Vec<String> {
    workloads(comparisons, |comparison| {
        comparison.verdict == Some(Answer::Neutral)
            && comparison.stage == 1
            && comparison.interval.is_some()
            && comparison.against != Against::Baseline
    })
}

fn workloads(comparisons: &[Comparison], wanted: impl Fn(&Comparison) -> bool) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for comparison in comparisons.iter().filter(|comparison| wanted(comparison)) {
        if !found.contains(&comparison.workload) {
            found.push(comparison.workload.clone());
        }
    }
    found
}

/// Every comparison of the case, without rules: what a session asks between launches. A backend that computes something
/// else on a workload has no speed there.
pub fn comparisons(case: &Case<'_>) -> Vec<Comparison> {
    let mut found = measured(case);
    for comparison in &mut found {
        let differs = case.recording.agreements.iter().find(|row| {
            row.workload == comparison.workload
                && (row.backend == comparison.subject || row.backend == comparison.other)
                && !row.holds()
        });
        if let Some(row) = differs {
            comparison.verdict = comparison.verdict.map(|_| Answer::Neutral);
            comparison.certainty = Certainty::Inconclusive;
            comparison.reason = format!("void: {} disagrees with the oracle here", row.backend);
        }
    }
    found
}

fn measured(case: &Case<'_>) -> Vec<Comparison> {
    let Case { recording, baseline, policy, .. } = *case;
    let subject = required_subject(recording, policy);
    match baseline {
        Baseline::Revision { .. } => {
            let setting = Setting::new(recording, &[], policy);
            compare::with_revision(&setting)
        }
        Baseline::Sessions { sessions, void, .. } => {
            let comparable = if void.is_none() { *sessions } else { &[] };
            let setting = Setting::new(recording, comparable, policy);
            let reference = compare::with_reference(&setting, subject);
            [reference, history::with_sessions(&setting, sessions, void.as_deref(), subject)].concat()
        }
        Baseline::NotAsked | Baseline::Missing { .. } => {
            compare::with_reference(&Setting::new(recording, &[], policy), subject)
        }
    }
}

fn answers(
    case: &Case<'_>,
    comparisons: &[Comparison],
    agreement: &AgreementSummary,
    completeness: RuleAnswer,
) -> Vec<RuleAnswer> {
    let Case { recording, baseline, policy, .. } = *case;
    if roles::of_builds(recording) {
        return vec![rules::build_time(baseline, comparisons), completeness];
    }
    let revision = matches!(baseline, Baseline::Revision { .. });
    let mut answers = vec![rules::agreement(agreement)];
    if !revision {
        answers.push(rules::accuracy(recording, policy));
    }
    if timed(recording) && !revision {
        answers.push(rules::reference_speed(recording, comparisons));
    } else if roles::counts_instructions(recording) && !revision {
        answers.push(rules::speed_not_judged());
    }
    let setting = Setting::new(recording, &[], policy);
    answers.push(rules::regression(baseline, comparisons, policy, setting.noise()));
    if timed(recording) && !revision {
        answers.push(rules::simd_ahead(&setting, required_subject(recording, policy)));
        answers.push(efficiency::rule(recording, baseline, policy, required_subject(recording, policy)));
        answers.push(rules::gpu_ahead(&setting, required_subject(recording, policy)));
        answers.push(rules::memory(recording, baseline, policy));
    }
    if timed(recording) && revision {
        answers.push(efficiency::plausible(recording, policy));
    }
    answers.push(completeness);
    answers
}

/// Whether speed was to be measured; counts and agreement alone are not speed.
fn timed(recording: &Recording) -> bool {
    recording.plan.launches > 0 && !roles::counts_instructions(recording)
}

/// fail > neutral > pass, and a pass needs at least one rule that was answered.
fn overall(rules: &[RuleAnswer]) -> Answer {
    rules.iter().filter_map(|rule| rule.verdict).max().unwrap_or(Answer::Neutral)
}

fn summary(verdict: Answer, rules: &[RuleAnswer], case: &Case<'_>) -> String {
    let scope = match case.baseline {
        _ if case.recording.plan.launches == 0 => {
            "Agreement and accuracy only: nothing was timed.".to_owned()
        }
        Baseline::NotAsked if roles::counts_instructions(case.recording) => {
            "Instructions were counted, nothing was timed, and no baseline was given: no regression was judged.".to_owned()
        }
        Baseline::NotAsked => "No baseline given: no regression was judged.".to_owned(),
        Baseline::Missing { .. } => "There is no baseline: no regression was judged.".to_owned(),
        Baseline::Sessions { name, sessions, .. } => {
            format!("Compared with {} accepted recordings of {name}.", sessions.len())
        }
        Baseline::Revision { name } => format!("Compared with {name}, measured in the same blocks."),
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
    case: &Case<'_>,
    verdict: Answer,
    rules: &[RuleAnswer],
    agreement: &AgreementSummary,
    comparisons: &[Comparison],
    parity: Option<f64>,
) -> String {
    let recording = case.recording;
    let against = case.baseline.name().map(|name| format!(", against {name}")).unwrap_or_default();
    let method = format!("bitnet_perfgate {}, seed {}{against}", suite(recording), recording.plan.seed);
    let mut result = match roles::of_builds(recording) {
        true => Vec::new(),
        false => vec![format!("agreement {}", agreement.said())],
    };
    let kinds = [
        (Against::Reference, "C++"),
        (Against::Baseline, "baseline"),
        (Against::Revision, "the other build"),
    ];
    result.extend(kinds.into_iter().filter_map(|(against, name)| speeds(comparisons, against, name)));
    result.extend(parity.map(|percent| format!("crossval parity {percent:.1} %")));
    let accuracy = rules
        .iter()
        .find(|rule| rule.name == "accuracy")
        .filter(|rule| matches!(rule.verdict, Some(Answer::Pass | Answer::Fail)));
    if result.is_empty() {
        result.push("nothing was compared".into());
    }
    result.extend(accuracy.map(|rule| format!("accuracy {}", rule.reason)));
    let deciding = rules.iter().find(|rule| rule.verdict == Some(verdict) && verdict != Answer::Pass);
    let reason =
        deciding.map_or("every rule holds".to_owned(), |rule| format!("{}: {}", rule.name, rule.reason));
    let part = |text: &str| text.replace(';', ",");
    format!("method: {}; result: {}; reason: {}", part(&method), part(&result.join(", ")), part(&reason))
}

/// 100 times the geometric mean of reference time over subject time, over the required inference workloads.
fn crossval_parity(recording: &Recording, comparisons: &[Comparison]) -> Option<f64> {
    let inference = |id: &str| {
        recording.plan.workloads.iter().any(|planned| planned.id == id && planned.category == "inference")
    };
    let logs: Vec<f64> = comparisons
        .iter()
        .filter(|c| c.required && c.against == Against::Reference && c.meter == Meter::WallNs)
        .filter(|c| inference(&c.workload))
        .filter_map(|c| c.ratio.map(f64::ln))
        .collect();
    (!logs.is_empty()).then(|| 100.0 * (-logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// Geometric mean and worst of the judged time ratios of one kind.
fn speeds(comparisons: &[Comparison], against: Against, name: &str) -> Option<String> {
    let of_kind = comparisons.iter().filter(|c| c.against == against);
    let judged: Vec<f64> = of_kind.filter(|c| c.verdict.is_some()).filter_map(|c| c.ratio).collect();
    let worst = judged.iter().copied().reduce(f64::max)?;
    let mean = (judged.iter().map(|ratio| ratio.ln()).sum::<f64>() / judged.len() as f64).exp();
    let what =
        if comparisons.iter().any(|c| c.meter == Meter::Instructions) { "instructions" } else { "time" };
    Some(format!("{what} against {name} {mean:.3} (geometric mean of {}), worst {worst:.3}", judged.len()))
}

/// Which workloads: `28 workloads of the quick profile`, or `2 of the 28 ...` where they were chosen.
fn suite(recording: &Recording) -> String {
    let (plan, n) = (&recording.plan, recording.plan.workloads.len() as u64);
    if roles::of_builds(recording) {
        return format!("{} builds with cargo", recording.launches.len() as u64 * n);
    }
    match plan.profile_workloads {
        0 => format!("{n} workloads over the tensors of a file"),
        all if all == n => format!("{n} workloads of the {} profile", plan.profile),
        all => format!("{n} of the {all} workloads of the {} profile", plan.profile),
    }
}

/// Beyond this smallest detectable slow-down (ratio - 1) a machine is no place for a verdict on time.
const BLIND: f64 = 0.15;

/// What to do where slow-downs that matter could not have been seen.
fn blind(comparisons: &[Comparison]) -> Option<String> {
    let undecided = comparisons.iter().filter(|c| c.verdict == Some(Answer::Neutral) && c.mde.is_some());
    let worst = undecided.max_by(|a, b| a.mde.unwrap_or(0.0).total_cmp(&b.mde.unwrap_or(0.0)))?;
    let mde = worst.mde.filter(|mde| *mde > BLIND)?;
    let limit = worst.limit?;
    // Half widths shrink with the root of the launches.
    let (now, wanted) = (mde.ln_1p() - limit.ln(), (limit * (1.0 + BLIND)).ln() - limit.ln());
    let launches = (worst.n_launches as f64 * (now / wanted).powi(2)).ceil();
    Some(format!(
        "no verdict on time is possible here: on {} only slow-downs beyond {:.0} % would have been found; about {launches:.0} launches, --counts cpu, --counts instructions or another machine would do",
        worst.workload,
        mde * 100.0
    ))
}

/// What might help. Nothing is applied.
fn suggestions(recording: &Recording, rules: &[RuleAnswer], comparisons: &[Comparison]) -> Vec<String> {
    let mut found = Vec::new();
    if rules.iter().any(|rule| rule.name == "regression" && rule.verdict == Some(Answer::Fail)) {
        found.push(
            "cargo clippy --fix finds needless copies and bounds checks; nothing is applied by the gate"
                .into(),
        );
    }
    found.extend(blind(comparisons));
    let disturbed: Vec<f64> = recording
        .launches
        .iter()
        .filter_map(|launch| launch.disturbance.filter(|share| *share >= 0.10))
        .collect();
    if let Some(worst) = disturbed.iter().copied().reduce(f64::max) {
        found.push(format!(
            "{} of {} launches were disturbed by other work, up to {:.0} % of their samples: close other programs, raise --iterations, or use --counts instructions",
            disturbed.len(),
            recording.launches.len(),
            worst * 100.0
        ));
    }
    let unoptimised =
        recording.skipped.iter().filter(|skipped| skipped.reason.contains("optimisation level"));
    found.extend(unoptimised.map(|skipped| format!("{}: build with --release", skipped.what)));
    // Most CPUs lack the newest kernels' instructions, and nothing is lost by it while others run beside the oracle.
    let oracle_alone =
        recording.plan.backends.iter().filter(|backend| backend.name.starts_with("rust-")).count() <= 1;
    let slow_target = recording
        .skipped
        .iter()
        .filter(|_| oracle_alone)
        .find(|skipped| skipped.what.starts_with("rust-") && skipped.reason.contains("this CPU"));
    found.extend(slow_target.map(|skipped| {
        format!(
            "{} cannot run here ({}): a lost target feature makes everything slower",
            skipped.what, skipped.reason
        )
    }));
    found
}
