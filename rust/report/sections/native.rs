//! What the hardware's own arithmetic gains and costs: speed and accuracy of a product beside the same one in f32.

use super::{View, not_measured};
use crate::gate::verdict::{Against, Comparison};
use crate::record::{AgreementRow, Meter};

/// Behind the id of a product in native arithmetic.
const NATIVE_SUFFIX: &str = "+arithmetic=native";

impl View<'_> {
    /// Speed and accuracy of each product in the hardware's own arithmetic beside the same one in f32; `None` where none
    /// was asked for.
    pub(super) fn native_arithmetic(&self) -> Option<String> {
        let native = |id: &str| id.ends_with(NATIVE_SUFFIX);
        let one = |row: &AgreementRow| {
            let plain = row.workload.strip_suffix(NATIVE_SUFFIX)?;
            let of_plain = |other: &&AgreementRow| other.workload == plain && other.backend == row.backend;
            let snr = |row: Option<&AgreementRow>| match row.and_then(|row| row.metrics.get("snr_db")) {
                Some(snr_db) => format!("{snr_db:.1} dB"),
                None => not_measured("it was not compared"),
            };
            let times = [plain, row.workload.as_str()].map(|id| self.time_of(id, &row.backend));
            let speed = match times {
                [Some(plain), Some(native)] => format!("{:.2} times as fast as in f32", plain / native),
                _ => format!("speed {}", not_measured("it was not timed in both")),
            };
            let in_f32 = snr(self.recording.agreements.iter().find(of_plain));
            Some(format!("{plain} on {}: {speed}, SNR {} (f32: {in_f32})", row.backend, snr(Some(row))))
        };
        let rows = self.recording.agreements.iter().filter(|row| native(&row.workload) && row.holds());
        // The workload itself, not one backend or its timing.
        let whole = |what: &str| native(what) && what.starts_with("mixed_precision/");
        let skipped = self.recording.skipped.iter().filter(|skipped| whole(&skipped.what));
        let lines: Vec<String> = rows
            .filter_map(one)
            .chain(skipped.map(|skipped| format!("{} {}", skipped.what, not_measured(&skipped.reason))))
            .collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Wall time of a backend's typical call, as subject or as the other side of a comparison of this run.
    fn time_of(&self, workload: &str, backend: &str) -> Option<f64> {
        let of_it = |c: &&Comparison| {
            c.workload == workload && c.meter == Meter::WallNs && c.against == Against::Reference
        };
        self.verdict.comparisons.iter().filter(of_it).find_map(|comparison| {
            match (comparison.subject == backend, comparison.other == backend) {
                (true, _) => comparison.subject_ns,
                (_, true) => comparison.other_ns,
                _ => None,
            }
        })
    }
}
