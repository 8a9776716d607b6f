//! The report as data: the sections that every rendering shows, in their order.
//!
//! Numbers come from the recording and the verdict alone. What was not measured is said as `not measured (reason)`,
//! with the reason the recording or the verdict gives.

mod native;

use super::quantity::{Quantity, ceiling, number, percent};
use crate::gate::Verdict;
use crate::gate::verdict::{Against, Answer, Comparison, Efficiency, RuleAnswer};
use crate::record::{AgreementRow, Meter, Recording, Work};
use serde::Serialize;

/// The title of every report.
pub const TITLE: &str = "BitNet.rs Performance Regression Analysis";

/// Why a share of a ceiling can be more than all of it.
const BEYOND: &str =
    "the ceiling was measured in a worse moment, or part of the weights lay in a nearer cache";

/// How many parts that were left out for one reason are all named.
const NAMED_TOGETHER: usize = 3;

/// A named statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is about.
    pub name: String,
    /// What is said.
    pub text: String,
}

/// One row of the benchmark results matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MatrixRow {
    /// A workload and whom it is compared with.
    pub component: String,
    /// Cargo features of the sides: `cpu`, `cpu,ffi`, `gpu`.
    pub features: String,
    /// The other side.
    pub baseline: String,
    /// The subject.
    pub current: String,
    /// The paired change, with its interval.
    pub delta: String,
    /// `PASS`, `FAIL`, `NEUTRAL`, `SKIPPED`.
    pub status: &'static str,
    /// Why.
    pub reason: String,
}

/// Everything a report says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`TITLE`].
    pub title: &'static str,
    /// `PASS`, `FAIL`, `NEUTRAL`.
    pub decision: String,
    /// The evidence line.
    pub evidence: String,
    /// One sentence.
    pub summary: String,
    /// Where and with what it was measured.
    pub setting: Vec<Item>,
    /// Neural Network Performance Summary.
    pub performance: Vec<Item>,
    /// Benchmark Results Matrix.
    pub matrix: Vec<MatrixRow>,
    /// How to read it, and what is not in it.
    pub matrix_notes: Vec<String>,
    /// Commands Executed; empty where none was recorded.
    pub commands: Vec<String>,
    /// Performance Analysis.
    pub analysis: Vec<Item>,
    /// Cross-Validation Status.
    pub crossval: Vec<Item>,
    /// Next Steps & Routing.
    pub next: Vec<Item>,
}

/// Makes the report of a recording and the verdict on it.
pub fn report(recording: &Recording, verdict: &Verdict) -> Report {
    let view = View { recording, verdict };
    Report {
        title: TITLE,
        decision: verdict.verdict.name().to_uppercase(),
        evidence: verdict.evidence.clone(),
        summary: verdict.summary.clone(),
        setting: view.setting(),
        performance: view.performance(),
        matrix: view.matrix(),
        matrix_notes: view.matrix_notes(),
        commands: verdict.commands.clone(),
        analysis: view.analysis(),
        crossval: view.crossval(),
        next: view.next(),
    }
}

fn item(name: &str, text: impl Into<String>) -> Item {
    Item { name: name.into(), text: text.into() }
}

fn not_measured(reason: &str) -> String {
    format!("not measured ({reason})")
}

/// Cargo feature that brings a backend.
pub fn feature_of(backend: &str) -> &'static str {
    match backend.split('-').next().unwrap_or_default() {
        "rust" => "cpu",
        "cpp" => "ffi",
        "cuda" => "gpu",
        "wasm" | "wasm32" => "wasm",
        _ => "plugin",
    }
}

struct View<'a> {
    recording: &'a Recording,
    verdict: &'a Verdict,
}

impl<'a> View<'a> {
    fn setting(&self) -> Vec<Item> {
        let (tool, machine, plan) = (&self.recording.tool, &self.recording.fingerprint, &self.recording.plan);
        let git = if tool.git.is_empty() { String::new() } else { format!(" ({})", tool.git) };
        let cpu = if machine.cpu_model.is_empty() { "unknown CPU" } else { &machine.cpu_model };
        let mut found = vec![
            item("Tool", format!("bitnet_perfgate {}{git}", tool.version)),
            item("Machine", format!("{cpu}, {} CPUs, {}-{}", machine.cores, machine.os, machine.arch)),
            item(
                "Measured",
                format!("{}, {} profile, seed {}", self.recording.created, plan.profile, plan.seed),
            ),
            item("Policy", format!("{} ({})", self.verdict.policy.source, self.verdict.policy.hash)),
        ];
        if let Some(why) = &self.recording.incomplete {
            found.push(item("Incomplete", format!("{why}: only what was measured until then")));
        }
        found
    }

    fn rule(&self, name: &str) -> Option<&'a RuleAnswer> {
        self.verdict.rules.iter().find(|rule| rule.name == name)
    }

    /// What a rule found, with its answer.
    fn rule_text(&self, name: &str) -> Option<String> {
        let rule = self.rule(name)?;
        Some(match rule.verdict {
            Some(answer) => format!("{} ({})", rule.reason, answer.name()),
            None => not_measured(&rule.reason),
        })
    }

    /// Why a part was left out, as the recording says it.
    fn why_skipped(&self, what: &str) -> Option<&'a str> {
        self.verdict.skipped.iter().find(|row| row.what == what).map(|row| row.reason.as_str())
    }

    fn no_gpu(&self) -> String {
        not_measured(self.why_skipped("cuda").unwrap_or("no GPU backend took part"))
    }

    fn planned(&self, workload: &str) -> Option<(&'a str, &'a Work)> {
        let planned = self.recording.plan.workloads.iter().find(|planned| planned.id == workload)?;
        Some((planned.category.as_str(), &planned.work))
    }

    fn is_category(&self, comparison: &Comparison, category: &str) -> bool {
        self.planned(&comparison.workload).is_some_and(|(name, _)| name == category)
    }

    /// Comparisons that the verdict depends on.
    fn judged(&self) -> impl Iterator<Item = &'a Comparison> + use<'a> {
        self.verdict.comparisons.iter().filter(|comparison| comparison.verdict.is_some())
    }

    fn quantity(&self, comparison: &Comparison) -> Quantity {
        let none = Work::default();
        let work = self.planned(&comparison.workload).map_or(&none, |(_, work)| work);
        Quantity::of(&comparison.workload, work, comparison.subject_ns.or(comparison.other_ns))
    }

    /// Current and other value, and the change between them, of the comparisons of a category.
    fn values_of(&self, category: &str, missing: &str) -> String {
        let of_category = |c: &&Comparison| {
            c.required && c.meter == Meter::WallNs && self.is_category(c, category) && c.subject_ns.is_some()
        };
        let all: Vec<&Comparison> = self.verdict.comparisons.iter().filter(of_category).collect();
        let earlier = |c: &&&Comparison| c.against != Against::Reference;
        let chosen: Vec<&&Comparison> = match all.iter().filter(earlier).count() {
            0 => all.iter().collect(),
            _ => all.iter().filter(earlier).collect(),
        };
        let lines: Vec<String> = chosen.into_iter().map(|comparison| self.value(comparison)).collect();
        if lines.is_empty() { not_measured(missing) } else { lines.join("; ") }
    }

    fn value(&self, comparison: &Comparison) -> String {
        let quantity = self.quantity(comparison);
        let text = |ns: Option<f64>| ns.map_or("not measured".into(), |ns| quantity.text(ns));
        let change = comparison.ratio.map_or("not measured".into(), |ratio| percent(quantity.change(ratio)));
        let other = match comparison.against {
            Against::Reference => comparison.other.as_str(),
            Against::Baseline => "baseline",
            Against::Revision => "the other build",
        };
        format!(
            "{} {} ({other}: {}, Δ {change})",
            comparison.workload,
            text(comparison.subject_ns),
            text(comparison.other_ns)
        )
    }

    fn performance(&self) -> Vec<Item> {
        let inference = self.values_of("inference", "no inference workload was part of this run");
        let parity = match self.verdict.crossval_parity_percent {
            Some(percent) => format!(
                "Rust vs C++ parity {percent:.1}% (geometric mean of reference time over subject time, inference workloads)"
            ),
            None => format!(
                "Rust vs C++ parity {}",
                not_measured("no inference workload was timed against the C++ reference")
            ),
        };
        let mut found = vec![
            item("Inference Throughput", inference),
            item("Quantization Accuracy", self.accuracy()),
            item("Cross-Validation", format!("{parity}; agreement {}", self.agreement())),
            item("GPU Acceleration", self.gpu_speed()),
            item("SIMD Efficiency", self.simd()),
        ];
        let mixed = self.values_of("mixed_precision", "no mixed-precision workload was part of this run");
        found.push(item("Mixed Precision", mixed));
        found.extend(self.native_arithmetic().map(|text| item("Mixed Precision, native arithmetic", text)));
        found
    }

    fn agreement(&self) -> String {
        let agreement = &self.verdict.agreement;
        match agreement.n {
            0 => not_measured("nothing was compared with the oracle"),
            _ => agreement.said(),
        }
    }

    /// Lowest gated accuracy of each format over all backends.
    fn accuracy(&self) -> String {
        let mut lowest: Vec<(&str, f64, &str)> = Vec::new();
        for row in &self.verdict.accuracy {
            let mut parts = row.workload.split('/');
            let (Some("accuracy"), Some(format), true) =
                (parts.next(), parts.next(), row.workload.ends_with("/gated"))
            else {
                continue;
            };
            match lowest.iter_mut().find(|(name, ..)| *name == format) {
                None => lowest.push((format, row.accuracy_percent, &row.backend)),
                Some(known) if row.accuracy_percent < known.1 => {
                    (known.1, known.2) = (row.accuracy_percent, &row.backend);
                }
                Some(_) => {}
            }
        }
        let rule = self.rule("accuracy");
        if lowest.is_empty() {
            let why = rule.map_or("accuracy is not part of this comparison", |rule| rule.reason.as_str());
            return not_measured(why);
        }
        let values: Vec<String> = lowest
            .iter()
            .map(|(format, percent, backend)| format!("{} {percent:.4}% ({backend})", format.to_uppercase()))
            .collect();
        let answer = match rule.and_then(|rule| rule.verdict) {
            Some(Answer::Pass) => "all ≥ thresholds".to_owned(),
            Some(answer) => {
                format!("{}: {}", answer.name(), rule.map_or("", |rule| rule.reason.as_str()))
            }
            None => "not judged".to_owned(),
        };
        format!("{}; {answer}", values.join(", "))
    }

    fn gpu_speed(&self) -> String {
        let timed = self.verdict.comparisons.iter().any(|c| c.subject == "cuda" && c.subject_ns.is_some());
        if timed { self.values_of("gpu", "no comparison with the best CPU backend") } else { self.no_gpu() }
    }

    fn simd(&self) -> String {
        let ahead = self.rule_text("simd-ahead-of-scalar");
        let ahead = ahead.unwrap_or_else(|| not_measured("nothing was timed against rust-scalar"));
        let mut parts = vec![format!("share of the machine's ceilings {}", self.share_of_ceilings()), ahead];
        parts.extend(self.rule("simd-efficiency").map(|rule| match rule.verdict {
            Some(answer) => format!("{} ({})", rule.reason, answer.name()),
            None => format!("a fall by a class is not judged ({})", rule.reason),
        }));
        parts.join("; ")
    }

    /// Least and most of what the subject reaches of the ceilings that bind.
    fn share_of_ceilings(&self) -> String {
        if self.recording.ceilings.is_empty() {
            return not_measured("the recording holds no measured ceilings of this machine");
        }
        let subject = self.verdict.required.iter().find(|name| name.starts_with("rust-"));
        let mut rows: Vec<&Efficiency> =
            self.verdict.efficiencies.iter().filter(|row| Some(&row.backend) == subject).collect();
        rows.sort_by(|a, b| a.share.total_cmp(&b.share));
        let (Some(least), Some(most)) = (rows.first(), rows.last()) else {
            return not_measured("no product of the subject has both a time and its ceilings");
        };
        let beyond = match rows.iter().filter(|row| row.share > 1.0).count() {
            0 => String::new(),
            n => format!("; {n} beyond 100%: {BEYOND}"),
        };
        format!(
            "{}: {:.0}% to {:.0}% of the ceiling that binds on {} products, least {} ({:.0}% of {}){beyond}",
            least.backend,
            least.share * 100.0,
            most.share * 100.0,
            rows.len(),
            least.workload,
            least.share * 100.0,
            ceiling(&least.binds).0
        )
    }

    /// Every measured ceiling.
    fn ceilings(&self) -> Option<Item> {
        let setting = self.recording.ceiling_setting.as_ref()?;
        let one = |(name, value): (&String, &f64)| {
            let (name, unit) = ceiling(name);
            format!("{name} {} {unit}", number(*value))
        };
        let all: Vec<String> = self.recording.ceilings.iter().map(one).collect();
        let how = format!("the fastest of {} short repetitions each", setting.repetitions);
        Some(item("Ceilings of the machine", format!("{how}: {}", all.join(", "))))
    }

    /// What share of which ceiling a subject reaches on a workload, in words behind its value; empty where not measured.
    fn share(&self, comparison: &Comparison) -> String {
        let of = |row: &&Efficiency| row.workload == comparison.workload && row.backend == comparison.subject;
        let row = self.verdict.efficiencies.iter().find(of);
        row.map_or(String::new(), |row| format!(", {:.0}% of {}", row.share * 100.0, ceiling(&row.binds).0))
    }

    fn matrix(&self) -> Vec<MatrixRow> {
        let mut rows: Vec<MatrixRow> = self
            .verdict
            .agreement
            .failures
            .iter()
            .map(|row| MatrixRow {
                component: format!("{} on {}", row.workload, row.backend),
                features: feature_of(&row.backend).into(),
                baseline: "oracle rust-scalar".into(),
                current: format!("{} of {} values differ", row.mismatches, row.compared),
                delta: not_measured("a disagreement voids the speed"),
                status: "FAIL",
                reason: row.cause.clone().unwrap_or_else(|| "cause unknown".into()),
            })
            .collect();
        let (earlier, reference): (Vec<_>, Vec<_>) =
            self.judged().partition(|comparison| comparison.against != Against::Reference);
        rows.extend(earlier.into_iter().chain(reference).map(|comparison| self.timed_row(comparison)));
        if let Some(parity) = self.verdict.crossval_parity_percent {
            rows.push(MatrixRow {
                component: "Cross-Validation (inference, all workloads)".into(),
                features: "cpu,ffi".into(),
                baseline: "100% parity (C++ reference)".into(),
                current: format!("{parity:.1}% parity"),
                delta: percent(parity / 100.0 - 1.0),
                status: status(self.rule("reference-speed").and_then(|rule| rule.verdict)),
                reason: "geometric mean".into(),
            });
        }
        rows.extend(self.absent());
        rows
    }

    fn timed_row(&self, comparison: &Comparison) -> MatrixRow {
        let quantity = self.quantity(comparison);
        let meter = comparison.meter.name();
        let value = |ns: Option<f64>| match ns {
            Some(ns) => quantity.text(ns),
            None if comparison.meter != Meter::WallNs => {
                not_measured(&format!("wall time; {meter} were compared"))
            }
            None => not_measured(&comparison.reason),
        };
        let (features, baseline, component) = match comparison.against {
            Against::Reference => (
                format!("{},{}", feature_of(&comparison.subject), feature_of(&comparison.other)),
                format!("{} ({})", value(comparison.other_ns), comparison.other),
                format!("{} on {}, against C++", comparison.workload, comparison.subject),
            ),
            _ => (
                feature_of(&comparison.subject).to_owned(),
                value(comparison.other_ns),
                format!("{} on {}", comparison.workload, comparison.subject),
            ),
        };
        MatrixRow {
            component,
            features,
            baseline,
            current: format!("{}{}", value(comparison.subject_ns), self.share(comparison)),
            delta: delta(comparison, &quantity),
            status: status(comparison.verdict),
            reason: comparison.reason.clone(),
        }
    }

    /// Components of the source report that this run did not touch, each with the reason.
    fn absent(&self) -> Vec<MatrixRow> {
        let gpu = self.why_skipped("cuda").unwrap_or("no GPU backend took part");
        let kinds = [
            ("Inference", "inference", "cpu", "no inference workload was part of this run"),
            ("Mixed Precision", "mixed_precision", "cpu", "no mixed-precision workload was part of this run"),
            ("Build time", "build", "cpu", "no build was timed in this run"),
            ("GPU", "gpu", "gpu", gpu),
        ];
        let missing = kinds.into_iter().filter(|(_, category, ..)| {
            !self.verdict.comparisons.iter().any(|comparison| self.is_category(comparison, category))
        });
        let row = |(name, _, features, why): (&str, &str, &str, &str)| MatrixRow {
            component: name.into(),
            features: features.into(),
            baseline: not_measured(why),
            current: not_measured(why),
            delta: "-".into(),
            status: "SKIPPED",
            reason: why.into(),
        };
        missing.map(row).collect()
    }

    fn matrix_notes(&self) -> Vec<String> {
        let mut notes = vec![
            "Values are those of the typical call (median over blocks of each block's fastest call). Delta is the \
             paired estimate of the change with its interval; it need not be the quotient of the two columns."
                .to_owned(),
        ];
        let shown = self.verdict.comparisons.iter().filter(|c| c.verdict.is_none()).count();
        if shown > 0 {
            notes.push(format!("{shown} comparisons that no rule judges are not listed here."));
        }
        match &self.verdict.baseline {
            Some(name) => notes.push(format!("Judged against {name}.")),
            None => notes.push("No regression was judged: there is no baseline.".into()),
        }
        notes
    }

    fn analysis(&self) -> Vec<Item> {
        let mut found = vec![item("Statistical Significance", self.significance())];
        for name in ["regression", "reference-speed"] {
            if let Some(text) = self.rule_text(name) {
                found.push(item(if name == "regression" { "Regression" } else { "C++ rule" }, text));
            }
        }
        found.extend(self.ceilings());
        found.push(item("Memory Efficiency", self.memory()));
        let gpu = self.verdict.validation.iter().find(|condition| condition.name == "gpu-capability");
        let gpu = gpu.map_or("the GPU's presence is not stated", |condition| condition.reason.as_str());
        found.push(item("Device Compatibility", format!("{gpu}; GPU detection overhead {}", self.no_gpu())));
        found.push(item("Build Time", self.values_of("build", "no build was timed in this run")));
        let problems = self.verdict.validation.iter().filter(|condition| !condition.ok);
        found.extend(problems.map(|c| item("Evidence missing", format!("{}: {}", c.name, c.reason))));
        found.extend(self.skipped());
        found
    }

    fn significance(&self) -> String {
        let judged: Vec<&Comparison> = self.judged().collect();
        if judged.is_empty() {
            return not_measured("no comparison was judged");
        }
        let count = |answer| judged.iter().filter(|c| c.verdict == Some(answer)).count();
        let counts = format!(
            "{} comparisons judged: {} within their limit, {} undecided, {} too slow",
            judged.len(),
            count(Answer::Pass),
            count(Answer::Neutral),
            count(Answer::Fail)
        );
        let mde = judged.iter().filter_map(|c| c.mde.map(|mde| (mde, c))).max_by(|a, b| a.0.total_cmp(&b.0));
        match mde {
            Some((mde, worst)) => format!(
                "{counts}; the smallest slow-down found in 8 of 10 runs is {} at worst ({})",
                percent(mde),
                worst.workload
            ),
            None => counts,
        }
    }

    fn memory(&self) -> String {
        let whole = self.recording.memory.iter();
        let peak = whole.filter(|row| row.meter == "peak_rss_bytes" && row.workload.is_empty());
        let peak = match peak.map(|row| row.value_bytes).max() {
            Some(bytes) => format!("peak memory {} MB", number(bytes as f64 / 1e6)),
            None => format!("peak memory {}", not_measured("the recording holds no reading")),
        };
        let rule = self.rule("memory").map(|rule| format!("; {}", rule.reason)).unwrap_or_default();
        format!("{peak}{rule}{}; GPU memory {}", self.prepared(), self.no_gpu())
    }

    /// What preparing weights took beside them, where it took most, and its time.
    fn prepared(&self) -> String {
        let rows = self.recording.memory.iter().filter(|row| row.meter == "prepared_bytes");
        let Some(most) = rows.max_by_key(|row| row.value_bytes) else { return String::new() };
        let (workload, backend) = (&most.workload, &most.backend);
        let agreements = &self.recording.agreements;
        let own = agreements.iter().find(|row| row.workload == *workload && row.backend == *backend);
        let took = own.and_then(|row| row.metrics.get("prepare_ns"));
        let took = took.map_or(String::new(), |ns| format!(" in {} ms", number(ns / 1e6)));
        let bytes = number(most.value_bytes as f64 / 1e6);
        format!("; prepared beside the weights at most {bytes} MB{took} ({workload} on {backend})")
    }

    /// What was left out; parts that share a reason share a line, a few of them by name.
    fn skipped(&self) -> Vec<Item> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for row in &self.verdict.skipped {
            match groups.iter_mut().find(|(reason, _)| *reason == row.reason) {
                Some((_, what)) => what.push(&row.what),
                None => groups.push((&row.reason, vec![&row.what])),
            }
        }
        let line = |(reason, what): (&str, Vec<&str>)| {
            let named = match what.as_slice() {
                [first, rest @ ..] if what.len() > NAMED_TOGETHER => {
                    format!("{first} and {} more", rest.len())
                }
                few => few.join(", "),
            };
            item("Skipped", format!("{named}: {reason}"))
        };
        groups.into_iter().map(line).collect()
    }

    fn crossval(&self) -> Vec<Item> {
        let agreement = self.rule_text("agreement");
        let mut found = vec![item(
            "Accuracy Parity",
            agreement.unwrap_or_else(|| not_measured("nothing was compared with the oracle")),
        )];
        for row in &self.verdict.agreement.failures {
            let first = row.first_mismatch.as_ref().map_or(String::new(), |first| {
                format!(", first at {}: expected {}, got {}", first.index, first.expected, first.actual)
            });
            let cause = row.cause.as_deref().unwrap_or("cause unknown");
            let text = format!(
                "{} on {}: {} of {} values differ{first}; {cause}",
                row.workload, row.backend, row.mismatches, row.compared
            );
            found.push(item("Disagreement", text));
        }
        let speed = self.rule_text("reference-speed");
        found.push(item(
            "Performance Parity",
            speed.unwrap_or_else(|| not_measured("nothing was timed against the C++ reference")),
        ));
        found.push(item("Numerical Stability", self.stability()));
        found
    }

    fn stability(&self) -> String {
        let mixed = |row: &&AgreementRow| {
            self.planned(&row.workload).is_some_and(|(category, _)| category == "mixed_precision")
        };
        let rows: Vec<_> = self.recording.agreements.iter().filter(mixed).collect();
        match rows.len() {
            0 => not_measured("no mixed-precision workload was part of this run"),
            n => {
                let holding = rows.iter().filter(|row| row.holds()).count();
                format!("{holding} of {n} mixed-precision results are within their bounds")
            }
        }
    }

    fn next(&self) -> Vec<Item> {
        let route = &self.verdict.route;
        let mut found = vec![item(&route.next, route.reason.clone())];
        found.extend(self.verdict.suggestions.iter().map(|text| item("suggestion", text.clone())));
        found
    }
}

fn status(answer: Option<Answer>) -> &'static str {
    match answer {
        Some(Answer::Pass) => "PASS",
        Some(Answer::Neutral) => "NEUTRAL",
        Some(Answer::Fail) => "FAIL",
        None => "SKIPPED",
    }
}

fn delta(comparison: &Comparison, quantity: &Quantity) -> String {
    let Some(ratio) = comparison.ratio else { return not_measured(&comparison.reason) };
    let change = percent(quantity.change(ratio));
    match comparison.interval {
        None => change,
        Some([lower, upper]) => {
            let mut bounds = [lower, upper].map(|ratio| quantity.change(ratio));
            bounds.sort_by(f64::total_cmp);
            format!("{change} ({} to {})", percent(bounds[0]), percent(bounds[1]))
        }
    }
}
