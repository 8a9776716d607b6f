//! Every number of the gate, as data. The defaults are those of the project's requirements.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What must hold, and by how much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Categories without which no verdict is a pass.
    pub required_categories: Vec<String>,
    /// Share of the reference's speed that the subject must reach, by category; time ratio at most 1 / share.
    pub reference_speed_share: BTreeMap<String, f64>,
    /// Least accuracy in percent, by format.
    pub accuracy_floor_percent: BTreeMap<String, f64>,
    /// Below this accuracy, on any format, the failure is critical.
    pub accuracy_critical_percent: f64,
    /// Edges of severity: slow-downs from which a change is minor, major, critical.
    pub severity_edges: [f64; 3],
    /// One-sided error probability of each bound.
    pub alpha: f64,
    /// Whether `likely` (slower for sure, and probably beyond the margin) fails, or is neutral.
    pub strict: bool,
}

impl Default for Policy {
    fn default() -> Self {
        let table =
            |rows: &[(&str, f64)]| rows.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Self {
            required_categories: vec!["quantization".into(), "kernels".into()],
            reference_speed_share: table(&[("quantization", 0.90), ("kernels", 0.90)]),
            accuracy_floor_percent: table(&[("i2_s", 99.8), ("tl1", 99.6), ("tl2", 99.6)]),
            accuracy_critical_percent: 99.0,
            severity_edges: [0.05, 0.10, 0.15],
            alpha: 0.05,
            strict: false,
        }
    }
}

impl Policy {
    /// ln of the largest time ratio that the C++ rule of that category allows; `None` where there is no rule.
    pub fn reference_margin(&self, category: &str) -> Option<f64> {
        self.reference_speed_share.get(category).map(|share| -share.ln())
    }
}
