//! Every number of the gate, as data: `perfgate.toml`. The defaults are those of the project's requirements, and the
//! example file at the root states them all.
//!
//! A file names only what it changes. An unknown key, a value of another type or out of its range is refused with its
//! place: a misspelt threshold must never mean the default.

use super::verdict::Severity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A policy file larger than this is none.
const MAX_POLICY_BYTES: u64 = 1 << 20;

/// What must hold, and by how much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// One-sided error probability of each bound.
    pub alpha: f64,
    /// Whether `likely` (slower for sure, and probably beyond the margin) is neutral instead of red.
    pub strict: bool,
    /// Without what no verdict is a pass.
    pub required: Required,
    /// Edges of severity of a slow-down in time (time ratio - 1).
    pub severity: Edges,
    /// The least severity that fails, by class of workload.
    pub fail_on: FailOn,
    /// Share of the C++ reference's speed that the subject must reach, by category: time ratio at most 1 / share.
    pub reference_speed_share: BTreeMap<String, f64>,
    /// Closeness to the float64 product.
    pub accuracy: AccuracyPolicy,
    /// Share of the machine's ceilings.
    pub efficiency: EfficiencyPolicy,
    /// Peak memory.
    pub memory: Growth,
    /// Wall time of builds.
    pub build_time: Growth,
    /// Edges of severity of a change in instruction counts.
    pub instructions: Edges,
    /// Accepted recordings compared with.
    pub baseline: BaselinePolicy,
}

/// Without what no verdict is a pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Required {
    /// Categories of workloads.
    pub categories: Vec<String>,
    /// Names of backends; empty: the fastest Rust and the fastest C++ backend that can run on the machine.
    pub backends: Vec<String>,
}

/// From which change on it is minor, major, critical; a share, 0.05 is 5 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edges {
    /// Below it a change is acceptable.
    pub minor: f64,
    /// From here on major.
    pub major: f64,
    /// From here on critical.
    pub critical: f64,
}

impl Edges {
    /// Severity of a time (or count) ratio.
    pub fn severity(&self, ratio: f64) -> Severity {
        match ratio - 1.0 {
            change if change >= self.critical => Severity::Critical,
            change if change >= self.major => Severity::Major,
            change if change >= self.minor => Severity::Minor,
            _ => Severity::Acceptable,
        }
    }

    /// The largest ratio that is below a severity; [`Severity::Acceptable`] has none and counts as minor.
    pub fn limit(&self, severity: Severity) -> f64 {
        1.0 + match severity {
            Severity::Acceptable | Severity::Minor => self.minor,
            Severity::Major => self.major,
            Severity::Critical => self.critical,
        }
    }
}

/// The least severity that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailOn {
    /// For products, prefill and decode.
    pub core: Severity,
    /// For quantising, dequantising, call overhead, builds.
    pub secondary: Severity,
}

/// Closeness to the float64 product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccuracyPolicy {
    /// Least accuracy in percent, by format.
    pub floor_percent: BTreeMap<String, f64>,
    /// Below this accuracy, on any format, the failure is critical.
    pub critical_percent: f64,
}

/// Classes of efficiency, the share of the measured ceiling that binds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EfficiencyPolicy {
    /// Shares at which the next class begins, rising.
    pub classes: Vec<f64>,
    /// A fall by a smaller share of itself is none, whatever the class; 0.1 is 10 %.
    pub noise: f64,
    /// Who is so many times as fast as the machine's ceilings did not do the work, or they are wrong: no evidence.
    pub beyond: f64,
}

impl EfficiencyPolicy {
    /// The class of an efficiency, from 0.
    pub fn class(&self, share: f64) -> usize {
        self.classes.iter().filter(|begin| share >= **begin).count()
    }
}

/// A quantity that may grow by a share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// Growth beyond which it fails; 0.2 is 20 %.
    pub growth: f64,
}

/// Accepted recordings compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaselinePolicy {
    /// The newest so many are used.
    pub sessions: usize,
    /// With fewer, the answer is neutral at best, and red only beyond the critical edge.
    pub min_sessions: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            strict: false,
            required: Required::default(),
            severity: Edges { minor: 0.05, major: 0.10, critical: 0.15 },
            fail_on: FailOn::default(),
            reference_speed_share: table(&[
                ("quantization", 0.90),
                ("kernels", 0.90),
                // "Within 5 %" of the reference's time.
                ("inference", 1.0 / 1.05),
            ]),
            accuracy: AccuracyPolicy::default(),
            efficiency: EfficiencyPolicy::default(),
            memory: Growth { growth: 0.20 },
            build_time: Growth { growth: 0.20 },
            instructions: Edges { minor: 0.02, major: 0.05, critical: 0.10 },
            baseline: BaselinePolicy::default(),
        }
    }
}

impl Default for Required {
    fn default() -> Self {
        Self {
            categories: ["quantization", "kernels", "inference"].map(str::to_owned).into(),
            backends: Vec::new(),
        }
    }
}

impl Default for FailOn {
    fn default() -> Self {
        Self { core: Severity::Minor, secondary: Severity::Minor }
    }
}

impl Default for AccuracyPolicy {
    fn default() -> Self {
        Self { floor_percent: table(&[("i2_s", 99.8), ("tl1", 99.6), ("tl2", 99.6)]), critical_percent: 99.0 }
    }
}

impl Default for EfficiencyPolicy {
    fn default() -> Self {
        Self { classes: vec![0.2, 0.4, 0.6, 0.8], noise: 0.10, beyond: 2.5 }
    }
}

impl Default for BaselinePolicy {
    fn default() -> Self {
        Self { sessions: 12, min_sessions: 3 }
    }
}

fn table(rows: &[(&str, f64)]) -> BTreeMap<String, f64> {
    rows.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// Why a policy file is not used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The system refused.
    #[error("{}: cannot read it: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a value of another type.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// A value out of its range.
    #[error("{}: {field} {what}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        field: String,
        /// What stands there and what was expected.
        what: String,
    },
}

impl Policy {
    /// Reads a policy file; keys that it leaves out keep their defaults.
    ///
    /// # Errors
    /// [`PolicyError`], with the place.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        use std::io::Read;
        let io = |source| PolicyError::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(io)?;
        file.take(MAX_POLICY_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_POLICY_BYTES {
            return Err(io(std::io::Error::other(format!("larger than {MAX_POLICY_BYTES} bytes"))));
        }
        let text = String::from_utf8(bytes).map_err(|_| io(std::io::Error::other("is not UTF-8")))?;
        Self::parse(&text, path)
    }

    /// The same from text; `path` names it in errors.
    ///
    /// # Errors
    /// [`PolicyError::Malformed`], [`PolicyError::Value`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, PolicyError> {
        let policy: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = &text.as_bytes()[..at];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = at - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1) + 1;
            let what = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
            PolicyError::Malformed { path: path.to_owned(), line, column, what }
        })?;
        match policy.out_of_range() {
            None => Ok(policy),
            Some((field, what)) => Err(PolicyError::Value { path: path.to_owned(), field, what }),
        }
    }

    /// The first value that no policy can have, with what was expected.
    fn out_of_range(&self) -> Option<(String, String)> {
        let refuse = |field: &str, value: &dyn std::fmt::Display, expected: &str| {
            Some((field.to_owned(), format!("is {value}, expected {expected}")))
        };
        if !(self.alpha > 0.0 && self.alpha <= 0.25) {
            return refuse("alpha", &self.alpha, "above 0 and at most 0.25");
        }
        for (name, edges) in [("severity", &self.severity), ("instructions", &self.instructions)] {
            let [minor, major, critical] = [edges.minor, edges.major, edges.critical];
            if !(minor > 0.0 && minor < major && major < critical && critical.is_finite()) {
                let found = format!("{minor}, {major}, {critical}");
                return refuse(name, &found, "0 < minor < major < critical");
            }
        }
        for (name, severity) in [("core", self.fail_on.core), ("secondary", self.fail_on.secondary)] {
            if severity == Severity::Acceptable {
                return refuse(&format!("fail_on.{name}"), &"acceptable", "minor, major or critical");
            }
        }
        for (category, share) in &self.reference_speed_share {
            if !(*share > 0.0 && *share <= 1.0) {
                let field = format!("reference_speed_share.{category}");
                return refuse(&field, share, "above 0 and at most 1");
            }
        }
        let floors = self.accuracy.floor_percent.iter();
        let floors = floors.map(|(format, floor)| (format!("accuracy.floor_percent.{format}"), *floor));
        let critical = ("accuracy.critical_percent".to_owned(), self.accuracy.critical_percent);
        for (field, percent) in floors.chain([critical]) {
            if !(percent > 0.0 && percent <= 100.0) {
                return refuse(&field, &percent, "above 0 and at most 100");
            }
        }
        let EfficiencyPolicy { classes, noise, beyond } = &self.efficiency;
        let rising = classes.windows(2).all(|pair| pair[0] < pair[1]);
        let shares = classes.iter().all(|begin| *begin > 0.0 && *begin <= 1.0);
        if classes.is_empty() || !rising || !shares {
            return refuse("efficiency.classes", &format!("{classes:?}"), "rising shares above 0, at most 1");
        }
        if !(*noise >= 0.0 && *noise < 1.0) {
            return refuse("efficiency.noise", noise, "at least 0 and below 1");
        }
        if !(*beyond > 1.0 && beyond.is_finite()) {
            return refuse("efficiency.beyond", beyond, "above 1");
        }
        for (field, growth) in
            [("memory.growth", self.memory.growth), ("build_time.growth", self.build_time.growth)]
        {
            if !(growth > 0.0 && growth.is_finite()) {
                return refuse(field, &growth, "above 0");
            }
        }
        let BaselinePolicy { sessions, min_sessions } = self.baseline;
        if min_sessions < 3 || sessions < min_sessions {
            let found = format!("{min_sessions} of {sessions}");
            return refuse("baseline.min_sessions", &found, "at least 3, and at most baseline.sessions");
        }
        None
    }

    /// The largest time ratio that the C++ rule of that category allows; `None` where there is no rule.
    pub fn reference_limit(&self, category: &str) -> Option<f64> {
        self.reference_speed_share.get(category).map(|share| 1.0 / share)
    }

    /// The largest ratio of a change that does not fail, for a workload of that class.
    pub fn change_limit(&self, edges: &Edges, class: &str) -> f64 {
        edges.limit(if class == "secondary" { self.fail_on.secondary } else { self.fail_on.core })
    }

    /// The first 16 hex digits of the SHA-256 of the whole policy as JSON: the same numbers, the same hash.
    pub fn hash(&self) -> String {
        let json = serde_json::to_vec(self).expect("a policy is plain data");
        Sha256::digest(json).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policy, PolicyError> {
        Policy::parse(text, Path::new("p.toml"))
    }

    /// Every key with its tables, sorted.
    fn keys(value: &serde_json::Value) -> Vec<String> {
        let serde_json::Value::Object(entries) = value else { return vec![String::new()] };
        let nested = |(key, value): (&String, _)| -> Vec<String> {
            keys(value).into_iter().map(|inner| format!("{key}.{inner}")).collect()
        };
        entries.iter().flat_map(nested).collect()
    }

    #[test]
    fn the_example_states_the_defaults() {
        let example = include_str!("../../perfgate.toml");
        assert_eq!(parse(example).expect("the example is a policy"), Policy::default());
        let stated: serde_json::Value = toml::from_str(example).expect("TOML");
        assert_eq!(keys(&stated), keys(&serde_json::to_value(Policy::default()).expect("JSON")));
    }

    #[test]
    fn a_file_changes_only_what_it_names() {
        let policy = parse("strict = true\n[fail_on]\ncore = \"major\"\n").expect("a policy");
        assert_eq!(policy.fail_on, FailOn { core: Severity::Major, secondary: Severity::Minor });
        assert!((policy.change_limit(&policy.severity, "core") - 1.10).abs() < 1e-12);
        assert!((policy.change_limit(&policy.severity, "secondary") - 1.05).abs() < 1e-12);
        assert_eq!(Policy { strict: false, fail_on: FailOn::default(), ..policy.clone() }, Policy::default());
        assert_ne!(policy.hash(), Policy::default().hash());
        assert_eq!(parse("").expect("nothing changed"), Policy::default());
    }

    #[test]
    fn what_is_no_policy_is_refused_with_its_place() {
        let table = [
            ("alpah = 0.05", "p.toml:1:1: unknown field `alpah`"),
            ("\n[severity]\nminor = 0.05\nmajor = 0.1\n", "p.toml:2:1: missing field `critical`"),
            ("alpha = \"x\"", "p.toml:1:9: invalid type"),
            ("alpha = ", "p.toml:1:"),
            ("alpha = nan", "alpha is NaN"),
            ("alpha = 0.0", "alpha is 0, expected above 0"),
            (
                "[severity]\nminor = 0.2\nmajor = 0.1\ncritical = 0.3",
                "severity is 0.2, 0.1, 0.3, expected 0 < minor",
            ),
            ("[fail_on]\ncore = \"acceptable\"", "fail_on.core is acceptable"),
            ("[fail_on]\ncore = \"never\"", "p.toml:2:8: unknown variant `never`"),
            ("[reference_speed_share]\nkernels = 1.5", "reference_speed_share.kernels is 1.5"),
            ("[accuracy.floor_percent]\ni2_s = 0.998\ntl1 = 200.0", "accuracy.floor_percent.tl1 is 200"),
            ("[efficiency]\nclasses = []", "efficiency.classes is [], expected rising shares"),
            ("[efficiency]\nclasses = [0.4, 0.2]", "efficiency.classes is [0.4, 0.2]"),
            ("[efficiency]\nclasses = [0.0, 0.2]", "efficiency.classes is [0.0, 0.2]"),
            ("[efficiency]\nnoise = 1.0", "efficiency.noise is 1, expected"),
            ("[efficiency]\nbeyond = 1.0", "efficiency.beyond is 1, expected above 1"),
            ("[memory]\ngrowth = inf", "memory.growth is inf"),
            ("[baseline]\nmin_sessions = 1", "baseline.min_sessions is 1 of 12"),
        ];
        for (text, words) in table {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = Policy::read(Path::new("/nonexistent/p.toml")).expect_err("no file").to_string();
        assert!(error.starts_with("/nonexistent/p.toml: cannot read it"), "{error}");
    }
}
