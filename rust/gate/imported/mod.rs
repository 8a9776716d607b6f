//! Two recordings of other tools: the same benchmark then and now, taken one after the other and never interleaved.
//!
//! `pair` says what is judged of one benchmark. What looks made up, failed, or was measured on another machine decides
//! nothing.

mod pair;

use super::Baseline;
use super::policy::Policy;
use super::verdict::{
    Against, AgreementSummary, Answer, Certainty, Comparison, PolicySource, RuleAnswer, SCHEMA, Validation,
    Verdict,
};
use super::{route, rules, validate};
use crate::record::{ImportedBenchmark, Meter, Origin, Recording, Series};
use std::collections::{BTreeMap, BTreeSet};

/// What stands in place of the other side's name.
const EARLIER: &str = "earlier";

/// Two imported recordings and how they are judged.
#[derive(Clone, Copy, Debug)]
pub struct ImportedCase<'a> {
    /// Then.
    pub earlier: &'a Recording,
    /// Now.
    pub later: &'a Recording,
    /// Names (or ids) of then and now that measure the same thing, besides those that are equal.
    pub map: &'a [(String, String)],
    /// The caller vouches that one machine measured both, where the files do not say.
    pub same_machine: bool,
    /// Every number.
    pub policy: &'a Policy,
    /// Where it came from.
    pub policy_source: &'a str,
}

/// Why two recordings cannot be judged in this way at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportedError {
    /// One was imported, one was not.
    #[error(
        "the {which} recording was measured by this tool, the other one imported: interleaved and foreign samples are not compared"
    )]
    Native {
        /// `earlier`, `later`.
        which: &'static str,
    },
    /// A name of the map.
    #[error("--map {pair}: no benchmark of the {which} recording is called {name:?}")]
    NoSuchName {
        /// As it was given.
        pair: String,
        /// `earlier`, `later`.
        which: &'static str,
        /// The name.
        name: String,
    },
}

/// A benchmark that both sides have; an explicit pair may differ in its settings.
struct Pair<'a> {
    then: &'a str,
    now: &'a str,
    named: bool,
}

/// Judges the later recording.
///
/// # Errors
/// [`ImportedError`].
pub fn judge_imported(case: &ImportedCase<'_>) -> Result<Verdict, ImportedError> {
    let native = |which| ImportedError::Native { which };
    let then = case.earlier.origin.as_ref().ok_or_else(|| native("earlier"))?;
    let now = case.later.origin.as_ref().ok_or_else(|| native("later"))?;
    let pairs = pairs(case, then, now)?;
    let void = different_machine(case, then, now);
    let unknown = void.is_none() && !case.same_machine && shared_facts(case, then, now).is_empty();
    let side = |recording, origin| Side { recording, origin };
    let (then, now) = (side(case.earlier, then), side(case.later, now));
    let comparisons: Vec<Comparison> = pairs
        .iter()
        .map(|pair| match &void {
            Some(why) => undecided(blank(case, &now, pair), format!("not comparable: {why}")),
            None => hold_back(pair::compared(case, &then, &now, pair), unknown),
        })
        .collect();
    let validation = conditions(case, &then, &now, &pairs, void.as_deref(), unknown);
    Ok(document(case, &then, &now, comparisons, validation))
}

struct Side<'a> {
    recording: &'a Recording,
    origin: &'a Origin,
}

impl<'a> Side<'a> {
    fn series(&self, id: &str, meter: &Meter) -> Option<&'a Series> {
        self.recording.series.iter().find(|series| series.workload == id && series.meter == *meter)
    }

    /// Series of the first meter that is not CPU time: what was measured.
    fn main_series(&self, id: &str) -> Option<&'a Series> {
        let own = |series: &&Series| series.workload == id && series.meter != Meter::ThreadCpuNs;
        self.recording.series.iter().find(own)
    }

    fn benchmark(&self, id: &str) -> Option<&'a ImportedBenchmark> {
        self.origin.benchmarks.get(id)
    }

    fn skipped(&self, id: &str) -> Option<&'a str> {
        super::roles::skipped_reason(self.recording, id)
    }
}

/// The name behind the tool's prefix.
fn bare(id: &str) -> &str {
    id.split_once(':').map_or(id, |(_, name)| name)
}

/// Every benchmark of a recording: planned ones, whether or not they gave a result.
fn ids(recording: &Recording) -> Vec<&str> {
    recording.plan.workloads.iter().map(|planned| planned.id.as_str()).collect()
}

fn pairs<'a>(case: &ImportedCase<'a>, then: &Origin, now: &Origin) -> Result<Vec<Pair<'a>>, ImportedError> {
    let (old, new) = (ids(case.earlier), ids(case.later));
    let find = |known: &[&'a str], name: &str| {
        known
            .iter()
            .copied()
            .find(|id| *id == name)
            .or_else(|| known.iter().copied().find(|id| bare(id) == name))
    };
    let mut found = Vec::new();
    for (left, right) in case.map {
        let missing = |which, name: &str| ImportedError::NoSuchName {
            pair: format!("{left}={right}"),
            which,
            name: name.to_owned(),
        };
        let then = find(&old, left).ok_or_else(|| missing(EARLIER, left))?;
        let now = find(&new, right).ok_or_else(|| missing("later", right))?;
        found.push(Pair { then, now, named: true });
    }
    let taken: BTreeSet<&str> = found.iter().map(|pair| pair.now).collect();
    let by_id: BTreeSet<&str> = old.iter().copied().collect();
    // Another tool has another prefix: there the names must be equal.
    let by_name: BTreeMap<&str, &str> =
        if then.tool == now.tool { BTreeMap::new() } else { old.iter().map(|id| (bare(id), *id)).collect() };
    let equal = |now: &&'a str| {
        let then = by_id.get(*now).copied().or_else(|| by_name.get(bare(now)).copied())?;
        Some(Pair { then, now, named: false })
    };
    found.extend(new.iter().filter(|id| !taken.contains(**id)).filter_map(equal));
    Ok(found)
}

/// Facts about the machine that both recordings state: (field, then, now).
fn shared_facts(case: &ImportedCase<'_>, then: &Origin, now: &Origin) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    if then.tool == now.tool {
        for (field, was) in &then.machine {
            found.extend(now.machine.get(field).map(|is| (field.clone(), was.clone(), is.clone())));
        }
    }
    let (old, new) = (&case.earlier.fingerprint, &case.later.fingerprint);
    let cores = |cores: u32| if cores == 0 { String::new() } else { cores.to_string() };
    let own = [
        ("os", old.os.clone(), new.os.clone()),
        ("arch", old.arch.clone(), new.arch.clone()),
        ("cpu_model", old.cpu_model.clone(), new.cpu_model.clone()),
        ("cores", cores(old.cores), cores(new.cores)),
        ("gpu", old.gpu.clone().unwrap_or_default(), new.gpu.clone().unwrap_or_default()),
    ];
    let known = own.into_iter().filter(|(_, was, is)| !was.is_empty() && !is.is_empty());
    found.extend(known.map(|(field, was, is)| (field.to_owned(), was, is)));
    found
}

/// Names of machines, which containers draw anew: the caller may vouch for what is behind them.
const HOST_NAMES: [&str; 2] = ["context.host_name", "machine_info.node"];

fn different_machine(case: &ImportedCase<'_>, then: &Origin, now: &Origin) -> Option<String> {
    let vouched = |field: &str| case.same_machine && HOST_NAMES.contains(&field);
    let facts = shared_facts(case, then, now).into_iter();
    let differs = facts.filter(|(field, was, is)| was != is && !vouched(field));
    let fields: Vec<String> =
        differs.map(|(field, was, is)| format!("{field} was {was:?} and is {is:?}")).collect();
    (!fields.is_empty()).then(|| fields.join(", "))
}

fn blank(case: &ImportedCase<'_>, now: &Side<'_>, pair: &Pair<'_>) -> Comparison {
    let limit = case.policy.change_limit(&case.policy.severity, "core");
    Comparison {
        workload: pair.now.to_owned(),
        subject: now.origin.tool.clone(),
        against: Against::Baseline,
        other: EARLIER.to_owned(),
        meter: now.main_series(pair.now).map_or(Meter::WallNs, |series| series.meter.clone()),
        required: true,
        verdict: Some(Answer::Neutral),
        ratio: None,
        raw_ratio: None,
        interval: None,
        limit: Some(limit),
        certainty: Certainty::Inconclusive,
        severity: None,
        mde: None,
        subject_ns: None,
        other_ns: None,
        n_blocks: 0,
        n_launches: 0,
        n_baselines: 1,
        stage: 1,
        first_stage: None,
        reason: String::new(),
    }
}

fn undecided(mut comparison: Comparison, reason: String) -> Comparison {
    (comparison.verdict, comparison.certainty) = (Some(Answer::Neutral), Certainty::Inconclusive);
    comparison.reason = reason;
    comparison
}

/// On an unknown machine nothing passes: a faster machine hides a slower program.
fn hold_back(comparison: Comparison, unknown_machine: bool) -> Comparison {
    if !unknown_machine || comparison.verdict != Some(Answer::Pass) {
        return comparison;
    }
    let reason = format!("{}; but {UNKNOWN_MACHINE}", comparison.reason);
    undecided(comparison, reason)
}

const UNKNOWN_MACHINE: &str =
    "the files do not both say on which machine they were measured: --same-machine vouches for it";

fn conditions(
    case: &ImportedCase<'_>,
    then: &Side<'_>,
    now: &Side<'_>,
    pairs: &[Pair<'_>],
    void: Option<&str>,
    unknown: bool,
) -> Vec<Validation> {
    let condition = |name: &str, problem: Option<String>, fine: String| Validation {
        name: name.into(),
        ok: problem.is_none(),
        reason: problem.unwrap_or(fine),
    };
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = pairs.iter().map(|pair| (pair.then, pair.now)).unzip();
    let vanished: Vec<&str> = ids(case.earlier).into_iter().filter(|id| !old.contains(id)).collect();
    let appeared = ids(case.later).into_iter().filter(|id| !new.contains(id)).count();
    let vanished = vanished.first().map(|first| {
        format!(
            "{} benchmarks of the earlier recording are not in the later one; first {first}",
            vanished.len()
        )
    });
    let suspects = [then, now].into_iter().flat_map(|side| &side.origin.benchmarks);
    let suspect = suspects.filter_map(|(id, known)| Some((id, known.suspect.as_ref()?))).next();
    let unknown = unknown.then(|| UNKNOWN_MACHINE.to_owned());
    let vouched = if case.same_machine {
        "one machine, as the caller vouches"
    } else {
        "one machine, as far as the files say"
    };
    // A row about the whole, such as base against new, is no benchmark of its own.
    let whole = now.recording.skipped.iter().find(|row| !ids(now.recording).contains(&row.what.as_str()));
    vec![
        condition(
            "empty-suite",
            pairs
                .is_empty()
                .then(|| "no benchmark is in both recordings; --map THEN=NOW pairs them by name".into()),
            format!("{} benchmarks are in both, {appeared} only in the later one", pairs.len()),
        ),
        condition("expected-workloads", vanished, "no benchmark of the earlier recording is missing".into()),
        condition("machine", void.map(|why| format!("not comparable: {why}")).or(unknown), vouched.into()),
        condition(
            "synthetic",
            suspect.map(|(id, why)| format!("{id} is suspect: {why}")),
            "no sample looks made up".into(),
        ),
        condition(
            "two-runs",
            whole.map(|row| format!("{}: {}", row.what, row.reason)),
            "nothing says that both are one run".into(),
        ),
    ]
}

fn document(
    case: &ImportedCase<'_>,
    then: &Side<'_>,
    now: &Side<'_>,
    comparisons: Vec<Comparison>,
    validation: Vec<Validation>,
) -> Verdict {
    let agreement = RuleAnswer {
        name: "agreement".into(),
        verdict: None,
        reason: "another tool's times say nothing of results".into(),
    };
    let regression = rules::sum_up("regression", comparisons.iter(), "no benchmark is in both recordings");
    let answers = vec![agreement, regression, validate::completeness(&validation)];
    let verdict = answers.iter().filter_map(|rule| rule.verdict).max().unwrap_or(Answer::Neutral);
    let deciding = answers.iter().find(|rule| rule.verdict == Some(verdict));
    let reason = match (verdict, deciding) {
        (Answer::Pass, _) => "every rule holds".to_owned(),
        (_, Some(rule)) => format!("{}: {}", rule.name, rule.reason),
        (_, None) => "there is no evidence".to_owned(),
    };
    let names = |side: &Side<'_>| format!("{} ({})", side.origin.files.join(" "), side.origin.tool);
    let part = |text: &str| text.replace(';', ",");
    let ratios: Vec<f64> = comparisons.iter().filter_map(|comparison| comparison.ratio).collect();
    let worst = ratios.iter().copied().reduce(f64::max);
    let result = match worst {
        Some(worst) => {
            format!("{} of {} benchmarks have a ratio, worst {worst:.3}", ratios.len(), comparisons.len())
        }
        None => format!("none of {} benchmarks has a ratio", comparisons.len()),
    };
    let method = format!("unpaired comparison of imported results, {} against {}", names(now), names(then));
    Verdict {
        schema: SCHEMA.into(),
        verdict,
        summary: format!("{reason}. Imported results, never interleaved."),
        evidence: format!("method: {}; result: {}; reason: {}", part(&method), part(&result), part(&reason)),
        required: Vec::new(),
        skipped: case.later.skipped.clone(),
        route: route::route(verdict, &answers, &comparisons, &Baseline::NotAsked, RETRY),
        comparisons,
        rules: answers,
        agreement: AgreementSummary::default(),
        accuracy: Vec::new(),
        efficiencies: Vec::new(),
        validation,
        power: None,
        suggestions: Vec::new(),
        commands: Vec::new(),
        recording: None,
        baseline: Some(then.origin.files.join(" ")),
        policy: PolicySource::of(case.policy, case.policy_source),
        crossval_parity_percent: None,
    }
}

/// What would settle it: sides that take turns.
const RETRY: &str = "python -m bitnet_perfgate compare --trial FILE.json";
